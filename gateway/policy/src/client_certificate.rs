//! Client certificates as a credential: the handshake has proved one, and the grants say which
//! service it is of.
//!
//! A certificate is granted by one of its names, in the way that an API key is: what travels is a
//! digest, of the name instead of a key's text. So scopes, an end, revocation and open streams are
//! those of API keys, and an authority alone makes nobody a service.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use durward_contract::UnixSeconds;

use crate::api_key::KeyDigest;
use crate::host::canonical_name;

/// Most names of a certificate that are looked for.
pub const MAX_CERTIFICATE_NAMES: usize = 16;
/// Longest name, in bytes.
pub const MAX_CERTIFICATE_NAME_BYTES: usize = 512;
/// Sets these digests apart from those of keys.
const CONTEXT: &[u8] = b"durward client certificate\0";

/// What a certificate is granted by: `dns:` and `uri:` are names of its subjectAltName, `sha256:` is
/// the certificate itself (of its DER, in lower case).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CertificateName(String);

impl CertificateName {
    /// Reads a name in its one spelling, or in another of the same meaning.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, value) = text.split_once(':')?;
        match kind {
            "dns" => Self::dns(value),
            "uri" => Self::uri(value),
            "sha256" => {
                // OpenSSL writes colons between the bytes.
                let value = value.replace(':', "");
                let is_digest = value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
                is_digest.then(|| Self(format!("sha256:{}", value.to_ascii_lowercase())))
            }
            _ => None,
        }
    }

    /// A host name; never a wildcard, which names nobody.
    pub fn dns(name: &str) -> Option<Self> {
        let name = canonical_name(name.as_bytes()).ok()?;
        Some(Self(format!("dns:{name}")))
    }

    /// A URI, such as `spiffe://example.com/billing`, byte for byte.
    pub fn uri(uri: &str) -> Option<Self> {
        let is_plain = uri.bytes().all(|byte| byte.is_ascii_graphic());
        let fits = (1..=MAX_CERTIFICATE_NAME_BYTES).contains(&uri.len());
        (is_plain && fits && uri.contains(':')).then(|| Self(format!("uri:{uri}")))
    }

    /// The certificate of this DER.
    pub fn fingerprint(der: &[u8]) -> Self {
        use fmt::Write as _;
        let mut text = "sha256:".to_owned();
        for byte in digest(&SHA256, der).as_ref() {
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// What the grant is found by.
    pub fn digest(&self) -> KeyDigest {
        let mut bytes = [0; 32];
        let whole = digest(&SHA256, &[CONTEXT, self.0.as_bytes()].concat());
        bytes.copy_from_slice(whole.as_ref());
        KeyDigest(bytes)
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A client's certificate, of which the handshake has proved the chain and the key.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    names: Vec<CertificateName>,
    not_before: UnixSeconds,
    not_after: UnixSeconds,
}

impl ClientCertificate {
    /// One of these names, of which there is at least the fingerprint. Nothing where there are more
    /// than are looked for.
    pub fn new(names: Vec<CertificateName>, not_before: UnixSeconds, not_after: UnixSeconds) -> Option<Self> {
        (1..=MAX_CERTIFICATE_NAMES)
            .contains(&names.len())
            .then_some(Self {
                names,
                not_before,
                not_after,
            })
    }

    pub(crate) fn names(&self) -> &[CertificateName] {
        &self.names
    }

    /// The first second at which it is refused: `notAfter` is its last (RFC 5280 section 4.1.2.5).
    pub(crate) fn ends_at(&self) -> UnixSeconds {
        UnixSeconds(self.not_after.0.saturating_add(1))
    }

    /// Whether its time is now. The handshake has asked that too, but a connection may be old.
    pub(crate) fn is_valid_at(&self, now: UnixSeconds) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_spelling() {
        for (text, expected) in [
            ("dns:Billing.Internal.", "dns:billing.internal"),
            (
                "uri:spiffe://example.com/billing",
                "uri:spiffe://example.com/billing",
            ),
        ] {
            assert_eq!(CertificateName::parse(text).unwrap().as_str(), expected);
        }
        let fingerprint = CertificateName::fingerprint(b"der");
        let spelled = fingerprint.as_str().to_uppercase().replace("SHA256", "sha256");
        assert_eq!(CertificateName::parse(&spelled), Some(fingerprint));
        for text in [
            "",
            "dns:",
            "dns:*.a",
            "dns:a b",
            "uri:",
            "uri:a",
            "uri:a:\u{e9}",
            "uri:a: b",
            "sha256:00",
            "cn:a",
            "billing",
            "DNS:a",
        ] {
            assert_eq!(CertificateName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn kinds_of_names_are_told_apart() {
        let digest = |text| CertificateName::parse(text).unwrap().digest();
        assert!(digest("dns:a") != digest("uri:dns:a"));
        assert!(digest("dns:a") == digest("dns:A"));
    }
}
