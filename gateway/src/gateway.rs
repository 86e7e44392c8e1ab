//! The gateway put together: what it shares, its services, its start and its end.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use durward_news::RedisTarget;
use durward_policy::{Explanation, Policy};
use parking_lot::Mutex;
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use pingora::services::background::{BackgroundService, background_service};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::access_log::{AccessLog, AccessLogWriter};
use crate::admin::Admin;
use crate::assertion::Assertions;
use crate::cancellable::{Cancellable, ConnectionTimes};
use crate::config::GatewayConfig;
use crate::connections::{Connections, Counted};
use crate::decision::Known;
use crate::descriptors;
use crate::explain::{self, ExplainRequest};
use crate::forward_auth::{ForwardAuth, ForwardAuthCounts};
use crate::generation::{Generation, upstreams_are_there};
use crate::handover::{Handover, LINGER};
use crate::housekeeping::Housekeeper;
use crate::http2::Floods;
use crate::in_flight::InFlight;
use crate::issuer_keys::IssuerKeys;
use crate::listener_config::ListenerConfig;
use crate::listener_tls::{CertificateKeeper, Listener, TlsListener};
use crate::listeners::{Bound, BoundService, Sockets};
use crate::live_streams::Cut;
use crate::lookup::Lookups;
use crate::metrics::Metrics;
use crate::proxy::{GatewayProxy, Shared};
use crate::rate_limits::{SharedQuotas, Tallies};
use crate::readiness::Readiness;
use crate::redirect::Redirect;
use crate::reloads::Reloads;
use crate::revocation_feed::RevocationFeed;
use crate::upstream_config::MAX_ATTEMPTS;
use crate::upstreams::HealthKeeper;

mod key_keeper;
mod reload;

use key_keeper::KeyKeeper;
pub use reload::{ReloadReport, needs_restart};

/// How long it may take to prepare before it runs.
const PREPARE: Duration = Duration::from_secs(20);
/// How long of that a store of rate limits may take, without which there is a way, too.
const PREPARE_LIMITS: Duration = Duration::from_secs(2);
/// How often the drain looks whether it is done.
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);
/// How long answers that are recorded may take to leave.
const FLUSH: Duration = Duration::from_millis(50);
/// How long Pingora's runtimes may take to drop what the drain left.
const RUNTIME_TIMEOUT: u64 = 5;

/// The JWKS of the auth service in this process, or nothing where there is none.
pub type OwnKeys = Option<watch::Receiver<Arc<Vec<u8>>>>;

/// How the gateway learns of revocations.
#[derive(Clone)]
pub enum GatewayRevocations {
    /// It does not: `revocations: none`.
    None,
    /// From a feed in this process.
    Mirror(Arc<RevocationFeed>),
    /// By asking this store for each request: `mode: lookup`.
    Lookup(RedisTarget),
}

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// An address cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Keys that are read or made at start cannot be.
    #[error("{0}")]
    Keys(String),
    /// There is a store to ask, and the policy does not say what for.
    #[error("the policy is not one of `mode: lookup`")]
    Revocations,
    /// A certificate that was good a moment ago cannot be used.
    #[error("{0}")]
    Certificate(String),
    /// The access log cannot be opened.
    #[error("{0}")]
    AccessLog(std::io::Error),
    /// The policy names an upstream that the configuration does not have.
    #[error("a route's upstream is not configured")]
    Upstream,
}

/// Tells a running gateway to end.
#[derive(Clone, Debug)]
pub struct ShutdownTrigger(Arc<watch::Sender<bool>>);

/// What a gateway waits for: its end.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// A trigger and what it triggers. Dropping every trigger triggers too.
    pub fn new() -> (ShutdownTrigger, Self) {
        let (sender, receiver) = watch::channel(false);
        (ShutdownTrigger(Arc::new(sender)), Self(receiver))
    }

    async fn wait(&self) {
        // An error means that nobody is left who could trigger it.
        let _ = self.0.clone().wait_for(|triggered| *triggered).await;
    }
}

impl ShutdownTrigger {
    /// Begins the drain.
    pub fn trigger(&self) {
        self.0.send_replace(true);
    }
}

/// A gateway that listens and is ready to run.
pub struct Gateway {
    config: GatewayConfig,
    shared: Arc<Shared>,
    own_keys: OwnKeys,
    listeners: Mutex<Option<Listeners>>,
    draining: watch::Sender<bool>,
    /// Held while a configuration is taken over.
    reloading: tokio::sync::Mutex<()>,
    sockets: Arc<Sockets>,
    handover: Handover,
}

struct Listeners {
    /// In the order of the configuration.
    edge: Vec<Bound>,
    admin: Option<Bound>,
    forward_auth: Option<Bound>,
    log_writer: AccessLogWriter,
}

impl Gateway {
    /// Reads the keys that are read at start, opens the access log, and binds every address.
    /// Connections queue from here on; they are served by [`Self::run`].
    pub fn new(
        config: GatewayConfig,
        policy: Arc<Policy>,
        own_keys: OwnKeys,
        revocations: GatewayRevocations,
    ) -> Result<Self, GatewayError> {
        Self::on(&Arc::default(), config, policy, own_keys, revocations)
    }

    /// The same on sockets that a process before this one may have handed over.
    pub fn on(
        sockets: &Arc<Sockets>,
        config: GatewayConfig,
        policy: Arc<Policy>,
        own_keys: OwnKeys,
        revocations: GatewayRevocations,
    ) -> Result<Self, GatewayError> {
        let keys = IssuerKeys::new(&policy, &config.base).map_err(GatewayError::Keys)?;
        if let Some(own_keys) = &own_keys {
            keys.follow_own(own_keys.clone());
        }
        if !upstreams_are_there(&policy, &config) {
            return Err(GatewayError::Upstream);
        }
        let (known, streams) = match revocations {
            GatewayRevocations::None => (Known::Nothing, Arc::default()),
            GatewayRevocations::Mirror(feed) => {
                (Known::Mirror(Arc::clone(&feed)), Arc::clone(feed.streams()))
            }
            GatewayRevocations::Lookup(target) => {
                let lookup = policy.lookup().ok_or(GatewayError::Revocations)?;
                (Known::Store(Lookups::new(lookup, &target)), Arc::default())
            }
        };
        let assertions = config.assertion.as_ref().map(Assertions::new).transpose();
        let assertions = assertions.map_err(GatewayError::Keys)?;
        let (log, log_writer) = AccessLog::open(&config.access_log, config.client_limits.refused_log_lines)
            .map_err(GatewayError::AccessLog)?;
        let listeners = Listeners {
            edge: config
                .listen
                .iter()
                .map(|listener| bind(sockets, listener.address))
                .collect::<Result<_, _>>()?,
            admin: config.admin.map(|address| bind(sockets, address)).transpose()?,
            forward_auth: config
                .forward_auth
                .as_ref()
                .map(|forward_auth| bind(sockets, forward_auth.listen))
                .transpose()?,
            log_writer,
        };
        let tls = config
            .listen
            .iter()
            .map(|listener| TlsListener::new(listener, config.header_timeout))
            .collect::<Result<_, _>>()
            .map_err(GatewayError::Certificate)?;
        let metrics = Metrics::new();
        let header = assertions.as_ref().map(Assertions::header);
        let tallies = Tallies::new(config.rate_limit_store.as_ref());
        let generation = Generation::first(config.clone(), policy, keys, header, &metrics, &tallies);
        let clients = &config.client_limits;
        let most = descriptors::most_connections(clients.max_connections, descriptors::raise_limit());
        let shared = Shared {
            tls,
            changes: watch::channel(generation.number).0,
            generation: ArcSwap::from_pointee(generation),
            known,
            streams,
            assertions,
            metrics,
            log,
            in_flight: InFlight::default(),
            connections: Arc::new(Connections::new(most, clients.max_connections_per_address)),
            floods: Floods::default(),
            tallies,
            asked: ForwardAuthCounts::default(),
            neighbours: OnceLock::new(),
            reloads: Reloads::default(),
            older: Mutex::default(),
        };
        Ok(Self {
            config,
            shared: Arc::new(shared),
            own_keys,
            listeners: Mutex::new(Some(listeners)),
            draining: watch::channel(false).0,
            reloading: tokio::sync::Mutex::default(),
            sockets: Arc::clone(sockets),
            handover: Handover::default(),
        })
    }

    /// Shows the metrics of a neighbour in the same process on the admin listener too. Takes effect
    /// once.
    pub fn show_metrics_of(&self, registry: prometheus::Registry) {
        let _ = self.shared.neighbours.set(registry);
    }

    /// Where the edge listens, with the ports that the system chose where port 0 was asked for.
    /// Empty once it has run.
    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        let listeners = self.listeners.lock();
        listeners
            .iter()
            .flat_map(|listeners| &listeners.edge)
            .map(|bound| bound.address)
            .collect()
    }

    /// The same, as the URLs that users begin with.
    pub fn listen_urls(&self) -> Vec<String> {
        let schemes = self.config.listen.iter().map(ListenerConfig::scheme);
        schemes
            .zip(self.listen_addresses())
            .map(|(scheme, address)| format!("{scheme}://{address}"))
            .collect()
    }

    /// Where the admin listener is.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        let listeners = self.listeners.lock();
        listeners
            .as_ref()
            .and_then(|listeners| listeners.admin.as_ref())
            .map(|bound| bound.address)
    }

    /// Where other proxies ask.
    pub fn forward_auth_address(&self) -> Option<SocketAddr> {
        let listeners = self.listeners.lock();
        listeners
            .as_ref()
            .and_then(|listeners| listeners.forward_auth.as_ref())
            .map(|bound| bound.address)
    }

    /// Whether it can decide: keys are there and the mirror is loaded.
    pub fn is_ready(&self) -> bool {
        Readiness::of(&self.shared, *self.draining.borrow()).ready
    }

    /// What it lacks until it is ready.
    pub fn missing(&self) -> Vec<String> {
        Readiness::of(&self.shared, *self.draining.borrow()).missing
    }

    /// Fetches the keys that are fetched, waits until the mirror is loaded, and connects to the stores
    /// that are asked, before it runs: what takes over from another process has to answer its first
    /// request as that would have.
    pub async fn prepare(&self) -> Result<(), String> {
        let keys = Arc::clone(self.shared.current().proofs.keys());
        keys.fetch_missing(PREPARE, None)
            .await
            .map_err(|errors| errors.join("; "))?;
        if let Some(store) = self.shared.tallies.store()
            && let Err(problem) = store.prepare(PREPARE_LIMITS).await
        {
            // The limits say what is then.
            tracing::warn!(problem, "the rate limit store cannot be asked yet");
        }
        match &self.shared.known {
            Known::Nothing => Ok(()),
            Known::Store(lookups) => lookups
                .prepare(PREPARE)
                .await
                .map_err(|problem| format!("the revocation store cannot be asked: {problem}")),
            Known::Mirror(feed) => loaded_in_time(feed).await,
        }
    }

    /// To be said before the end, where another process goes on with the same sockets: connections
    /// that wait for a request are kept a little longer.
    pub fn hand_over(&self) {
        self.handover.set_done();
    }

    /// Waits until it accepts no connection any more.
    pub async fn doors_closed(&self) {
        self.handover.all_closed().await;
    }

    /// How a request would be decided now. The error says what of the request makes no sense.
    pub async fn explain(&self, request: &ExplainRequest) -> Result<Explanation, String> {
        explain::explain(&self.shared, request).await
    }

    /// Serves until `shutdown`, then lets open requests end for up to the configured grace, and
    /// returns. Blocks, on threads of its own: not to be called within a runtime. Runs once.
    pub fn run(&self, shutdown: Shutdown) {
        let Some(Listeners {
            edge,
            admin,
            forward_auth,
            log_writer,
        }) = self.listeners.lock().take()
        else {
            return;
        };
        let mut server = Server::new_with_opt_and_conf(None, self.server_conf());
        // The admin listener answers while the edge drains, and ends with the server; where another process
        // goes on with its socket, it ends with the edge: who asks is to be told of the one that serves.
        let admin_end = watch::channel(false).0;
        let proxy = GatewayProxy {
            shared: Arc::clone(&self.shared),
        };
        let proxy = Arc::new(http_proxy(&server.configuration, proxy));
        let mut serving = Vec::new();
        let mut redirecting = Vec::new();
        for ((listener, tls), bound) in self.config.listen.iter().zip(&self.shared.tls).zip(edge) {
            let bound = match tls {
                Some(_) => bound.for_tls(),
                None => bound,
            };
            if let Some(port) = listener.redirect_to {
                let app = Redirect {
                    shared: Arc::clone(&self.shared),
                    known: self.shared.tls.iter().flatten().cloned().collect(),
                    port,
                };
                let app = self.cancellable(Arc::new(app), self.times_of_clients());
                redirecting.push((Counted::new(app, &self.shared), bound));
            } else {
                let app = self
                    .cancellable(Arc::clone(&proxy), self.times_of_clients())
                    .with_prior_knowledge(listener.http2 && tls.is_none());
                let listener = Listener {
                    app: Arc::new(app),
                    tls: tls.clone(),
                    http2: listener.http2,
                    header_timeout: self.config.header_timeout,
                    shared: Arc::clone(&self.shared),
                };
                serving.push((Counted::new(listener, &self.shared), bound));
            }
        }
        let draining = || self.draining.subscribe();
        server.add_service(BoundService::new("edge", serving, None, draining()));
        if !redirecting.is_empty() {
            server.add_service(BoundService::new("redirect", redirecting, Some(1), draining()));
        }
        let keeper = CertificateKeeper(self.shared.tls.iter().flatten().cloned().collect());
        server.add_service(background_service("certificates", keeper));
        if let Some(bound) = forward_auth {
            let app = ForwardAuth {
                shared: Arc::clone(&self.shared),
            };
            let times = ConnectionTimes {
                keepalive: None,
                send: None,
                ..self.times_of_clients()
            };
            let app = self.cancellable(Arc::new(app), times);
            let bound = vec![(app, bound)];
            server.add_service(BoundService::new("forward-auth", bound, None, draining()));
        }
        if let Some(bound) = admin {
            let app = Admin {
                shared: Arc::clone(&self.shared),
                draining: self.draining.subscribe(),
            };
            server.add_service(BoundService::new(
                "admin",
                vec![(app, bound)],
                Some(1),
                admin_end.subscribe(),
            ));
        }
        server.add_service(background_service(
            "keys",
            KeyKeeper::new(&self.shared, self.own_keys.clone()),
        ));
        server.add_service(background_service("housekeeping", Housekeeper::new(&self.shared)));
        server.add_service(background_service(
            "health checks",
            HealthKeeper(Arc::clone(&self.shared)),
        ));
        if let Some(store) = self.shared.tallies.store() {
            let keeper = RateLimitKeeper(Arc::clone(store));
            server.add_service(background_service("rate limits", keeper));
        }
        if let Known::Store(_) = &self.shared.known {
            let keeper = LookupKeeper(Arc::clone(&self.shared));
            server.add_service(background_service("lookups", keeper));
        }
        let drain = Drain {
            shutdown,
            draining: self.draining.clone(),
            shared: Arc::clone(&self.shared),
            grace: self.config.shutdown_grace,
            sockets: Arc::clone(&self.sockets),
            handover: self.handover.clone(),
            admin_end,
        };
        server.run(RunArgs {
            shutdown_signal: Box::new(drain),
        });
        log_writer.finish();
    }

    fn times_of_clients(&self) -> ConnectionTimes {
        let clients = &self.config.client_limits;
        ConnectionTimes {
            header: self.config.header_timeout,
            keepalive: Some(clients.keepalive_timeout),
            send: Some(clients.send_timeout),
        }
    }

    fn cancellable<P>(&self, app: Arc<P>, times: ConnectionTimes) -> Cancellable<P> {
        Cancellable::new(
            app,
            Arc::clone(&self.shared.streams),
            times,
            self.config.max_header_bytes,
            self.handover.door(),
        )
    }

    fn server_conf(&self) -> ServerConf {
        ServerConf {
            threads: self.config.workers,
            // Needed by `Upstream::choose_for_upgrade`, and cheaper: no task changes its thread. The unit
            // tests run many servers in one process, one after the other, and pingora-runtime 0.9.1 then
            // takes a new thread for an ended one of the same number; they have one worker instead.
            work_stealing: cfg!(test),
            upstream_keepalive_pool_size: self.config.upstream_keepalive_pool,
            max_retries: MAX_ATTEMPTS,
            grace_period_seconds: Some(0),
            graceful_shutdown_timeout_seconds: Some(RUNTIME_TIMEOUT),
            ..ServerConf::default()
        }
    }
}

async fn loaded_in_time(feed: &RevocationFeed) -> Result<(), String> {
    let start = Instant::now();
    while !feed.is_loaded() {
        if start.elapsed() > PREPARE {
            return Err("the revocations are not loaded in time".into());
        }
        tokio::time::sleep(DRAIN_INTERVAL).await;
    }
    Ok(())
}

fn bind(sockets: &Sockets, address: SocketAddr) -> Result<Bound, GatewayError> {
    Bound::bind(sockets, address).map_err(|source| GatewayError::Listen { address, source })
}

/// Waits for the end, then drains: listeners close, idle connections too, WebSockets are told, open
/// requests get their grace. What is left then is dropped by Pingora, which has no grace to give after this one.
struct Drain {
    shutdown: Shutdown,
    draining: watch::Sender<bool>,
    shared: Arc<Shared>,
    grace: Duration,
    sockets: Arc<Sockets>,
    handover: Handover,
    admin_end: watch::Sender<bool>,
}

#[async_trait]
impl ShutdownSignalWatch for Drain {
    async fn recv(&self) -> ShutdownSignal {
        self.shutdown.wait().await;
        self.draining.send_replace(true);
        self.sockets.let_go();
        let start = Instant::now();
        // Clients of another process's sockets are given the time to come over.
        let least = match self.handover.is_done() {
            true => {
                self.admin_end.send_replace(true);
                LINGER + FLUSH
            }
            false => Duration::ZERO,
        };
        // Nobody who comes back is met here again.
        let _ = timeout(self.grace, self.handover.all_closed()).await;
        self.shared.streams.leave_all();
        tracing::info!(grace = ?self.grace, in_flight = self.shared.in_flight.count(), "draining");
        let goes_on =
            |since: Duration| since < least || (self.shared.in_flight.count() > 0 && since < self.grace);
        while goes_on(start.elapsed()) {
            tokio::time::sleep(DRAIN_INTERVAL).await;
        }
        let left = self.shared.in_flight.count();
        self.shared.streams.end_all(Cut::Shutdown);
        tokio::time::sleep(FLUSH).await;
        tracing::info!(took = ?start.elapsed(), cut = left, "drained");
        self.admin_end.send_replace(true);
        ShutdownSignal::GracefulTerminate
    }
}

/// Keeps the connection to the store of shared rate limits.
struct RateLimitKeeper(Arc<SharedQuotas>);

#[async_trait]
impl BackgroundService for RateLimitKeeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            _ = shutdown.changed() => {}
            () = self.0.keep() => {}
        }
    }
}

/// Keeps the connection to the store that is asked, and asks again about what is open.
struct LookupKeeper(Arc<Shared>);

#[async_trait]
impl BackgroundService for LookupKeeper {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let Known::Store(lookups) = &self.0.known else {
            return;
        };
        // What is asked for never changes while the process runs.
        let policy = Arc::clone(&self.0.current().policy);
        tokio::select! {
            _ = shutdown.changed() => {}
            () = lookups.keep(&policy, &self.0.streams) => {}
        }
    }
}
