//! TLS of the edge's listeners: certificates by server name, read again when their files change, and
//! the handshake.
//!
//! Pingora would build its own configuration of rustls, panic where a file is bad, log each failed
//! handshake, and give each a minute. The handshake is therefore made here, above its plain stream.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use durward_policy::ClientCertificate;
use http::HeaderValue;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::listeners::TlsAccept;
use pingora::listeners::tls::{Acceptor, TlsSettings};
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::tls::TlsRef;
use pingora::protocols::{ALPN, Stream};
use pingora::proxy::Session;
use pingora::server::ShutdownWatch;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::cancellable::Cancellable;
use crate::checked_stream::http1;
use crate::http2;
use crate::listener_config::ListenerConfig;
use crate::proxy::Shared;

mod certificate;
mod certificate_table;
mod client_authorities;
mod config;
mod counts;
mod keeper;

pub use certificate::CertificateFiles;
pub use config::{ClientCertificates, ListenerTls};

pub(crate) use config::compile_tls;
pub(crate) use counts::families;
pub(crate) use keeper::CertificateKeeper;

use certificate::{Certificate, client_certificate};
use certificate_table::{CertificateTable, Certificates};
use client_authorities::ClientAuthorities;
use counts::Counts;

const H2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// A listener that speaks TLS.
pub(crate) struct TlsListener {
    address: SocketAddr,
    config: ListenerTls,
    http2: bool,
    /// How long a handshake may take.
    handshake_timeout: Duration,
    certificates: Arc<Certificates>,
    /// Of the authorities' file as it was read at the start.
    clients_digest: Option<[u8; 32]>,
    acceptor: ArcSwap<Acceptor>,
    counts: Counts,
}

/// What every request of a connection knows of it.
#[derive(Clone)]
pub(crate) struct TlsConnection {
    hsts: Option<HeaderValue>,
    client: Option<Arc<ClientCertificate>>,
}

impl TlsListener {
    /// Reads the files that the configuration names; nothing for a listener that is plain. They were
    /// good when it was compiled.
    pub(crate) fn new(
        listener: &ListenerConfig,
        handshake_timeout: Duration,
    ) -> Result<Option<Arc<Self>>, String> {
        let Some(config) = &listener.tls else {
            return Ok(None);
        };
        let certificates = config
            .certificates
            .iter()
            .map(|files| Certificate::read(files).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let certificates = Arc::new(Certificates::new(CertificateTable::new(certificates)));
        let clients = config.clients.as_ref().map(ClientAuthorities::read).transpose()?;
        let clients_digest = clients.as_ref().map(|clients| clients.digest);
        let acceptor = acceptor(config, listener.http2, &certificates, clients)?;
        Ok(Some(Arc::new(Self {
            address: listener.address,
            counts: Counts::new(config.certificates.len()),
            config: config.clone(),
            http2: listener.http2,
            handshake_timeout,
            certificates,
            clients_digest,
            acceptor: ArcSwap::from_pointee(acceptor),
        })))
    }

    /// Whether a certificate is for this host, which is in lower case and without a port.
    pub(crate) fn has_certificate_for(&self, host: &str) -> bool {
        self.certificates.table().has(host)
    }

    /// From here on clients are asked for certificates of these authorities. Nothing of what was
    /// verified before is believed again: no session is resumed where clients show certificates.
    fn believe(&self, clients: ClientAuthorities) -> Result<(), String> {
        let acceptor = acceptor(&self.config, self.http2, &self.certificates, Some(clients))?;
        self.acceptor.store(Arc::new(acceptor));
        Ok(())
    }

    /// Shakes hands; nothing where that failed, of which the client has been told.
    async fn accept(&self, stream: Stream) -> Option<Stream> {
        let stream = stream.into_any().downcast::<L4Stream>().ok()?;
        let acceptor = self.acceptor.load_full();
        match timeout(self.handshake_timeout, acceptor.tls_handshake(*stream)).await {
            Ok(Ok(stream)) => {
                self.counts.completed();
                Some(Box::new(stream))
            }
            Ok(Err(error)) => {
                self.counts.failed();
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
            Err(_) => {
                self.counts.timed_out();
                None
            }
        }
    }
}

impl TlsConnection {
    /// The connection of a request; nothing where it is plain.
    pub(crate) fn of(session: &Session) -> Option<&Self> {
        session.digest()?.ssl_digest.as_ref()?.extension.get::<Self>()
    }

    /// The certificate that the client proved to have.
    pub(crate) fn client(&self) -> Option<&Arc<ClientCertificate>> {
        self.client.as_ref()
    }

    /// `Strict-Transport-Security` (RFC 6797 section 7.1), for each response.
    pub(crate) fn hsts(&self) -> Option<&HeaderValue> {
        self.hsts.as_ref()
    }
}

fn acceptor(
    config: &ListenerTls,
    http2: bool,
    certificates: &Arc<Certificates>,
    clients: Option<ClientAuthorities>,
) -> Result<Acceptor, String> {
    let server = server_config(config, http2, certificates, clients)
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let connection = Arc::new(TlsConnection {
        hsts: config.hsts.clone(),
        client: None,
    });
    let mut settings =
        TlsSettings::with_callbacks(Box::new(Connected(connection))).map_err(|error| error.to_string())?;
    settings.set_cert_resolver(Arc::<Certificates>::clone(certificates));
    let mut acceptor = settings.build();
    acceptor.acceptor = TlsAcceptor::from(Arc::new(server));
    Ok(acceptor)
}

fn server_config(
    config: &ListenerTls,
    http2: bool,
    certificates: &Arc<Certificates>,
    clients: Option<ClientAuthorities>,
) -> Result<ServerConfig, rustls::Error> {
    let versions = if config.tls13_only {
        &[&TLS13][..]
    } else {
        &[&TLS13, &TLS12]
    };
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let asks = clients.is_some();
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients.verifier),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_cert_resolver(Arc::<Certificates>::clone(certificates));
    server.alpn_protocols = if http2 { &[H2, HTTP_1_1][..] } else { &[HTTP_1_1] }
        .iter()
        .map(|protocol| protocol.to_vec())
        .collect();
    if asks {
        // A resumed session's certificate is not verified again.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
    } else {
        server.ticketer = ring::Ticketer::new()?;
    }
    Ok(server)
}

/// Puts what is known of the connection where its requests find it.
struct Connected(Arc<TlsConnection>);

#[async_trait]
impl TlsAccept for Connected {
    async fn handshake_complete_callback(&self, tls: &TlsRef) -> Option<Arc<dyn Any + Send + Sync>> {
        let Some(der) = tls.peer_certificate_der() else {
            return Some(Arc::<TlsConnection>::clone(&self.0));
        };
        Some(Arc::new(TlsConnection {
            client: client_certificate(der).map(Arc::new),
            ..TlsConnection::clone(&self.0)
        }))
    }
}

/// An application behind a listener: what comes of the handshake, where there is one, is the
/// application's.
pub(crate) struct Listener<P> {
    pub(crate) app: Arc<Cancellable<P>>,
    pub(crate) tls: Option<Arc<TlsListener>>,
    /// Whether it takes HTTP/2.
    pub(crate) http2: bool,
    pub(crate) header_timeout: Duration,
    pub(crate) shared: Arc<Shared>,
}

#[async_trait]
impl<P: HttpServerApp + Send + Sync + 'static> ServerApp for Listener<P> {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let (stream, http2) = match &self.tls {
            Some(tls) => {
                let stream = Box::pin(tls.accept(stream)).await?;
                let http2 = stream.selected_alpn_proto() == Some(ALPN::H2);
                (stream, http2)
            }
            None if self.http2 => {
                let mut stream = stream;
                let told = http2::is_spoken(&mut stream, self.header_timeout, &self.shared);
                let http2 = Box::pin(told).await?;
                (stream, http2)
            }
            None => (stream, false),
        };
        let stream = if http2 {
            http2::watched(stream, self.header_timeout, &self.shared)
        } else {
            http1(stream)
        };
        self.app.process_new(stream, shutdown).await
    }

    async fn cleanup(&self) {
        self.app.cleanup().await;
    }
}
