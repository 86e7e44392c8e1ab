//! The key that signs assertions: a PKCS#8 file of its own, made where there is none, for its owner
//! only and refused where others can read it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::secret::read_bounded;

/// What tells it from every other kind of token (RFC 8725 section 3.11).
const TYPE: &str = "durward-assertion+jwt";
/// An uncompressed point: a marker, then 32 bytes of each coordinate.
const POINT_BYTES: usize = 65;

pub(super) struct AssertionKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    kid: String,
    /// The JWS header, encoded.
    header: String,
    jwk: serde_json::Value,
}

impl AssertionKey {
    pub(super) fn read_or_make(path: &Path) -> Result<Self, String> {
        match fs::metadata(path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(path).map_err(|error| format!("cannot make the key {}: {error}", path.display()))?;
            }
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        }
        Self::read(path)
    }

    /// Reads it where it is there.
    pub(super) fn check(path: &Path) -> Result<(), String> {
        match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            _ => Self::read(path).map(drop),
        }
    }

    fn read(path: &Path) -> Result<Self, String> {
        let facts = fs::metadata(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let mode = facts.mode() & 0o777;
        if mode & 0o077 != 0 {
            let path = path.display();
            return Err(format!(
                "{path} can be used by others (mode {mode:03o}); run: chmod 600 {path}"
            ));
        }
        let document = read_bounded(path)?;
        Self::new(&document).ok_or_else(|| format!("{} does not hold a PKCS#8 key for ES256", path.display()))
    }

    fn new(document: &[u8]) -> Option<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document).ok()?;
        let point = pair.public_key().as_ref();
        if point.len() != POINT_BYTES {
            return None;
        }
        let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
        // RFC 7638: the required members in this order and without spaces.
        let thumbprint = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let kid = encode(digest(&SHA256, thumbprint.as_bytes()).as_ref());
        let header = json!({ "alg": "ES256", "typ": TYPE, "kid": kid }).to_string();
        let jwk = json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "x": x, "y": y,
        });
        Some(Self {
            pair,
            random: SystemRandom::new(),
            kid,
            header: encode(header.as_bytes()),
            jwk,
        })
    }

    /// The claims as a signed JWT.
    pub(super) fn sign(&self, claims: &str) -> Option<String> {
        let mut token = format!("{}.{}", self.header, encode(claims.as_bytes()));
        let signature = self.pair.sign(&self.random, token.as_bytes()).ok()?;
        token.push('.');
        token.push_str(&encode(signature.as_ref()));
        Some(token)
    }

    pub(super) fn jwks(&self) -> String {
        json!({ "keys": [self.jwk] }).to_string()
    }
}

impl std::fmt::Debug for AssertionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AssertionKey({})", self.kid)
    }
}

/// Makes a key in a file beside, and gives it its name only when it is whole: of two processes that
/// start at once, one finds the other's.
fn make(path: &Path) -> io::Result<()> {
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
        .map_err(|_| io::Error::other("the key could not be generated"))?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut name = [0; 16];
    aws_lc_rs::rand::fill(&mut name).map_err(|_| io::Error::other("no randomness"))?;
    let fresh = folder.join(format!(".new-{}", encode(&name)));
    let written = write_and_sync(&fresh, document.as_ref()).and_then(|()| fs::hard_link(&fresh, path));
    let _ = fs::remove_file(&fresh);
    match written {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::File::open(folder)?.sync_all()
}

fn write_and_sync(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_and_refused_where_others_can_read_it() {
        let folder = std::env::temp_dir().join(format!("durward-assertion-key-{}", std::process::id()));
        let path = folder.join("data/assertion.key");
        AssertionKey::check(&path).unwrap();
        assert!(!path.exists(), "a check makes nothing");
        let made = AssertionKey::read_or_make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(
            fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777,
            0o700
        );
        assert_eq!(AssertionKey::read_or_make(&path).unwrap().kid, made.kid);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(
            AssertionKey::read_or_make(&path)
                .unwrap_err()
                .contains("chmod 600")
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, b"no key").unwrap();
        assert!(AssertionKey::check(&path).unwrap_err().contains("PKCS#8"));
        fs::remove_dir_all(folder).unwrap();
    }
}
