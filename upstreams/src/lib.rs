//! Demo backends that know nothing of tokens.
//!
//! Two small servers to put behind the gateway: an API server
//! ([`serve_api`]) and an image server ([`serve_images`]). They are here to
//! show, and to test, that a backend needs no authentication code of its own.
//! The API server reads the identity headers that the gateway sets:
//!
//! - `X-User-Id`: who is asking; required on every request,
//! - `X-User-Roles`: their roles, joined with `,`; absent means none.
//!
//! The image server reads no header at all: the owner of an image is a segment
//! of its path, and the gateway's rule for that path is the whole check.
//!
//! Both trust whoever can reach them, so they must be reachable from the
//! gateway only. Everything that a client can make them hold is bounded by a
//! named constant beside the code it bounds. Errors are problem details
//! ([RFC 9457]) with a stable `code`.
//!
//! [RFC 9457]: https://www.rfc-editor.org/rfc/rfc9457

#![forbid(unsafe_code)]

mod api;
mod images;
mod problem;
mod serve;
mod unread_body;

pub use api::serve_api;

pub use images::{ImageFolder, sample_png, serve_images};
