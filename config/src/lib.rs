//! The configuration file as a tree with places, and diagnostics about it
