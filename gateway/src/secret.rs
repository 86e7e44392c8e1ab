//! Reading secrets and keys from where the configuration says that they are.

use std::path::{Path, PathBuf};

use durward_config::SecretRef;

pub(crate) use durward_config::{MAX_SECRET_BYTES, read_bounded};

/// What a secret reference names, resolved against the configuration file's folder.
pub(crate) fn read_secret(reference: &SecretRef, base: &Path) -> Result<Vec<u8>, String> {
    reference.read(base)
}

/// A path of the file, relative to the file's folder.
pub(crate) fn resolve(base: &Path, path: &Path) -> PathBuf {
    base.join(path)
}

/// Where a secret is kept, for messages.
pub(crate) fn describe(reference: &SecretRef) -> String {
    reference.to_string()
}
