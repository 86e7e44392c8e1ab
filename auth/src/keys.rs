//! Key files: made on first start, for the owner only, and refused where others can read them.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};

use crate::config::SigningAlgorithm;
use crate::key_ring::RetiringKey;
use crate::random;

mod announced;
mod sharing;

pub(crate) use sharing::{Fingerprint, FolderLock};

const REFRESH_KEY_FILE: &str = "refresh.key";
const RETIRING_PREFIX: &str = "retiring-";
const RETIRING_SUFFIX: &str = ".json";
/// Largest key file that is read.
const MAX_KEY_BYTES: u64 = 16 * 1024;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file or its folder cannot be read or made.
    #[error("{path}: {cause}")]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Others could read the key or put another in its place.
    #[error("{path} can be used by others (mode {mode:03o}); run: chmod {wanted} {path}")]
    Exposed {
        /// Which one.
        path: PathBuf,
        /// The mode it has.
        mode: u32,
        /// The mode it should have.
        wanted: &'static str,
    },
    /// The key was revoked: nobody accepts what it signs.
    #[error("{path} holds a key that was revoked; remove the file, and a new one is made")]
    Revoked {
        /// Which one.
        path: PathBuf,
    },
    /// The file holds no key of its kind.
    #[error("{path} does not hold {what}")]
    Malformed {
        /// Which one.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
}

/// The folder of key files.
#[derive(Clone, Debug)]
pub(crate) struct KeyFolder(PathBuf);

impl KeyFolder {
    /// Opens the folder, and makes it where there is none.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let failed = |cause| KeyError::Io {
            path: path.to_owned(),
            cause,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
        let mode = fs::metadata(path).map_err(failed)?.mode() & 0o777;
        if mode & 0o022 != 0 {
            return Err(KeyError::Exposed {
                path: path.to_owned(),
                mode,
                wanted: "700",
            });
        }
        Ok(Self(path.to_owned()))
    }

    /// Makes the signing key for `algorithm` where there is none.
    pub fn make_signing_key(&self, algorithm: SigningAlgorithm) -> Result<(), KeyError> {
        read_or_make(&self.signing_file(algorithm), || generate(algorithm)).map(drop)
    }

    /// The PKCS#8 document of the signing key for `algorithm`.
    pub fn signing_key(&self, algorithm: SigningAlgorithm) -> Result<Vec<u8>, KeyError> {
        let path = self.signing_file(algorithm);
        let document = read(&path)?;
        if is_key_for(algorithm, &document) {
            Ok(document)
        } else {
            let what = "a PKCS#8 key for its algorithm";
            Err(KeyError::Malformed { path, what })
        }
    }

    /// That the signing key was revoked.
    pub fn revoked(&self, algorithm: SigningAlgorithm) -> KeyError {
        KeyError::Revoked {
            path: self.signing_file(algorithm),
        }
    }

    /// Makes a signing key in a file beside the one in use.
    pub fn new_signing_key(&self, algorithm: SigningAlgorithm) -> Result<NewKey, KeyError> {
        let document = self.generate(algorithm)?;
        self.stage(document)
    }

    /// Puts a signing key into a file beside the one in use.
    pub fn stage(&self, document: Vec<u8>) -> Result<NewKey, KeyError> {
        let path = self.0.join(format!(".new-{}", random::token_id()));
        let new = NewKey {
            file: Leftover(path.clone()),
            document,
        };
        write_and_sync(&path, &new.document).map_err(|cause| KeyError::Io { path, cause })?;
        Ok(new)
    }

    fn generate(&self, algorithm: SigningAlgorithm) -> Result<Vec<u8>, KeyError> {
        generate(algorithm).ok_or_else(|| KeyError::Io {
            path: self.0.clone(),
            cause: io::Error::other("the key could not be generated"),
        })
    }

    /// Puts a new signing key in the place of the one in use, whose private half is gone then. In one
    /// step: a process that dies leaves the one or the other.
    pub fn replace_signing_key(&self, algorithm: SigningAlgorithm, new: NewKey) -> Result<(), KeyError> {
        let path = self.signing_file(algorithm);
        fs::rename(&new.file.0, &path)
            .and_then(|()| self.sync())
            .map_err(|cause| KeyError::Io { path, cause })
    }

    /// Keeps a retiring key's public half.
    pub fn keep_retiring(&self, key: &RetiringKey) -> Result<(), KeyError> {
        self.put_json(self.retiring_file(key.kid()), key)
    }

    /// Forgets a retiring key. That there is none is no error.
    pub fn forget_retiring(&self, kid: &str) -> Result<(), KeyError> {
        self.remove(self.retiring_file(kid))
    }

    /// Writes a file in one step, for the owner only.
    fn put_json(&self, path: PathBuf, content: &impl serde::Serialize) -> Result<(), KeyError> {
        let fresh = Leftover(self.0.join(format!(".new-{}", random::token_id())));
        serde_json::to_vec(content)
            .map_err(io::Error::other)
            .and_then(|content| write_and_sync(&fresh.0, &content))
            .and_then(|()| fs::rename(&fresh.0, &path))
            .and_then(|()| self.sync())
            .map_err(|cause| KeyError::Io { path, cause })
    }

    /// Removes a file. That there is none is no error.
    fn remove(&self, path: PathBuf) -> Result<(), KeyError> {
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed
                .and_then(|()| self.sync())
                .map_err(|cause| KeyError::Io { path, cause }),
        }
    }

    /// The retiring keys, the one that is published longest first.
    pub fn retiring_keys(&self) -> Result<Vec<RetiringKey>, KeyError> {
        let failed = |cause| KeyError::Io {
            path: self.0.clone(),
            cause,
        };
        let mut keys = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !(name.starts_with(RETIRING_PREFIX) && name.ends_with(RETIRING_SUFFIX)) {
                continue;
            }
            let malformed = || KeyError::Malformed {
                path: path.clone(),
                what: "a public key that is being retired",
            };
            let key: RetiringKey = serde_json::from_slice(&read(&path)?).map_err(|_| malformed())?;
            if self.retiring_file(key.kid()) != path {
                return Err(malformed());
            }
            keys.push(key);
        }
        keys.sort_by(|a, b| b.until.cmp(&a.until).then_with(|| a.kid().cmp(b.kid())));
        Ok(keys)
    }

    fn signing_file(&self, algorithm: SigningAlgorithm) -> PathBuf {
        self.0
            .join(format!("signing-{}.pk8", algorithm.name().to_lowercase()))
    }

    fn retiring_file(&self, kid: &str) -> PathBuf {
        self.0.join(format!("{RETIRING_PREFIX}{kid}{RETIRING_SUFFIX}"))
    }

    fn sync(&self) -> io::Result<()> {
        fs::File::open(&self.0)?.sync_all()
    }

    /// The key that successors of refresh tokens are derived with.
    pub fn refresh_key(&self) -> Result<[u8; 32], KeyError> {
        let path = self.0.join(REFRESH_KEY_FILE);
        let key = read_or_make(&path, || Some(random::bytes::<32>().to_vec()))?;
        key.try_into().map_err(|_| KeyError::Malformed {
            path,
            what: "32 bytes",
        })
    }
}

/// A signing key that is not in use yet.
pub(crate) struct NewKey {
    file: Leftover,
    /// PKCS#8.
    document: Vec<u8>,
}

impl NewKey {
    /// The PKCS#8 document.
    pub fn document(&self) -> &[u8] {
        &self.document
    }
}

/// A file that goes with this, unless it was moved to its place.
#[derive(Debug)]
struct Leftover(PathBuf);

impl Drop for Leftover {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn generate(algorithm: SigningAlgorithm) -> Option<Vec<u8>> {
    let random = SystemRandom::new();
    match algorithm {
        SigningAlgorithm::Es256 => {
            let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).ok()?;
            Some(document.as_ref().to_vec())
        }
        // Version 1 of RFC 8410, without the public key: the form that jsonwebtoken reads.
        SigningAlgorithm::EdDsa => Some(Ed25519KeyPair::generate_pkcs8v1(&random).ok()?.as_ref().to_vec()),
        SigningAlgorithm::Rs256 => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).ok()?;
            let document: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().ok()?;
            Some(document.as_ref().to_vec())
        }
    }
}

fn is_key_for(algorithm: SigningAlgorithm, document: &[u8]) -> bool {
    match algorithm {
        SigningAlgorithm::Es256 => {
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document).is_ok()
        }
        SigningAlgorithm::EdDsa => Ed25519KeyPair::from_pkcs8(document).is_ok(),
        // RFC 7518 section 3.3: 2048 bits or more.
        SigningAlgorithm::Rs256 => {
            RsaKeyPair::from_pkcs8(document).is_ok_and(|pair| pair.public_modulus_len() >= 256)
        }
    }
}

/// Reads the file; where there is none, makes it in one step, so that a process that dies leaves
/// no half of one and two that start together agree on one.
fn read_or_make(path: &Path, make: impl FnOnce() -> Option<Vec<u8>>) -> Result<Vec<u8>, KeyError> {
    let failed = |cause| KeyError::Io {
        path: path.to_owned(),
        cause,
    };
    match fs::metadata(path) {
        Ok(_) => return read(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let content = make().ok_or_else(|| failed(io::Error::other("the key could not be generated")))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let fresh = folder.join(format!(".new-{}", random::token_id()));
    let written = write_and_sync(&fresh, &content).and_then(|()| fs::hard_link(&fresh, path));
    let _ = fs::remove_file(&fresh);
    match written {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed)?;
    read(path)
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

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    let failed = |cause| KeyError::Io {
        path: path.to_owned(),
        cause,
    };
    let facts = fs::metadata(path).map_err(failed)?;
    let mode = facts.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed {
            path: path.to_owned(),
            mode,
            wanted: "600",
        });
    }
    if !facts.is_file() || facts.len() > MAX_KEY_BYTES {
        return Err(KeyError::Malformed {
            path: path.to_owned(),
            what: "a key",
        });
    }
    fs::read(path).map_err(failed)
}
