//! The service as a whole: starting it, its parts, and what it does in the background.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use durward_contract::{Follower, Forgetting, News, Sequence, UnixSeconds};
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::accounts::{AddedUser, NewUser};
use crate::audit::Actor;
use crate::bearer::OwnTokens;
use crate::clock::{Clock, SystemClock};
use crate::config::AuthConfig;
use crate::database_config::DatabaseConfig;
use crate::key_reading::{KeyReading, READ_INTERVAL};
use crate::keys::{KeyError, KeyFolder};
use crate::metrics::Metrics;
use crate::passwords::{PasswordCost, Passwords};
use crate::problem::Problem;
use crate::reach::{Fleet, Reach};
use crate::refresh_family::Successors;
use crate::revocation_log::RevocationLog;
use crate::store::{self, Store, StoreError};
use crate::throttle::Throttle;
use crate::tokens::{SigningError, TokenIssuer};
use crate::{api, control, server};

pub use crate::store::Migration;

/// How often the log's head is read and attested.
const ATTEST_INTERVAL: Duration = Duration::from_secs(1);
/// How long after its last answer the database counts as there.
const READY_WITHIN: Duration = Duration::from_secs(5);
/// How often what no longer matters is deleted.
const PURGE_INTERVAL: Duration = Duration::from_secs(60);
/// Batches that one purge deletes at most, so that it never runs for long.
const PURGE_BATCHES: usize = 20;

/// A running auth service. Clones are the same service; it stops when the last one is gone.
#[derive(Clone, Debug)]
pub struct AuthService {
    pub(crate) inner: Arc<Inner>,
    _background: Arc<Background>,
}

/// What a service is given besides its configuration. The default is what production uses.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Where it learns the time.
    pub clock: Arc<dyn Clock>,
    /// How much work a password hash is. Lower than the default only in tests.
    pub password_cost: PasswordCost,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock::default()),
            password_cost: PasswordCost::PRODUCTION,
        }
    }
}

/// Why a service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A key file.
    #[error("auth.keys: {0}")]
    Key(#[from] KeyError),
    /// The signing key.
    #[error("auth.keys: {0}")]
    Signing(#[from] SigningError),
    /// The database.
    #[error("auth.database: {0}")]
    Database(String),
    /// Two services, or something else, registered the same metric.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Its own tokens could not be accepted.
    #[error("own tokens: {0}")]
    OwnTokens(String),
    /// Something of its own that should not fail.
    #[error("{0}")]
    Internal(String),
}

/// The parts. Operations on accounts and sessions are implemented on it in their own files.
pub(crate) struct Inner {
    pub config: AuthConfig,
    pub store: Store,
    pub log: RevocationLog,
    pub passwords: Passwords,
    pub throttle: Throttle,
    pub tokens: TokenIssuer,
    pub own_tokens: OwnTokens,
    pub keys: KeyFolder,
    pub reading_keys: KeyReading,
    /// Held while this process changes the signing key.
    pub changing_keys: Arc<AsyncMutex<()>>,
    pub successors: Successors,
    pub clock: Arc<dyn Clock>,
    pub metrics: Metrics,
    /// When the log was last read, on the monotonic clock.
    attested: Mutex<Option<Duration>>,
    started: Started,
    pub jwks: watch::Sender<Arc<Vec<u8>>>,
}

/// Brings the database up to date, and returns what that took. Starting the service does it too.
pub async fn migrate(config: &AuthConfig) -> Result<Vec<Migration>, StartError> {
    store::migrate(&config.database)
        .await
        .map_err(|error| database_error(&config.database, &error))
}

/// What [`migrate`] would do. Changes nothing, and makes no database where there is none.
pub async fn pending_migrations(config: &AuthConfig) -> Result<Vec<Migration>, StartError> {
    store::pending(&config.database)
        .await
        .map_err(|error| database_error(&config.database, &error))
}

fn database_error(database: &DatabaseConfig, error: &dyn fmt::Display) -> StartError {
    StartError::Database(format!("{database}: {error}"))
}

impl AuthService {
    /// Opens the database and the keys, makes them where there are none, hands the revocation log to
    /// the followers, and keeps it fresh from then on. To be called within a tokio runtime.
    pub async fn start(
        config: AuthConfig,
        followers: Vec<Arc<dyn Follower>>,
        registry: &Registry,
    ) -> Result<Self, StartError> {
        Self::start_in(Environment::default(), config, followers, registry).await
    }

    /// The same with another clock or another cost of passwords.
    pub async fn start_in(
        environment: Environment,
        config: AuthConfig,
        followers: Vec<Arc<dyn Follower>>,
        registry: &Registry,
    ) -> Result<Self, StartError> {
        let metrics = Metrics::register(registry)?;
        let keys = KeyFolder::open(&config.keys)?;
        keys.make_signing_key(config.signing_algorithm)?;
        let (reading_keys, ring) = KeyReading::first(&keys, config.signing_algorithm)?;
        let (signing, jwks) = (ring.signing.kid().to_owned(), ring.jwks());
        let tokens = TokenIssuer::new(&config.issuer, &config.audience, config.access_token_ttl, ring);
        let database = |error: &dyn fmt::Display| database_error(&config.database, error);
        let store = Store::open(&config.database)
            .await
            .map_err(|error| database(&error))?;
        let log = RevocationLog::new(config.issuer.clone(), followers);
        let head = log
            .load(&store, environment.clock.now())
            .await
            .map_err(|error| database(&error))?;
        // A revoked key that came back, from a backup perhaps, signs nothing that anybody accepts.
        if is_revoked(&store, &signing)
            .await
            .map_err(|error| database(&error))?
        {
            return Err(keys.revoked(config.signing_algorithm).into());
        }
        metrics.log_head.set(i64::try_from(head.0).unwrap_or(i64::MAX));
        let passwords = Passwords::new(
            environment.password_cost,
            config.password_hash_parallelism,
            &metrics,
        )
        .map_err(|problem| StartError::Internal(problem.to_string()))?;
        let inner = Arc::new(Inner {
            own_tokens: OwnTokens::new(&config, &jwks).map_err(StartError::OwnTokens)?,
            successors: Successors::new(&keys.refresh_key()?),
            jwks: watch::Sender::new(jwks),
            throttle: Throttle::default(),
            started: Started::at(&*environment.clock),
            clock: environment.clock,
            config,
            store,
            log,
            passwords,
            tokens,
            keys,
            reading_keys,
            changing_keys: Arc::default(),
            metrics,
            attested: Mutex::new(None),
        });
        Ok(Self {
            _background: Arc::new(Background::start(&inner)),
            inner,
        })
    }

    /// The key set that its tokens are checked with (RFC 7517 section 5), as it is now and as it
    /// will be.
    pub fn jwks(&self) -> watch::Receiver<Arc<Vec<u8>>> {
        self.inner.jwks.subscribe()
    }

    /// Whether the database has answered lately, and the key that signs is not revoked: what the
    /// service does needs both.
    pub fn is_ready(&self) -> bool {
        if self.inner.reading_keys.signing_is_revoked() {
            return false;
        }
        let attested = *self.inner.attested.lock();
        attested.is_some_and(|at| self.inner.clock.monotonic().saturating_sub(at) <= READY_WITHIN)
    }

    /// Says which gateways follow the log in other processes: it is told of what is committed from now
    /// on, and asked by calls that wait until a revocation has reached them. Takes effect once.
    pub fn follow_with(&self, fleet: Arc<dyn Fleet>) {
        self.inner.log.follow_with(fleet);
    }

    /// The log's id and its head, as SQL has them now.
    pub async fn log_head(&self) -> Result<(String, Sequence), Problem> {
        let mut read = self.inner.store.log_snapshot().await?;
        let head = store::revocations::head(&mut read).await?;
        Ok((head.log_id, head.sequence))
    }

    /// The next entries of the log after `sequence`, in order, at most `limit`.
    pub async fn log_after(&self, sequence: Sequence, limit: u32) -> Result<Vec<News>, Problem> {
        let mut read = self.inner.store.log_snapshot().await?;
        Ok(store::revocations::after(&mut read, sequence, limit).await?)
    }

    /// The same without those that may be forgotten, and without grants that have expired.
    pub async fn log_standing(&self, after: Sequence, limit: u32) -> Result<Vec<News>, Problem> {
        let mut read = self.inner.store.log_snapshot().await?;
        let (until, now) = (self.forgets_until(), self.inner.earliest_now());
        Ok(store::revocations::standing(&mut read, after, limit, until, now).await?)
    }

    /// What ends by this instant may be forgotten now.
    pub fn forgets_until(&self) -> UnixSeconds {
        self.inner.forgets_until()
    }

    /// Waits until every gateway has applied what is in the log now, for at most `within`.
    pub(crate) async fn reach(&self, within: Duration) -> (Sequence, Reach) {
        let head = self.inner.log.head().await;
        (head, self.inner.log.fleet().reach(head, within).await)
    }

    /// What it was configured with.
    pub fn config(&self) -> &AuthConfig {
        &self.inner.config
    }

    /// Serves the HTTP API on `listener` until `shutdown` resolves and open requests have ended.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        server::serve(
            listener,
            api::router(self.clone()),
            &self.inner.metrics.connections,
            shutdown,
        )
        .await
    }

    /// The JSON API of the command line. Whoever can reach it is the operator: it belongs on a Unix
    /// socket that only its owner may open.
    pub fn control_router(&self) -> Router {
        control::router(self.clone())
    }

    /// Adds a user, as the operator. A password is made up where none is given.
    pub async fn add_user(&self, user: NewUser) -> Result<AddedUser, Problem> {
        self.inner.add_user(Actor::LocalOperator, user).await
    }

    /// Whether there is any user at all.
    pub async fn has_users(&self) -> Result<bool, Problem> {
        let mut read = self.inner.store.read().await?;
        Ok(store::users::any(&mut read).await?)
    }

    /// Reads the revocation log's head and tells the followers that they have all of it. Happens
    /// every second by itself.
    pub async fn attest(&self) -> Result<(), Problem> {
        self.inner.attest().await
    }

    /// Takes over what others who share the key folder have changed there, and has an announced key
    /// sign once its time has come. Happens every second by itself.
    pub async fn follow_keys(&self) -> Result<(), Problem> {
        self.inner.follow_keys().await
    }

    /// Deletes what no longer matters. Happens every minute by itself.
    pub async fn purge(&self) -> Result<(), Problem> {
        self.inner.purge().await
    }

    /// Closes the database. Calls after this fail.
    pub async fn close(&self) {
        self.inner.store.close().await;
    }
}

impl Inner {
    async fn attest(&self) -> Result<(), Problem> {
        match self.log.attest(&self.store).await {
            Ok(head) => {
                *self.attested.lock() = Some(self.clock.monotonic());
                self.metrics
                    .log_head
                    .set(i64::try_from(head.0).unwrap_or(i64::MAX));
                Ok(())
            }
            Err(error) => {
                self.metrics.attest_failures.inc();
                Err(error.into())
            }
        }
    }

    /// The earlier of what the wall clock says and what has really passed since the start.
    pub fn earliest_now(&self) -> UnixSeconds {
        self.started.earliest_now(&*self.clock)
    }

    fn forgets_until(&self) -> UnixSeconds {
        let Started { wall, monotonic } = self.started;
        let elapsed = self.clock.monotonic().saturating_sub(monotonic);
        Forgetting::since(wall).until(self.clock.now(), elapsed)
    }

    async fn purge(self: &Arc<Self>) -> Result<(), Problem> {
        self.retire_keys().await?;
        for _ in 0..PURGE_BATCHES {
            let mut write = self.store.write().await?;
            let more = store::purge::batch(write.connection(), self.forgets_until()).await?;
            write.commit_without_news().await?;
            if !more {
                break;
            }
        }
        Ok(())
    }
}

async fn is_revoked(store: &Store, kid: &str) -> Result<bool, StoreError> {
    store::revocations::signing_key_is_revoked(&mut store.read().await?, kid).await
}

/// When the service started, by both clocks.
#[derive(Clone, Copy, Debug)]
struct Started {
    wall: UnixSeconds,
    monotonic: Duration,
}

impl Started {
    fn at(clock: &dyn Clock) -> Self {
        Self {
            wall: clock.now(),
            monotonic: clock.monotonic(),
        }
    }

    /// The earlier of what the wall clock says and what has really passed since the start. A wall
    /// clock that is set forward by mistake, and back again, has then deleted nothing that still
    /// refuses somebody.
    fn earliest_now(self, clock: &dyn Clock) -> UnixSeconds {
        let elapsed = clock.monotonic().saturating_sub(self.monotonic);
        clock.now().min(self.wall.plus(elapsed))
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Runs `operation` to its end even where the client hangs up and its request is dropped: what was
/// committed must also be applied.
pub(crate) async fn detached<T: Send + 'static>(
    operation: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::spawn(operation).await {
        Ok(result) => result,
        Err(error) => Err(Problem::internal("running an operation", &error)),
    }
}

/// Tasks that end with the service.
#[derive(Debug)]
struct Background(Vec<AbortHandle>);

impl Background {
    fn start(inner: &Arc<Inner>) -> Self {
        let (attesting, purging) = (Arc::clone(inner), Arc::clone(inner));
        let attest = tokio::spawn(async move {
            let mut ticks = interval(ATTEST_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                // The problem has been logged and counted; the followers notice the silence.
                let _ = attesting.attest().await;
            }
        });
        let purge = tokio::spawn(async move {
            let mut ticks = interval(PURGE_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let _ = purging.purge().await;
            }
        });
        let reading = Arc::clone(inner);
        let keys = tokio::spawn(async move {
            let mut ticks = interval(READ_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                // The last good keys stay.
                let _ = reading.follow_keys().await;
            }
        });
        Self(vec![
            attest.abort_handle(),
            purge.abort_handle(),
            keys.abort_handle(),
        ])
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}
