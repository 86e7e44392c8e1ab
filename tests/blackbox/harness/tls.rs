//! TLS to the edge: certificates of OpenSSL, a real `curl`, and a tunnel for clients that are plain.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::folder::TestFolder;

/// What makes authorities and certificates; `$1` and so on are a line's words.
const OPENSSL: &str = r#"
set -e
export OPENSSL_CONF=/dev/null
KEY="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
authority() {
  openssl req -x509 $KEY -keyout "$1.key" -out "$1.pem" -days 2 -subj "/CN=$1" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
}
signed() {
  openssl req -new $KEY -keyout "$1.key" -out "$1.csr" -subj "/O=Example/CN=$1"
  printf 'subjectAltName=%s\nbasicConstraints=CA:FALSE\n' "$3" > "$1.ext"
  openssl x509 -req -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -CAcreateserial -out "$1.pem" -days "$4" -extfile "$1.ext"
  # A certificate still holds in the second of its end.
  [ "$4" != 0 ] || sleep 2
}
"#;

/// A folder of certificates: `NAME.pem` and `NAME.key`.
#[derive(Debug)]
pub struct Certificates(TestFolder);

impl Certificates {
    /// Makes what the lines ask for: `authority NAME`, or `signed NAME BY SUBJECT_ALT_NAME DAYS`.
    #[track_caller]
    pub fn make(lines: &str) -> Self {
        let made = Self(TestFolder::new());
        made.more(lines);
        made
    }

    /// Makes more of them.
    #[track_caller]
    pub fn more(&self, lines: &str) {
        let script = self.0.write("certificates.sh", format!("{OPENSSL}{lines}\n"));
        let made = Command::new("sh")
            .arg(script)
            .current_dir(&*self.0)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.0.text(name)
    }
}

/// What `curl` got: the head of the answer as it came, then its body.
#[derive(Debug)]
pub struct Curled {
    pub code: i32,
    pub text: String,
}

impl Curled {
    /// Asserts that the head has this line, in whatever case.
    #[track_caller]
    pub fn expect(self, line: &str) -> Self {
        let has = self.text.lines().any(|its| its.trim().eq_ignore_ascii_case(line));
        assert!(has, "{line} is not in {self:?}");
        self
    }
}

/// Runs `curl` with these words for a URL whose host is `name`, which is at `address`. An authority's
/// file comes with the words.
pub fn curl(address: SocketAddr, scheme: &str, name: &str, path: &str, words: &[&str]) -> Curled {
    let port = address.port();
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--include",
            "--max-time",
            "30",
            "--noproxy",
            "*",
        ])
        .args(["--resolve", &format!("{name}:{port}:{}", address.ip())])
        .args(words)
        .arg(format!("{scheme}://{name}:{port}{path}"))
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    Curled {
        code: output.status.code().unwrap_or(-1),
        text: String::from_utf8_lossy(&text).into_owned(),
    }
}

/// A client's end of TLS.
#[derive(Clone, Debug)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsClient {
    /// One that believes `ca` and asks for `name`; with a certificate and key of its own, or not.
    pub fn new(ca: &str, name: &str, own: Option<(&str, &str)>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
            .unwrap();
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
                let chain = chain.collect::<Result<_, _>>().unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        Self {
            config: Arc::new(config),
            name: ServerName::try_from(name.to_owned()).unwrap(),
        }
    }

    /// The same, that offers this protocol (RFC 7301).
    pub fn offering(mut self, protocol: &[u8]) -> Self {
        Arc::make_mut(&mut self.config).alpn_protocols = vec![protocol.to_vec()];
        self
    }

    /// The leaf that is shown at `address` now; nothing where no handshake comes about.
    pub fn leaf(&self, address: SocketAddr) -> Option<Vec<u8>> {
        let connected = runtime().block_on(self.connect(address)).ok()?;
        let certificates = connected.get_ref().1.peer_certificates()?;
        Some(certificates.first()?.to_vec())
    }

    /// An address at which every plain connection becomes one of TLS to `address`.
    pub fn tunnel(&self, address: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let client = self.clone();
        thread::spawn(move || {
            for plain in listener.incoming() {
                let (plain, client) = (plain.unwrap(), client.clone());
                thread::spawn(move || runtime().block_on(client.carry(plain, address)));
            }
        });
        at
    }

    async fn carry(&self, plain: std::net::TcpStream, address: SocketAddr) {
        plain.set_nonblocking(true).unwrap();
        let mut plain = TcpStream::from_std(plain).unwrap();
        if let Ok(mut encrypted) = self.connect(address).await {
            let _ = tokio::io::copy_bidirectional(&mut plain, &mut encrypted).await;
        }
    }

    async fn connect(
        &self,
        address: SocketAddr,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        connector.connect(self.name.clone(), stream).await
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}
