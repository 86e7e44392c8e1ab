//! The Pingora shell around the access decision
