//! Whose certificates clients may show.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::config::ClientCertificates;
use crate::secret::read_bounded;

/// Most authorities of a file.
const MAX_AUTHORITIES: usize = 64;

/// The authorities of a file, ready to verify with.
#[derive(Debug)]
pub(crate) struct ClientAuthorities {
    pub(crate) verifier: Arc<dyn ClientCertVerifier>,
    /// Of the file's content.
    pub(crate) digest: [u8; 32],
}

impl ClientAuthorities {
    /// The digest of what the file holds now.
    pub(crate) fn digest_now(config: &ClientCertificates) -> Result<[u8; 32], String> {
        read_bounded(&config.ca).map(|bytes| digest_of(&bytes))
    }

    /// Reads the file. An error says what of it cannot be used.
    pub(crate) fn read(config: &ClientCertificates) -> Result<Self, String> {
        let path = config.ca.display();
        let bytes = read_bounded(&config.ca)?;
        let found: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .map_err(|_| format!("{path} is no PEM"))?;
        if found.is_empty() || found.len() > MAX_AUTHORITIES {
            return Err(format!(
                "{path} holds {} certificates; from 1 to {MAX_AUTHORITIES} can be used",
                found.len()
            ));
        }
        let mut roots = RootCertStore::empty();
        for certificate in found {
            roots
                .add(certificate)
                .map_err(|error| format!("a certificate of {path} cannot be an authority: {error}"))?;
        }
        let provider = Arc::new(ring::default_provider());
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = match config.required {
            true => builder,
            false => builder.allow_unauthenticated(),
        };
        let verifier = builder
            .build()
            .map_err(|error| format!("{path} cannot be used: {error}"))?;
        Ok(Self {
            verifier,
            digest: digest_of(&bytes),
        })
    }
}

fn digest_of(bytes: &[u8]) -> [u8; 32] {
    let mut digest_bytes = [0; 32];
    digest_bytes.copy_from_slice(digest(&SHA256, bytes).as_ref());
    digest_bytes
}
