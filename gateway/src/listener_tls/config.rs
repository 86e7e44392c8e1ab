//! `tls:` of a listener.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use durward_config::{Diagnostics, Node, Section, Value};
use http::HeaderValue;

use super::certificate::{Certificate, CertificateFiles};
use super::certificate_table::CertificateTable;
use super::client_authorities::ClientAuthorities;
use crate::clock;
use crate::secret::resolve;

/// Most certificates of a listener.
const MAX_CERTIFICATES: usize = 64;
/// Longest `hsts.max_age`.
const MAX_HSTS: Duration = Duration::from_secs(3650 * 86_400);
/// What the list of hosts that browsers know beforehand asks for at least (hstspreload.org).
const PRELOAD_HSTS: Duration = Duration::from_secs(365 * 86_400);
/// Before this time ends, a certificate's end is a warning.
const EXPIRES_SOON: i64 = 7 * 86_400;

/// How a listener speaks TLS. The files themselves are read again at the start, and whenever they
/// change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// The certificates; the first is shown to clients that name no host, or another one.
    pub certificates: Vec<CertificateFiles>,
    /// Whether TLS 1.2 is refused.
    pub tls13_only: bool,
    /// `Strict-Transport-Security` of every response.
    pub hsts: Option<HeaderValue>,
    /// Whose certificates clients may show, or must.
    pub clients: Option<ClientCertificates>,
}

/// `client_certificates:` of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The file of the authorities that are believed.
    pub ca: PathBuf,
    /// Whether a connection without a certificate is refused.
    pub required: bool,
}

pub(crate) fn compile_tls(node: &Node, base: &Path, diagnostics: &mut Diagnostics) -> Option<ListenerTls> {
    let mut section = node.section("tls", diagnostics)?;
    let advice = "write `certificates: [{ certificate: FILE, key: FILE }]`";
    let certificates = section.required("certificates", advice, diagnostics);
    let min_version = section.optional("min_version");
    let hsts = section.optional("hsts");
    let clients = section.optional("client_certificates");
    section.finish(diagnostics);
    let certificates = certificates.map(|node| compile_certificates(node, base, diagnostics));
    let tls13_only = match min_version {
        Some(node) => node.one_of("min_version", &["1.2", "1.3"], diagnostics)? == "1.3",
        None => false,
    };
    let hsts = match hsts {
        Some(node) => Some(compile_hsts(node, diagnostics)?),
        None => None,
    };
    let clients = match clients {
        Some(node) => Some(compile_clients(node, base, diagnostics)?),
        None => None,
    };
    Some(ListenerTls {
        certificates: certificates?,
        tls13_only,
        hsts,
        clients,
    })
}

fn compile_certificates(node: &Node, base: &Path, diagnostics: &mut Diagnostics) -> Vec<CertificateFiles> {
    let items = node.one_or_many();
    if items.is_empty() || items.len() > MAX_CERTIFICATES {
        let message = format!("`certificates` has {} entries", items.len());
        let advice = format!("write from 1 to {MAX_CERTIFICATES}, each `{{ certificate: FILE, key: FILE }}`");
        diagnostics.error(node.place, message, advice);
    }
    let mut loaded = Vec::new();
    let mut compiled = Vec::new();
    for item in items {
        let Some(files) = compile_files(item, base, diagnostics) else {
            continue;
        };
        match Certificate::read(&files) {
            Ok(certificate) => {
                check_times(item, &files, &certificate, diagnostics);
                loaded.push(Arc::new(certificate));
            }
            Err(message) => {
                let advice = "write the files of a certificate, in PEM with what leads to its authority, and of its key";
                diagnostics.error(item.place, message, advice);
            }
        }
        compiled.push(files);
    }
    for name in CertificateTable::new(loaded).never_shown() {
        let message = format!("two certificates with keys of one kind are for `{name}`");
        let advice = "the first of them is shown; remove the other";
        diagnostics.warning(node.place, message, advice);
    }
    compiled
}

fn compile_files(item: &Node, base: &Path, diagnostics: &mut Diagnostics) -> Option<CertificateFiles> {
    let mut section = item.section("certificates", diagnostics)?;
    let certificate = file(&mut section, "certificate", base, diagnostics);
    let key = file(&mut section, "key", base, diagnostics);
    section.finish(diagnostics);
    Some(CertificateFiles {
        certificate: certificate?,
        key: key?,
    })
}

fn file(
    section: &mut Section<'_>,
    key: &'static str,
    base: &Path,
    diagnostics: &mut Diagnostics,
) -> Option<PathBuf> {
    let node = section.required(key, &format!("write `{key}: FILE`"), diagnostics)?;
    let path = node.text(key, diagnostics)?;
    Some(resolve(base, Path::new(path)))
}

/// A certificate whose time is not now is a warning: clients refuse it, and the others are still
/// served.
fn check_times(
    item: &Node,
    files: &CertificateFiles,
    certificate: &Certificate,
    diagnostics: &mut Diagnostics,
) {
    let now = clock::unix_seconds(clock::wall()).0;
    let message = if certificate.not_after.0 < now {
        "has expired"
    } else if certificate.not_before.0 > now {
        "is not valid yet"
    } else if certificate.not_after.0 < now + EXPIRES_SOON {
        "expires within a week"
    } else {
        return;
    };
    let message = format!("the certificate {} {message}", files.certificate.display());
    diagnostics.warning(
        item.place,
        message,
        "put a newer one there; it is read without a restart",
    );
}

fn compile_hsts(node: &Node, diagnostics: &mut Diagnostics) -> Option<HeaderValue> {
    let range = Duration::ZERO..=MAX_HSTS;
    let (max_age, subdomains, preload) = if let Value::Map(_) = node.value {
        let mut section = node.section("hsts", diagnostics)?;
        let max_age = section.required("max_age", "write `max_age: 365d`", diagnostics);
        let subdomains = section.optional("include_subdomains");
        let preload = section.optional("preload");
        section.finish(diagnostics);
        let mut flag = |node: Option<&Node>, what| match node {
            Some(node) => node.boolean(what, diagnostics),
            None => Some(false),
        };
        let subdomains = flag(subdomains, "hsts.include_subdomains")?;
        let preload = flag(preload, "hsts.preload")?;
        let max_age = max_age?.duration("hsts.max_age", range, diagnostics)?;
        (max_age, subdomains, preload)
    } else {
        (node.duration("hsts", range, diagnostics)?, false, false)
    };
    if preload && (!subdomains || max_age < PRELOAD_HSTS) {
        let message = "hsts.preload asks for more than is there";
        let advice = "write `include_subdomains: true` and a `max_age` of at least 365d with it";
        diagnostics.error(node.place, message, advice);
        return None;
    }
    let mut value = format!("max-age={}", max_age.as_secs());
    for (wanted, directive) in [(subdomains, "; includeSubDomains"), (preload, "; preload")] {
        if wanted {
            value.push_str(directive);
        }
    }
    HeaderValue::try_from(value).ok()
}

fn compile_clients(node: &Node, base: &Path, diagnostics: &mut Diagnostics) -> Option<ClientCertificates> {
    let mut section = node.section("client_certificates", diagnostics)?;
    let place = section.place();
    let ca = file(&mut section, "ca", base, diagnostics);
    let required = section.optional("required");
    section.finish(diagnostics);
    let required = match required {
        Some(node) => node.boolean("client_certificates.required", diagnostics)?,
        None => false,
    };
    let clients = ClientCertificates { ca: ca?, required };
    if let Err(message) = ClientAuthorities::read(&clients) {
        let advice = "write the file of the authorities whose certificates clients show, in PEM";
        diagnostics.error(place, message, advice);
        return None;
    }
    Some(clients)
}

#[cfg(test)]
mod tests {
    use durward_config::Document;

    use super::*;

    fn hsts(text: &str) -> Result<String, String> {
        let document = Document::parse("c.yaml", text).unwrap();
        let mut diagnostics = Diagnostics::default();
        let value = compile_hsts(document.root(), &mut diagnostics);
        match value.filter(|_| !diagnostics.has_errors()) {
            Some(value) => Ok(value.to_str().unwrap().to_owned()),
            None => Err(diagnostics.located_in(&document).to_string()),
        }
    }

    #[test]
    fn strict_transport_security_is_put_together() {
        for (yaml, expected) in [
            ("365d", "max-age=31536000"),
            ("0s", "max-age=0"),
            (
                "{ max_age: 1h, include_subdomains: true }",
                "max-age=3600; includeSubDomains",
            ),
            (
                "{ max_age: 365d, include_subdomains: true, preload: true }",
                "max-age=31536000; includeSubDomains; preload",
            ),
        ] {
            assert_eq!(hsts(yaml).as_deref(), Ok(expected), "{yaml}");
        }
        for (yaml, expected) in [
            ("{}", "`max_age` is missing"),
            ("{ max_age: 365d, preload: true }", "asks for more"),
            (
                "{ max_age: 30d, include_subdomains: true, preload: true }",
                "asks for more",
            ),
            ("{ max_age: 4000d }", "out of range"),
            ("{ max_age: 1d, subdomains: true }", "unknown key `subdomains`"),
        ] {
            let error = hsts(yaml).unwrap_err();
            assert!(error.contains(expected), "{yaml}: {error}");
        }
    }
}
