//! A service in a folder of its own, and a client for it.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use durward_auth::{AuthConfig, AuthService, Clock, Environment, NewUser, PasswordCost, Secret, StartError};
use durward_config::{Diagnostics, Document};
use durward_contract::{Follower, Grant, Loading, News, RevocationEntry, Sequence, Snapshot, UnixSeconds};
use durward_testing::postgres::{self, Database};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, SqliteConnection};
use tokio::net::TcpListener;

pub const ISSUER: &str = "http://issuer.test";
pub const PASSWORD: &str = "kumquat-harvest";
/// Whether this is the binary of the tests on PostgreSQL.
pub const ON_POSTGRES: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"service_on_postgres");
const CHEAP: PasswordCost = PasswordCost {
    memory_kib: 64,
    iterations: 1,
};

/// A folder that goes when it is dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!(
            "durward-auth-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Where the rows are: the binary `service` runs every test on SQLite, `service_on_postgres` the
/// same tests on PostgreSQL.
#[derive(Debug)]
pub enum Store {
    Sqlite,
    Postgres(Database),
}

impl Store {
    fn new() -> Self {
        if ON_POSTGRES {
            Self::Postgres(postgres::server().database())
        } else {
            Self::Sqlite
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Sqlite => "sqlite:auth.db".to_owned(),
            Self::Postgres(database) => database.url(),
        }
    }
}

/// A connection of an operator's own.
pub enum Outside {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Outside {
    pub async fn run(&mut self, sql: impl sqlx::SqlSafeStr) {
        match self {
            Self::Sqlite(connection) => sqlx::raw_sql(sql).execute(connection).await.map(drop),
            Self::Postgres(connection) => sqlx::raw_sql(sql).execute(connection).await.map(drop),
        }
        .unwrap();
    }

    /// The first column of every row.
    pub async fn query(&mut self, sql: &'static str) -> Vec<String> {
        match self {
            Self::Sqlite(connection) => sqlx::query_scalar(sql).fetch_all(connection).await,
            Self::Postgres(connection) => sqlx::query_scalar(sql).fetch_all(connection).await,
        }
        .unwrap()
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock {
    wall: AtomicI64,
    monotonic: AtomicI64,
}

impl ManualClock {
    fn new() -> Self {
        Self {
            wall: AtomicI64::new(1_800_000_000),
            monotonic: AtomicI64::new(1_000_000),
        }
    }

    /// Seconds since 1970.
    pub fn now(&self) -> i64 {
        self.wall.load(Ordering::SeqCst)
    }

    /// Time passes.
    pub fn advance(&self, seconds: i64) {
        self.wall.fetch_add(seconds, Ordering::SeqCst);
        self.monotonic.fetch_add(seconds, Ordering::SeqCst);
    }

    /// The wall clock is set.
    pub fn jump(&self, seconds: i64) {
        self.wall.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixSeconds {
        UnixSeconds(self.wall.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.monotonic.load(Ordering::SeqCst).unsigned_abs())
    }
}

/// A follower that writes down what it is told.
#[derive(Debug, Default)]
pub struct Recorder {
    pub loaded: Mutex<Vec<Snapshot>>,
    pub applied: Mutex<Vec<RevocationEntry>>,
    pub granted: Mutex<Vec<Grant>>,
    pub attested: Mutex<Vec<Sequence>>,
    /// Fails the next `apply`, as a process does that dies there.
    pub die: AtomicBool,
}

impl Recorder {
    pub fn entries(&self) -> Vec<RevocationEntry> {
        self.applied.lock().unwrap().clone()
    }

    pub fn grants(&self) -> Vec<Grant> {
        self.granted.lock().unwrap().clone()
    }
}

/// A snapshot on its way into a [`Recorder`].
struct RecorderLoading<'r>(&'r Recorder, Vec<News>);

impl Loading for RecorderLoading<'_> {
    fn add(&mut self, news: &[News]) {
        self.1.extend_from_slice(news);
    }

    fn finish(self: Box<Self>, head: Sequence) {
        let Self(recorder, news) = *self;
        recorder.loaded.lock().unwrap().push(Snapshot { head, news });
    }
}

impl Follower for Recorder {
    fn begin_load(&self) -> Box<dyn Loading + '_> {
        Box::new(RecorderLoading(self, Vec::new()))
    }

    fn apply(&self, news: &[News], head: Sequence) {
        assert!(
            !self.die.swap(false, Ordering::SeqCst),
            "died between commit and apply"
        );
        assert_eq!(news.last().map(News::sequence), Some(head));
        self.applied.lock().unwrap().extend(revocations(news));
        self.granted.lock().unwrap().extend(grants(news));
    }

    fn attest(&self, head: Sequence, _age: Duration) {
        self.attested.lock().unwrap().push(head);
    }
}

/// The revocations among the news.
pub fn revocations(news: &[News]) -> impl Iterator<Item = RevocationEntry> {
    news.iter().filter_map(|news| match news {
        News::Revocation(entry) => Some(entry.clone()),
        News::Grant(_) => None,
    })
}

/// The grants among the news.
pub fn grants(news: &[News]) -> impl Iterator<Item = Grant> {
    news.iter().filter_map(|news| match news {
        News::Revocation(_) => None,
        News::Grant(grant) => Some(grant.clone()),
    })
}

/// What a house is built with.
pub struct Plan {
    pub folder: Arc<Folder>,
    pub store: Arc<Store>,
    /// Where the service is told to keep its rows: the store's URL.
    pub database: String,
    pub clock: Arc<ManualClock>,
    pub extra: String,
    pub cost: PasswordCost,
    pub parallelism: usize,
}

impl Default for Plan {
    fn default() -> Self {
        let store = Store::new();
        Self {
            folder: Arc::new(Folder::new()),
            database: store.url(),
            store: Arc::new(store),
            clock: Arc::new(ManualClock::new()),
            extra: String::new(),
            cost: CHEAP,
            parallelism: 4,
        }
    }
}

impl Plan {
    pub fn with(extra: &str) -> Self {
        Self {
            extra: extra.to_owned(),
            ..Self::default()
        }
    }

    /// The configuration, compiled.
    pub fn config(&self) -> AuthConfig {
        let text = format!(
            "listen: 127.0.0.1:0\nissuer: {ISSUER}\naudience: example\ndatabase: \"{}\"\nkeys: keys\n{}",
            self.database, self.extra
        );
        let document = Document::parse("test", &text).unwrap();
        let mut diagnostics = Diagnostics::default();
        let config = AuthConfig::compile(document.root(), self.folder.path(), &mut diagnostics);
        let mut config = config.unwrap_or_else(|| panic!("{}", diagnostics.located_in(&document)));
        config.password_hash_parallelism = NonZeroUsize::new(self.parallelism).unwrap();
        config
    }

    pub async fn start(&self) -> Result<(AuthService, Arc<Recorder>, prometheus::Registry), StartError> {
        let config = self.config();
        let (recorder, registry) = (Arc::new(Recorder::default()), prometheus::Registry::new());
        let environment = Environment {
            clock: self.clock.clone(),
            password_cost: self.cost,
        };
        let followers: Vec<Arc<dyn Follower>> = vec![recorder.clone()];
        let service = AuthService::start_in(environment, config, followers, &registry).await?;
        Ok((service, recorder, registry))
    }

    /// The same folder, database and clock once more.
    pub fn again(&self) -> Self {
        Self {
            folder: Arc::clone(&self.folder),
            store: Arc::clone(&self.store),
            database: self.database.clone(),
            clock: Arc::clone(&self.clock),
            extra: self.extra.clone(),
            cost: self.cost,
            parallelism: self.parallelism,
        }
    }

    pub async fn build(self) -> House {
        let (service, recorder, registry) = self.start().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let serving = service.clone();
        let server = tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
        House {
            service,
            recorder,
            registry,
            clock: Arc::clone(&self.clock),
            folder: Arc::clone(&self.folder),
            base,
            client: Client::builder(TokioExecutor::new()).build_http(),
            server,
            plan: self,
        }
    }
}

/// A running service.
pub struct House {
    pub service: AuthService,
    pub recorder: Arc<Recorder>,
    pub registry: prometheus::Registry,
    pub clock: Arc<ManualClock>,
    pub folder: Arc<Folder>,
    pub base: String,
    client: Client<HttpConnector, Full<Bytes>>,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
    pub plan: Plan,
}

impl Drop for House {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The tokens of one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    pub access: String,
    pub refresh: String,
}

impl House {
    pub async fn new() -> Self {
        Plan::default().build().await
    }

    /// The same folder and the same clock in a new process, so to speak.
    pub async fn restart(self) -> Self {
        let plan = self.plan.again();
        self.service.close().await;
        drop(self);
        plan.build().await
    }

    pub fn call(&self, method: Method, path: &str) -> Call<'_> {
        Call {
            house: self,
            method,
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    pub fn get(&self, path: &str) -> Call<'_> {
        self.call(Method::GET, path)
    }

    pub fn post(&self, path: &str) -> Call<'_> {
        self.call(Method::POST, path)
    }

    pub fn put(&self, path: &str) -> Call<'_> {
        self.call(Method::PUT, path)
    }

    pub fn delete(&self, path: &str) -> Call<'_> {
        self.call(Method::DELETE, path)
    }

    /// Adds a user with [`PASSWORD`] and returns the id.
    pub async fn user(&self, username: &str, roles: &[&str]) -> String {
        let new = NewUser {
            username: username.to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            password: Some(Secret::new(PASSWORD)),
        };
        self.service.add_user(new).await.unwrap().id
    }

    pub async fn try_login(&self, username: &str, password: &str) -> Answer {
        self.post("/auth/login")
            .json(json!({ "username": username, "password": password }))
            .send()
            .await
    }

    pub async fn login(&self, username: &str) -> Tokens {
        self.try_login(username, PASSWORD).await.tokens()
    }

    pub async fn try_refresh(&self, token: &str) -> Answer {
        self.post("/auth/refresh")
            .json(json!({ "refresh_token": token }))
            .send()
            .await
    }

    pub async fn refresh(&self, token: &str) -> Tokens {
        self.try_refresh(token).await.tokens()
    }

    pub async fn me(&self, access: &str) -> Answer {
        self.get("/auth/me").bearer(access).send().await
    }

    /// A second replica on the same database, with the same keys.
    pub async fn replica(&self) -> Self {
        self.plan.again().build().await
    }

    /// Opens the database from outside, as an operator would.
    pub async fn outside(&self) -> Outside {
        match &*self.plan.store {
            Store::Sqlite => {
                let url = format!("sqlite:{}", self.folder.path().join("auth.db").display());
                Outside::Sqlite(SqliteConnection::connect(&url).await.unwrap())
            }
            Store::Postgres(database) => {
                Outside::Postgres(PgConnection::connect(&database.url()).await.unwrap())
            }
        }
    }

    /// Reads the database from outside.
    pub async fn query(&self, sql: &'static str) -> Vec<String> {
        self.outside().await.query(sql).await
    }

    /// Everything that the database holds at rest.
    pub fn at_rest(&self) -> Vec<Vec<u8>> {
        match &*self.plan.store {
            Store::Sqlite => {
                let entries = std::fs::read_dir(self.folder.path()).unwrap();
                let files = entries.map(|entry| entry.unwrap().path());
                let files = files.filter(|path| path.is_file());
                files.map(|path| std::fs::read(path).unwrap()).collect()
            }
            Store::Postgres(database) => vec![database.dump().into_bytes()],
        }
    }
}

/// A request in the making.
pub struct Call<'h> {
    house: &'h House,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Call<'_> {
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, value.parse().unwrap());
        self
    }

    pub fn json(self, body: Value) -> Self {
        self.header("content-type", "application/json")
            .raw(body.to_string())
    }

    pub fn raw(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub async fn send(self) -> Answer {
        let uri = format!("{}{}", self.house.base, self.path);
        let mut request = Request::builder()
            .method(self.method)
            .uri(uri)
            .body(Full::new(self.body))
            .unwrap();
        request.headers_mut().extend(self.headers);
        let response = self.house.client.request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let body = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap()
        };
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        }
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    #[track_caller]
    pub fn tokens(&self) -> Tokens {
        assert_eq!(self.status, 200, "{}", self.body);
        let text = |name: &str| self.body[name].as_str().unwrap().to_owned();
        Tokens {
            access: text("access_token"),
            refresh: text("refresh_token"),
        }
    }

    #[track_caller]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.body);
        self.body
    }

    pub fn reason(&self) -> &str {
        self.body["reason"].as_str().unwrap_or("no reason")
    }

    #[track_caller]
    pub fn refused(&self, status: u16, reason: &str) {
        assert_eq!((self.status, self.reason()), (status, reason), "{}", self.body);
        assert_eq!(self.body["status"], status);
    }
}

/// A token's payload, unproved.
pub fn claims(access: &str) -> Value {
    part(access, 1)
}

/// A part of a token.
pub fn part(token: &str, index: usize) -> Value {
    serde_json::from_slice(
        &URL_SAFE_NO_PAD
            .decode(token.split('.').nth(index).unwrap())
            .unwrap(),
    )
    .unwrap()
}
