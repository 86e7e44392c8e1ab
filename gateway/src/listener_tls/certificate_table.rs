//! Which certificate is shown to whom.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::certificate::Certificate;

/// The certificates of a listener, by the names that they are for.
#[derive(Debug)]
pub(crate) struct CertificateTable {
    all: Vec<Arc<Certificate>>,
    /// Indices into `all`; under `*.` and a name those for what is one label below it.
    by_name: HashMap<String, Vec<usize>>,
}

impl CertificateTable {
    /// Of several for one name, the first whose key the client can check is shown.
    pub(crate) fn new(all: Vec<Arc<Certificate>>) -> Self {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, certificate) in all.iter().enumerate() {
            for name in &certificate.names {
                let indices = by_name.entry(name.clone()).or_default();
                if indices.last() != Some(&index) {
                    indices.push(index);
                }
            }
        }
        Self { all, by_name }
    }

    /// The certificates, in the order of the file.
    pub(crate) fn all(&self) -> &[Arc<Certificate>] {
        &self.all
    }

    /// Whether a certificate is for this host, which is in lower case and without a port.
    pub(crate) fn has(&self, host: &str) -> bool {
        !self.named(host).is_empty()
    }

    /// The names for which a certificate is hidden by another of the same kind of key.
    pub(crate) fn never_shown(&self) -> BTreeSet<&str> {
        let kind = |index: &usize| self.all[*index].key.key.algorithm();
        let is_hidden = |indices: &[usize]| {
            let mut kinds: Vec<SignatureAlgorithm> = Vec::new();
            indices.iter().any(|index| {
                let kind = kind(index);
                let known = kinds.contains(&kind);
                kinds.push(kind);
                known
            })
        };
        let hidden = self.by_name.iter().filter(|(_, indices)| is_hidden(indices));
        hidden.map(|(name, _)| name.as_str()).collect()
    }

    /// The exact name before the wildcard (RFC 6125 section 6.4.3: one whole label, the leftmost).
    fn named(&self, host: &str) -> &[usize] {
        if let Some(indices) = self.by_name.get(host) {
            return indices;
        }
        let wildcard = host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let indices = wildcard.and_then(|wildcard| self.by_name.get(&wildcard));
        indices.map_or(&[], Vec::as_slice)
    }

    /// The certificate for a server name; the file's first for none, and for one that nobody has.
    fn choose(&self, name: Option<&str>, offered: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let named = name.map_or(&[][..], |name| self.named(name));
        let named = named.iter().map(|index| &self.all[*index]);
        let fits = |certificate: &&Arc<Certificate>| certificate.key.key.choose_scheme(offered).is_some();
        let certificate = named.clone().find(fits).or_else(|| match named.len() {
            0 => self.all.first(),
            _ => None,
        })?;
        Some(Arc::clone(&certificate.key))
    }
}

/// The table that is in force.
pub(crate) struct Certificates(ArcSwap<CertificateTable>);

impl Certificates {
    pub(crate) fn new(table: CertificateTable) -> Self {
        Self(ArcSwap::from_pointee(table))
    }

    pub(crate) fn table(&self) -> Arc<CertificateTable> {
        self.0.load_full()
    }

    /// Handshakes from here on see this table.
    pub(crate) fn replace(&self, table: CertificateTable) {
        self.0.store(Arc::new(table));
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        self.0.load().choose(name.as_deref(), hello.signature_schemes())
    }
}
