//! Demo backends that know nothing of tokens
