//! Passwords of the store, from where the configuration says that they are.

use std::fmt;
use std::path::Path;

use durward_config::SecretRef;

/// A password. Printing it shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(String);

impl Password {
    /// Reads what a reference names. The error says where, never what.
    pub(crate) fn read(reference: &SecretRef, base: &Path) -> Result<Self, String> {
        String::from_utf8(reference.read(base)?)
            .map(Self)
            .map_err(|_| format!("{reference} does not hold text"))
    }

    /// The text itself. Whoever calls this answers for where it goes.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}
