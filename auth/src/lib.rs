//! The auth service: users, sessions, tokens, and the revocation log
