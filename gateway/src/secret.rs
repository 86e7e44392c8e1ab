//! Reading secrets and keys from where the configuration says that they are.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use durward_config::SecretRef;

/// Largest secret, PEM or JWKS file that is read, in bytes.
pub(crate) const MAX_SECRET_BYTES: u64 = 256 * 1024;

/// What a secret reference names, resolved against the configuration file's folder. One trailing
/// line break is not part of a file's secret. The error says where, never what.
pub(crate) fn read_secret(reference: &SecretRef, base: &Path) -> Result<Vec<u8>, String> {
    let secret = match reference {
        SecretRef::File(path) => {
            let path = resolve(base, path);
            let mut bytes = read_bounded(&path)?;
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
                if bytes.last() == Some(&b'\r') {
                    bytes.pop();
                }
            }
            bytes
        }
        SecretRef::Environment(name) => std::env::var_os(name)
            .ok_or_else(|| format!("the environment has no `{name}`"))?
            .into_encoded_bytes(),
    };
    if secret.is_empty() {
        return Err(format!("{} is empty", describe(reference)));
    }
    Ok(secret)
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

/// A path of the file, relative to the file's folder.
pub(crate) fn resolve(base: &Path, path: &Path) -> PathBuf {
    base.join(path)
}

/// Where a secret is kept, for messages.
pub(crate) fn describe(reference: &SecretRef) -> String {
    match reference {
        SecretRef::File(path) => format!("the file {}", path.display()),
        SecretRef::Environment(name) => format!("the environment variable {name}"),
    }
}
