//! The configuration file as a tree with places, and diagnostics about it.
//!
//! This crate knows no key of Durward's configuration. It reads YAML into [`Node`]s that remember
//! where they stood, offers a [`Section`] walker that refuses unknown keys, and collects every
//! [`Diagnostic`] so that all errors of a file are reported at once. Each other crate compiles its
//! own section of the tree.
//!
//! It is the only place that touches a YAML library, so that the library can be changed here alone.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod diagnostics;
mod document;
mod scalar;
mod secret;
mod section;
mod suggestion;

pub use diagnostics::{Diagnostic, Diagnostics, Severity};
pub use document::{Document, Entry, MAX_DOCUMENT_BYTES, Node, Place, Value};
pub use secret::{MAX_SECRET_BYTES, SecretRef, read_bounded};
pub use section::Section;
