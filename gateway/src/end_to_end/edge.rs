//! A running gateway and how it is talked to.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use durward_config::{Diagnostics, Document};
use durward_contract::{Bar, Follower, News, RevocationEntry, Sequence, Snapshot, Target, UnixSeconds};
use serde_json::Value;

use super::answer::Answer;
use super::backend::Backend;
use crate::testing::{ISSUER, SigningKey, compile_policy, sign, signing_key};
use crate::{
    Gateway, GatewayConfig, GatewayRevocations, GatewaySections, MirrorLimits, RevocationFeed, Shutdown,
    ShutdownTrigger,
};

/// A running gateway.
pub(super) struct Edge {
    pub(super) gateway: Arc<Gateway>,
    pub(super) feed: Arc<RevocationFeed>,
    pub(super) key: SigningKey,
    pub(super) backend: Backend,
    pub(super) address: SocketAddr,
    admin: SocketAddr,
    log: PathBuf,
    trigger: ShutdownTrigger,
    sequence: AtomicU64,
    thread: Option<JoinHandle<()>>,
}

impl Edge {
    /// Started, with an empty revocation log loaded.
    pub(super) fn start(extra: &str) -> Self {
        let edge = Self::start_unloaded(extra);
        edge.feed.load(Snapshot::default());
        edge
    }

    /// The same, with an upstream of these keys at `address` for `/api` and `/public`.
    pub(super) fn before(address: SocketAddr, keys: &str) -> Self {
        let edge = Self::launch("", Some((address, keys)));
        edge.feed.load(Snapshot::default());
        edge
    }

    pub(super) fn start_unloaded(extra: &str) -> Self {
        Self::launch(extra, None)
    }

    fn launch(extra: &str, upstream: Option<(SocketAddr, &str)>) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let log = std::env::temp_dir().join(format!("durward-edge-{}-{number}.jsonl", std::process::id()));
        let _ = std::fs::remove_file(&log);
        let backend = Backend::start();
        let (address, keys) = upstream.unwrap_or((backend.address, ""));
        let text = configuration(address, keys, &log, extra);
        let document = Document::parse("edge.yaml", &text).unwrap();
        let mut diagnostics = Diagnostics::default();
        let mut section = document.root().section("the file", &mut diagnostics).unwrap();
        let sections = GatewaySections::take(&mut section);
        let config = GatewayConfig::compile(sections, &std::env::temp_dir(), &mut diagnostics);
        let names = config
            .as_ref()
            .map(GatewayConfig::upstream_names)
            .unwrap_or_default();
        let policy = compile_policy(&mut section, &names, &mut diagnostics);
        section.finish(&mut diagnostics);
        let (Some(config), Some(policy)) = (config, policy) else {
            panic!("{}", diagnostics.located_in(&document));
        };
        let key = signing_key("k1");
        let feed = RevocationFeed::new(&policy, MirrorLimits::default());
        let (sender, own_keys) = tokio::sync::watch::channel(Arc::new(key.jwks()));
        std::mem::forget(sender);
        let mirror = GatewayRevocations::Mirror(Arc::clone(&feed));
        let gateway = Arc::new(Gateway::new(config, Arc::new(policy), Some(own_keys), mirror).unwrap());
        let (trigger, shutdown) = Shutdown::new();
        let (address, admin) = (gateway.listen_addresses()[0], gateway.admin_address().unwrap());
        let running = Arc::clone(&gateway);
        let thread = Some(std::thread::spawn(move || running.run(shutdown)));
        Self {
            gateway,
            feed,
            key,
            backend,
            address,
            admin,
            log,
            trigger,
            sequence: AtomicU64::new(0),
            thread,
        }
    }

    pub(super) fn token(&self, user: &str) -> String {
        sign(&self.key, user, &[])
    }

    pub(super) fn ban(&self, target: Target) {
        let sequence = Sequence(self.sequence.fetch_add(1, Ordering::SeqCst) + 1);
        let entry = News::Revocation(RevocationEntry {
            sequence,
            issuer: ISSUER.into(),
            target,
            bar: Bar::EpochBelow(2),
            forget_at: Some(UnixSeconds(i64::MAX)),
        });
        self.feed.apply(&[entry], sequence);
    }

    pub(super) fn ban_user(&self, user: &str) {
        self.ban(Target::User(user.into()));
    }

    pub(super) fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// Sends a request with a token on a connection of its own.
    pub(super) fn get(&self, target: &str, token: &str, headers: &str) -> Answer {
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: edge.example\r\nAuthorization: Bearer {token}\r\n{headers}\r\n"
        );
        self.send(head.as_bytes())
    }

    pub(super) fn send(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        Answer::read(&mut stream)
    }

    pub(super) fn admin(&self, path: &str) -> Answer {
        let mut stream = connect(self.admin);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: admin\r\n\r\n").unwrap();
        Answer::read(&mut stream)
    }

    /// Ends the gateway and gives its access log.
    pub(super) fn stop(mut self) -> Vec<Value> {
        self.trigger.trigger();
        self.thread.take().unwrap().join().unwrap();
        let text = std::fs::read_to_string(&self.log).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
            .collect()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.trigger.trigger();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.log);
        let _ = std::fs::remove_file(key_file(&self.log));
    }
}

/// Where the backend's own key is, of the edge with this log: one that others write to may be empty when
/// it is read.
fn key_file(log: &std::path::Path) -> PathBuf {
    log.with_extension("key")
}

fn configuration(backend: SocketAddr, keys: &str, log: &std::path::Path, extra: &str) -> String {
    let secret = key_file(log);
    std::fs::write(&secret, "backend-secret\n").unwrap();
    format!(
        "listen: {{ address: '127.0.0.1:0', http2: true }}\nadmin: 127.0.0.1:0\nworkers: 1\nshutdown_grace: 2s\n\
         access_log: {{ file: '{}' }}\n{extra}\n\
         upstreams:\n  api:\n    servers: [{backend}]\n    {keys}\n    headers: {{ X-Api-Key: {{ file: '{}' }} }}\n\
         \x20 down: {{ servers: [127.0.0.1:1], connect_timeout: 500ms }}\n\
         issuers: [{{ use: auth, leeway: 0s }}]\n\
         revocations: {{ store: embedded, max_staleness: 60s }}\n\
         identity_headers: {{ X-User-Id: sub, X-User-Roles: roles }}\n\
         routes:\n\
         \x20 - {{ path: /api/**, upstream: api }}\n\
         \x20 - {{ path: /api/admin/**, upstream: api, require: {{ roles: admin }} }}\n\
         \x20 - {{ path: /public/**, upstream: api, access: public }}\n\
         \x20 - {{ path: /read/**, upstream: api, methods: [GET] }}\n\
         \x20 - {{ path: /down/**, upstream: down, access: public }}\n",
        log.display(),
        secret.display(),
    )
}

fn connect(address: SocketAddr) -> TcpStream {
    let start = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => {
                stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                stream.set_nodelay(true).unwrap();
                return stream;
            }
            Err(error) => assert!(start.elapsed() < Duration::from_secs(5), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
