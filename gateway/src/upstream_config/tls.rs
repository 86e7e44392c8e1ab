//! `tls:` of an upstream. Its servers always have to prove their name: there is no way to leave that
//! out.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use durward_config::{Diagnostics, Node, Value};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::secret::{read_bounded, resolve};

/// The most certificates of a file. Each new connection reads them all.
const MAX_CERTIFICATES: usize = 64;

/// How an upstream's servers prove who they are, and how the gateway does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The name that the servers' certificates have to be for.
    pub server_name: String,
    /// The authorities that are believed (DER); the system's where there are none.
    pub authorities: Option<Vec<Vec<u8>>>,
    /// What is shown to servers that ask who the gateway is.
    pub client: Option<ClientCertificate>,
}

/// A certificate chain and its key, as DER.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, and what leads from it to an authority.
    pub chain: Vec<Vec<u8>>,
    /// Its key.
    pub key: Vec<u8>,
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}

impl UpstreamTls {
    pub(super) fn compile(node: &Node, base: &Path, diagnostics: &mut Diagnostics) -> Option<Self> {
        if !matches!(node.value, Value::Map(_)) {
            let advice =
                "write `tls: { server_name: api.internal }`, with `ca: FILE` for an authority of your own";
            diagnostics.error(node.place, "`tls` is a mapping", advice);
            return None;
        }
        let mut section = node.section("tls", diagnostics)?;
        let advice = "write `server_name:` with the name that the servers' certificates are for";
        let server_name = section
            .required("server_name", advice, diagnostics)
            .and_then(|node| compile_name(node, diagnostics));
        let ca = section.optional("ca");
        let certificate = section.optional("client_certificate");
        let key = section.optional("client_key");
        section.finish(diagnostics);
        let authorities = match ca {
            Some(node) => Some(certificates(node, "ca", base, diagnostics)?),
            None => None,
        };
        if let (Some(ders), Some(node)) = (&authorities, ca) {
            check_authorities(ders, node, diagnostics)?;
        }
        let client = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                Some(ClientCertificate::compile(certificate, key, base, diagnostics)?)
            }
            (Some(node), None) | (None, Some(node)) => {
                let message = "a client certificate has two files";
                let advice = "write `client_certificate: FILE` and `client_key: FILE`";
                diagnostics.error(node.place, message, advice);
                return None;
            }
        };
        Some(Self {
            server_name: server_name?,
            authorities,
            client,
        })
    }
}

impl ClientCertificate {
    fn compile(
        certificate: &Node,
        key_node: &Node,
        base: &Path,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let chain = certificates(certificate, "client_certificate", base, diagnostics)?;
        let path = key_node.text("client_key", diagnostics)?;
        let key = read_bounded(&resolve(base, Path::new(path))).and_then(|bytes| {
            PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| format!("{path} does not hold a private key"))
        });
        let key = match key {
            Ok(key) => key,
            Err(message) => {
                diagnostics.error(key_node.place, message, "write the path of a key in PEM");
                return None;
            }
        };
        let client = Self {
            chain,
            key: key.secret_der().to_vec(),
        };
        // What rustls makes of the two when a connection is opened, so that it is no news then.
        let ders = client.chain.iter().cloned().map(CertificateDer::from).collect();
        let made = client_config().and_then(|builder| {
            builder
                .with_root_certificates(RootCertStore::empty())
                .with_client_auth_cert(ders, key)
        });
        if let Err(error) = made {
            let message = format!("the client certificate cannot be used with its key: {error}");
            diagnostics.error(key_node.place, message, "write the key of that certificate");
            return None;
        }
        Some(client)
    }
}

fn client_config() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}

fn compile_name(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let name = node.text("server_name", diagnostics)?;
    // Pingora would ask for another name where there is an underscore.
    if ServerName::try_from(name).is_err() || name.contains('_') {
        let message = format!("`{name}` is no name that a certificate can be for");
        diagnostics.error(node.place, message, "write it as `api.internal`");
        return None;
    }
    Some(name.to_owned())
}

fn certificates(node: &Node, what: &str, base: &Path, diagnostics: &mut Diagnostics) -> Option<Vec<Vec<u8>>> {
    let path = node.text(what, diagnostics)?;
    let read = read_bounded(&resolve(base, Path::new(path))).and_then(|bytes| {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        match found {
            // Pingora reads them with this parser, and does not get over it where it cannot.
            Ok(found) if found.iter().any(|der| X509Certificate::from_der(der).is_err()) => {
                Err(format!("{path} holds a certificate that cannot be read"))
            }
            Ok(found) if found.is_empty() => Err(format!("{path} does not hold a certificate")),
            Ok(found) if found.len() > MAX_CERTIFICATES => {
                Err(format!("{path} holds more than {MAX_CERTIFICATES} certificates"))
            }
            Ok(found) => Ok(found),
            Err(_) => Err(format!("{path} is no PEM")),
        }
    });
    match read {
        Ok(found) => Some(found.iter().map(|der| der.to_vec()).collect()),
        Err(message) => {
            diagnostics.error(
                node.place,
                message,
                "write the path of a file of certificates in PEM",
            );
            None
        }
    }
}

fn check_authorities(ders: &[Vec<u8>], node: &Node, diagnostics: &mut Diagnostics) -> Option<()> {
    let mut store = RootCertStore::empty();
    for der in ders {
        if let Err(error) = store.add(CertificateDer::from(der.as_slice())) {
            let message = format!("a certificate of `ca` cannot be an authority: {error}");
            diagnostics.error(
                node.place,
                message,
                "write the path of the authority's certificate",
            );
            return None;
        }
    }
    Some(())
}
