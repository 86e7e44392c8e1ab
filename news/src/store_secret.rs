//! Passwords and PEM files of the store, from where the configuration says that they are.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use durward_config::SecretRef;

/// Largest password or PEM file that is read, in bytes.
const MAX_SECRET_BYTES: u64 = 256 * 1024;

/// A password. Printing it shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(String);

impl Password {
    /// Reads what a reference names. The error says where, never what.
    pub(crate) fn read(reference: &SecretRef, base: &Path) -> Result<Self, String> {
        let (bytes, place) = match reference {
            SecretRef::File(path) => {
                let mut bytes = read_bounded(&base.join(path))?;
                if bytes.last() == Some(&b'\n') {
                    bytes.pop();
                    if bytes.last() == Some(&b'\r') {
                        bytes.pop();
                    }
                }
                (bytes, format!("the file {}", path.display()))
            }
            SecretRef::Environment(name) => {
                let value =
                    std::env::var_os(name).ok_or_else(|| format!("the environment has no `{name}`"))?;
                (
                    value.into_encoded_bytes(),
                    format!("the environment variable {name}"),
                )
            }
        };
        match String::from_utf8(bytes) {
            Ok(text) if text.is_empty() => Err(format!("{place} is empty")),
            Ok(text) => Ok(Self(text)),
            Err(_) => Err(format!("{place} does not hold text")),
        }
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

/// A file's bytes, up to [`MAX_SECRET_BYTES`].
pub(crate) fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    let describe = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(describe)?;
    file.take(MAX_SECRET_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(describe)?;
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        return Err(format!(
            "{} is larger than {MAX_SECRET_BYTES} bytes",
            path.display()
        ));
    }
    Ok(bytes)
}
