//! A running server, and a client that asks it one thing per connection.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use axum::body::Body;
use durward_upstreams::{ImageFolder, serve_api, serve_images};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};

/// A server on a port of its own.
pub struct Server {
    address: SocketAddr,
    stop: Arc<Notify>,
    served: JoinHandle<io::Result<()>>,
}

impl Server {
    /// An API server.
    pub async fn api() -> Self {
        Self::start(|listener, shutdown| tokio::spawn(serve_api(listener, shutdown))).await
    }

    /// An image server for `folder`.
    pub async fn images(folder: &Path) -> Self {
        let folder = ImageFolder::open(folder).unwrap();
        Self::start(|listener, shutdown| tokio::spawn(serve_images(listener, folder, shutdown))).await
    }

    async fn start<S>(serve: S) -> Self
    where
        S: FnOnce(TcpListener, BoxFuture) -> JoinHandle<io::Result<()>>,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(Notify::new());
        let shutdown = Box::pin(Arc::clone(&stop).notified_owned());
        Self {
            address,
            stop,
            served: serve(listener, shutdown),
        }
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection to the server.
    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A request to be told more of.
    pub fn ask(&self, method: Method, path: &str) -> Ask<'_> {
        let request = Request::builder().method(method).uri(path).header("host", "demo");
        Ask {
            server: self,
            request,
        }
    }

    /// A `GET`.
    pub fn get(&self, path: &str) -> Ask<'_> {
        self.ask(Method::GET, path)
    }

    /// A `PUT`, sent, of `body`.
    pub async fn put(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.ask(Method::PUT, path).send(body).await
    }

    /// Asks the server to stop, without waiting.
    pub fn begin_to_stop(&self) {
        self.stop.notify_one();
    }

    /// Waits until the server has stopped.
    pub async fn has_stopped(self) {
        self.served.await.unwrap().unwrap();
    }
}

type BoxFuture = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// A request in the making.
pub struct Ask<'a> {
    server: &'a Server,
    request: http::request::Builder,
}

impl Ask<'_> {
    /// Adds a header.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// Adds the header of the gateway for this user.
    pub fn for_user(self, user: &str) -> Self {
        self.with("x-user-id", user)
    }

    /// Sends it without a body.
    pub async fn answer(self) -> Answer {
        self.send(Body::empty()).await
    }

    /// Sends it with a JSON body.
    pub async fn send_json(self, body: impl Into<Body>) -> Answer {
        self.with("content-type", "application/json").send(body).await
    }

    /// Sends it with this body, and reads the whole answer.
    pub async fn send(self, body: impl Into<Body>) -> Answer {
        let (head, body) = self.begin(body).await.into_parts();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes().into(),
        }
    }

    /// Sends it, and reads the head of the answer only.
    pub async fn begin(self, body: impl Into<Body>) -> Response<Incoming> {
        let io = TokioIo::new(self.server.connect().await);
        let (mut sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        sender
            .send_request(self.request.body(body.into()).unwrap())
            .await
            .unwrap()
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    /// The header's value, empty without the header.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts that this is a problem of this status and code.
    #[track_caller]
    pub fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(
            (self.status, &problem["code"]),
            (status, &code.into()),
            "{problem}"
        );
        assert_eq!(problem["status"], status);
    }
}

/// A folder of a test's own, removed after it.
pub struct TestFolder(PathBuf);

impl TestFolder {
    /// An empty folder.
    pub fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let name = format!("images-{}-{}", process::id(), LAST.fetch_add(1, Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // Left by an earlier process of the same number.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// The names in a folder inside; none where there is no such folder.
    pub fn names(&self, inside: &str) -> Vec<String> {
        let entries = fs::read_dir(self.join(inside)).into_iter().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    }
}

impl std::ops::Deref for TestFolder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
