//! TLS to Redis: whom to trust and what to show, read once when the configuration is compiled.

use std::path::Path;
use std::sync::Arc;

use durward_config::read_bounded;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// The PEM files that `tls:` names.
#[derive(Debug, Default)]
pub(crate) struct TlsFiles<'a> {
    /// Who may vouch for the server; the machine's own roots where it is not said.
    pub ca: Option<&'a Path>,
    /// What this side shows: its chain and its key.
    pub client: Option<(&'a Path, &'a Path)>,
}

/// Reads the files into what a connection needs. Names are always verified: there is no switch.
pub(crate) fn client_config(files: &TlsFiles<'_>, base: &Path) -> Result<Arc<ClientConfig>, String> {
    // Named, because another crate of the process may have brought a second one.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(files.ca, base)?);
    let config = match files.client {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates(&base.join(cert))?;
            let key_path = base.join(key);
            let key = PrivateKeyDer::from_pem_slice(&read_bounded(&key_path)?)
                .map_err(|_| format!("{} holds no private key in PEM", key_path.display()))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("the client certificate cannot be used: {error}"))?
        }
    };
    Ok(Arc::new(config))
}

fn roots(ca: Option<&Path>, base: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let path = base.join(path);
            for certificate in certificates(&path)? {
                roots
                    .add(certificate)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs()
                .map_err(|error| format!("cannot read this machine's certificates: {error}"))?;
            // Some roots of some machines cannot be parsed; the others still vouch.
            roots.add_parsable_certificates(found);
            if roots.is_empty() {
                return Err("this machine trusts no certificate authority".into());
            }
        }
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read_bounded(path)?;
    let found = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(format!("{} holds no certificate in PEM", path.display())),
    }
}
