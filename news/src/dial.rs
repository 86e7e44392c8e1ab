//! One connection to one server, with a bound on every wait.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, Value};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::connection::Timeouts;
use crate::entry_scan::EntryScan;
use crate::reply_limit::ReplyLimit;
use crate::store_config::Login;
use crate::store_error::{StoreError, StoreFault, answer};
use crate::store_url::Endpoint;

/// After how much silence the kernel asks whether the other side is still there, and how often.
const KEEPALIVE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_PROBES: u32 = 3;
/// How long sent bytes may stay unacknowledged: a black hole is noticed even without a question.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to one server. Clones share it; it closes with the last of them.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) connection: MultiplexedConnection,
    _driver: Arc<Driver>,
}

/// Whom one can ask.
pub(crate) trait Ask: Send {
    /// Asks, and gives an error reply as what it is.
    fn tell(&mut self, command: &Cmd) -> impl Future<Output = Result<Value, StoreError>> + Send;

    /// Asks, and takes every error reply for an error.
    fn ask(&mut self, command: &Cmd) -> impl Future<Output = Result<Value, StoreError>> + Send {
        async { answer(Ok(self.tell(command).await?)) }
    }
}

impl Ask for Node {
    async fn tell(&mut self, command: &Cmd) -> Result<Value, StoreError> {
        Ok(self.connection.send_packed_command(command).await?)
    }
}

impl Node {
    /// Asks, and takes every error reply for an error.
    pub(crate) async fn ask(&mut self, command: &Cmd) -> Result<Value, StoreError> {
        answer(self.connection.send_packed_command(command).await)
    }
}

/// The task that moves the bytes. It would wait for replies that never come: it ends with us.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connects and logs in, within `timeouts.connect` in all.
pub(crate) async fn dial(
    endpoint: &Endpoint,
    tls: Option<&Arc<ClientConfig>>,
    login: &Login,
    database: i64,
    timeouts: Timeouts,
) -> Result<Node, StoreError> {
    within(endpoint, timeouts, async {
        let stream = open_stream(endpoint, tls).await?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeouts.connect))
            .set_response_timeout(Some(timeouts.response));
        let info = connection_info(login, database);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&info, ReplyLimit::new(stream), config).await?;
        Ok(Node {
            connection,
            _driver: Arc::new(Driver(tokio::spawn(driver))),
        })
    })
    .await
}

/// The same for reading all that an epoch holds.
pub(crate) async fn dial_scan(
    endpoint: &Endpoint,
    tls: Option<&Arc<ClientConfig>>,
    login: &Login,
    database: i64,
    timeouts: Timeouts,
) -> Result<EntryScan, StoreError> {
    within(endpoint, timeouts, async {
        let stream = open_stream(endpoint, tls).await?;
        let mut scan = EntryScan::new(stream, timeouts.response);
        scan.log_in(login, database).await?;
        Ok(scan)
    })
    .await
}

async fn within<T>(
    endpoint: &Endpoint,
    timeouts: Timeouts,
    dialed: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(timeouts.connect, dialed)
        .await
        .unwrap_or_else(|_| Err(StoreError::timeout("connecting")))
        .map_err(|error| StoreError::new(error.fault, format_args!("{endpoint}: {}", error.detail)))
}

async fn open_stream(
    endpoint: &Endpoint,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Box<dyn ByteStream>, StoreError> {
    let stream = open(endpoint).await?;
    let Some(config) = tls else {
        return Ok(Box::new(stream));
    };
    let name = ServerName::try_from(endpoint.host.clone())
        .map_err(|error| StoreError::new(StoreFault::Unreachable, error))?;
    let stream = TlsConnector::from(Arc::clone(config))
        .connect(name, stream)
        .await?;
    Ok(Box::new(stream))
}

pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

async fn open(endpoint: &Endpoint) -> Result<TcpStream, StoreError> {
    let mut last = StoreError::new(StoreFault::Unreachable, "the name has no address");
    for address in tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                let socket = SockRef::from(&stream);
                let keepalive = TcpKeepalive::new()
                    .with_time(KEEPALIVE)
                    .with_interval(KEEPALIVE_INTERVAL)
                    .with_retries(KEEPALIVE_PROBES);
                socket.set_tcp_keepalive(&keepalive)?;
                #[cfg(target_os = "linux")]
                socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
                return Ok(stream);
            }
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

fn connection_info(login: &Login, database: i64) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default()
        .set_db(database)
        .set_lib_name("durward", env!("CARGO_PKG_VERSION"));
    if let Some(username) = &login.username {
        info = info.set_username(username);
    }
    if let Some(password) = &login.password {
        info = info.set_password(password.expose());
    }
    info
}
