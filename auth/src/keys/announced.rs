//! The file of a signing key that is announced: private half and the time from which it signs, in one
//! piece, so that there is never the one without the other.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use durward_contract::UnixSeconds;
use serde::{Deserialize, Serialize};

use super::{KeyError, KeyFolder, is_key_for, read};
use crate::config::SigningAlgorithm;

/// A key that does not sign yet.
pub(crate) struct AnnouncedFile {
    /// From then on it signs.
    pub signs_from: UnixSeconds,
    /// PKCS#8.
    pub document: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    signs_from: UnixSeconds,
    /// PKCS#8 in base64.
    key: String,
}

impl KeyFolder {
    /// Makes a key that signs from then on, and returns its PKCS#8 document.
    pub fn announce(
        &self,
        algorithm: SigningAlgorithm,
        signs_from: UnixSeconds,
    ) -> Result<Vec<u8>, KeyError> {
        let document = self.generate(algorithm)?;
        let content = Content {
            signs_from,
            key: STANDARD.encode(&document),
        };
        self.put_json(self.announced_file(algorithm), &content)?;
        Ok(document)
    }

    /// The announced key for `algorithm`, where there is one.
    pub fn announced(&self, algorithm: SigningAlgorithm) -> Result<Option<AnnouncedFile>, KeyError> {
        let path = self.announced_file(algorithm);
        let bytes = match read(&path) {
            Err(KeyError::Io { cause, .. }) if cause.kind() == std::io::ErrorKind::NotFound => {
                return Ok(None);
            }
            read => read?,
        };
        let file = serde_json::from_slice::<Content>(&bytes)
            .ok()
            .and_then(|content| {
                Some(AnnouncedFile {
                    signs_from: content.signs_from,
                    document: STANDARD.decode(content.key).ok()?,
                })
            });
        match file {
            Some(file) if is_key_for(algorithm, &file.document) => Ok(Some(file)),
            _ => Err(KeyError::Malformed {
                path,
                what: "a signing key that is announced",
            }),
        }
    }

    /// Forgets the announced key. That there is none is no error.
    pub fn forget_announced(&self, algorithm: SigningAlgorithm) -> Result<(), KeyError> {
        self.remove(self.announced_file(algorithm))
    }

    pub(super) fn announced_file(&self, algorithm: SigningAlgorithm) -> PathBuf {
        let name = format!("announced-{}.json", algorithm.name().to_lowercase());
        self.0.join(name)
    }
}
