//! A certificate with its key, read from files and checked: rustls and Pingora would find out at the
//! first handshake.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use durward_contract::UnixSeconds;
use durward_policy::{CertificateName, ClientCertificate};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::secret::read_bounded;

/// Most certificates of a chain.
const MAX_CHAIN: usize = 16;

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and what leads from it to an authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A certificate that can be shown.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) key: Arc<CertifiedKey>,
    /// The names that it is for, in lower case; `*.` and a name for those one label below it, and
    /// addresses as `Host` has them.
    pub(crate) names: Vec<String>,
    pub(crate) not_before: UnixSeconds,
    pub(crate) not_after: UnixSeconds,
    /// Of the files' content.
    pub(crate) digest: [u8; 32],
}

/// The content of both files, by which a change is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Content {
    pub(crate) fn read(files: &CertificateFiles) -> Result<Self, String> {
        Ok(Self {
            certificate: read_bounded(&files.certificate)?,
            key: read_bounded(&files.key)?,
        })
    }

    /// What it is told from another by.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let length = self.certificate.len().to_be_bytes();
        let whole = digest(&SHA256, &[&length[..], &self.certificate, &self.key].concat());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(whole.as_ref());
        bytes
    }
}

impl Certificate {
    /// Reads and checks both files.
    pub(crate) fn read(files: &CertificateFiles) -> Result<Self, String> {
        Self::of(&Content::read(files)?, files)
    }

    /// What the files hold. The error names the file, and never what the key's holds.
    pub(crate) fn of(content: &Content, files: &CertificateFiles) -> Result<Self, String> {
        let (path, key_path) = (files.certificate.display(), files.key.display());
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&content.certificate)
            .collect::<Result<_, _>>()
            .map_err(|_| format!("{path} is no PEM"))?;
        if chain.len() > MAX_CHAIN {
            return Err(format!("{path} holds more than {MAX_CHAIN} certificates"));
        }
        let Some(leaf) = chain.first() else {
            return Err(format!("{path} does not hold a certificate"));
        };
        let (_, parsed) = X509Certificate::from_der(leaf)
            .map_err(|_| format!("{path} holds a certificate that cannot be read"))?;
        let names =
            names(&parsed).ok_or_else(|| format!("a name of the certificate {path} cannot be read"))?;
        if names.is_empty() {
            return Err(format!(
                "the certificate {path} is for no name: clients look at subjectAltName alone"
            ));
        }
        let validity = parsed.validity();
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let key = PrivateKeyDer::from_pem_slice(&content.key)
            .map_err(|_| format!("{key_path} does not hold a private key"))?;
        let key = CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|error| format!("{key_path} cannot be used with the certificate {path}: {error}"))?;
        Ok(Self {
            key: Arc::new(key),
            names,
            not_before: UnixSeconds(not_before),
            not_after: UnixSeconds(not_after),
            digest: content.digest(),
        })
    }
}

/// What the decision is told of a client's certificate, which was verified. Nothing where it cannot be
/// read, or has more names than are looked for: nobody can be granted such a one.
pub(crate) fn client_certificate(der: &[u8]) -> Option<ClientCertificate> {
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let mut names = vec![CertificateName::fingerprint(der)];
    if let Some(extension) = parsed.subject_alternative_name().ok()? {
        for name in &extension.value.general_names {
            let name = match name {
                GeneralName::DNSName(name) => CertificateName::dns(name),
                GeneralName::URI(uri) => CertificateName::uri(uri),
                _ => None,
            };
            if let Some(name) = name
                && !names.contains(&name)
            {
                names.push(name);
            }
        }
    }
    let validity = parsed.validity();
    let [not_before, not_after] =
        [validity.not_before, validity.not_after].map(|time| UnixSeconds(time.timestamp()));
    ClientCertificate::new(names, not_before, not_after)
}

/// The names of subjectAltName; nothing where it cannot be read.
fn names(certificate: &X509Certificate<'_>) -> Option<Vec<String>> {
    let Some(extension) = certificate.subject_alternative_name().ok()? else {
        return Some(Vec::new());
    };
    let names = extension.value.general_names.iter();
    Some(names.filter_map(name_of).collect())
}

fn name_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            match v4.or_else(|_| v6()).ok()? {
                IpAddr::V4(address) => Some(address.to_string()),
                IpAddr::V6(address) => Some(format!("[{address}]")),
            }
        }
        _ => None,
    }
}
