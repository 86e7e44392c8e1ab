//! Secrets: where they are kept, and reading them from there.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest secret, PEM or JWKS file that is read, in bytes.
pub const MAX_SECRET_BYTES: u64 = 256 * 1024;

/// Where a secret is kept. Secrets never stand in the configuration file itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretRef {
    /// `{ file: PATH }`: the file's content, without one trailing line break.
    File(PathBuf),
    /// `{ env: NAME }`: the environment variable's value.
    Environment(String),
}

impl SecretRef {
    /// The secret; a relative path is relative to `base`, the configuration file's folder. The
    /// error says where, never what.
    pub fn read(&self, base: &Path) -> Result<Vec<u8>, String> {
        let secret = match self {
            Self::File(path) => {
                let mut bytes = read_bounded(&base.join(path))?;
                if bytes.last() == Some(&b'\n') {
                    bytes.pop();
                    if bytes.last() == Some(&b'\r') {
                        bytes.pop();
                    }
                }
                bytes
            }
            Self::Environment(name) => std::env::var_os(name)
                .ok_or_else(|| format!("the environment has no `{name}`"))?
                .into_encoded_bytes(),
        };
        if secret.is_empty() {
            return Err(format!("{self} is empty"));
        }
        Ok(secret)
    }
}

/// Says where it is kept.
impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Environment(name) => write!(f, "the environment variable {name}"),
        }
    }
}

/// A file's bytes, up to [`MAX_SECRET_BYTES`].
pub fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
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
