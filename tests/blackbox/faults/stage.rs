//! One auth service, one Redis, one gateway, a fault proxy before Redis for the gateway, and three
//! users: one who was banned before, one who will be, one who never is.

use std::thread;
use std::time::{Duration, Instant};

use super::measure::{Observations, Outcome, Watch};
use crate::harness::{Account, Backend, FaultProxy, FleetSetup, RedisServer, Service, eventually, get};

/// `max_staleness` of the fleet's configuration.
pub const BOUND: Duration = Duration::from_secs(2);
/// How long a fault lasts: long enough for the news to grow stale.
pub const LASTING: Duration = Duration::from_secs(4);
/// How long is watched after everything is well again.
const AFTERMATH: Duration = Duration::from_millis(500);

/// What a fault is done to. Parts that a fault does not have are taken by the scenario.
#[derive(Debug)]
pub struct Stage {
    pub gateway: Service,
    pub auth: Service,
    /// Between gateway and Redis.
    pub proxy: FaultProxy,
    /// Between auth service and Redis.
    pub publishing: FaultProxy,
    pub redis: RedisServer,
    pub setup: FleetSetup,
    known: Account,
    victim: Account,
    valid: Account,
    _backend: Backend,
}

/// How a stage is built.
#[derive(Debug, Default)]
pub struct Plan {
    pub redis_options: Vec<&'static str>,
    pub redis_environment: Vec<(&'static str, String)>,
    pub auth_environment: Vec<(&'static str, String)>,
    pub gateway_environment: Vec<(&'static str, String)>,
    /// Another database than a SQLite file.
    pub database: Option<String>,
    /// A Redis that is there already, and the URL by which it is found; no proxy is between then.
    pub redis: Option<(RedisServer, String)>,
}

impl Stage {
    pub fn new() -> Self {
        Self::planned(Plan::default())
    }

    pub fn planned(plan: Plan) -> Self {
        let backend = Backend::start();
        let (redis, url) = match plan.redis {
            Some((redis, url)) => (redis, Some(url)),
            None => (
                RedisServer::in_environment(&plan.redis_options, &borrowed(&plan.redis_environment)),
                None,
            ),
        };
        let proxy = FaultProxy::before(redis.address());
        let publishing = FaultProxy::before(redis.address());
        let setup = match &plan.database {
            Some(database) => FleetSetup::on(database, &backend),
            None => FleetSetup::on_sqlite(&backend),
        };
        let setup = match url {
            Some(url) => setup.replace("redis://@redis", &url),
            None => setup,
        };
        let auth = setup.auth(publishing.address(), &borrowed(&plan.auth_environment));
        let gateway = setup.gateway(proxy.address(), &auth, &borrowed(&plan.gateway_environment));
        let [known, victim, valid] = ["known", "victim", "valid"].map(|name| auth.account_here(name, &[]));
        let stage = Self {
            gateway,
            auth,
            proxy,
            publishing,
            redis,
            setup,
            known,
            victim,
            valid,
            _backend: backend,
        };
        stage.auth.told(&["ban", "known"]);
        eventually("the gateway refuses who was banned before", || {
            let answer = stage.known.get("/api/x").send_if_answered(stage.gateway.edge)?;
            (answer.status == 401).then_some(())
        });
        for account in [&stage.victim, &stage.valid] {
            stage.gateway.ask(&account.get("/api/x")).expect(200);
        }
        stage
    }

    /// Breaks something, bans somebody meanwhile, mends it, and waits until all is well.
    #[track_caller]
    pub fn suffer(
        &mut self,
        fault: &str,
        lasting: Duration,
        break_it: impl FnOnce(&mut Self),
        mend: impl FnOnce(&mut Self),
    ) -> Outcome {
        self.suffer_with_ban(fault, lasting, true, break_it, mend)
    }

    /// The same, where nobody can be banned meanwhile.
    #[track_caller]
    pub fn suffer_with_ban(
        &mut self,
        fault: &str,
        lasting: Duration,
        bans: bool,
        break_it: impl FnOnce(&mut Self),
        mend: impl FnOnce(&mut Self),
    ) -> Outcome {
        let watch = |account: &Account| Watch::start(self.gateway.edge, account.get("/api/x"));
        let [known, victim, valid] = [&self.known, &self.victim, &self.valid].map(watch);
        break_it(self);
        let acknowledged = bans.then(|| {
            self.auth.told(&["ban", "victim"]);
            Instant::now()
        });
        thread::sleep(lasting);
        mend(self);
        let healed = Instant::now();
        if !bans {
            self.auth.told(&["ban", "victim"]);
        }
        eventually("who may pass passes again", || {
            valid
                .last()
                .filter(|sample| sample.accepted() && sample.sent > healed)
        });
        eventually("who was banned meanwhile is refused for that", || {
            victim.last().filter(|sample| sample.reason == "revoked")
        });
        thread::sleep(AFTERMATH);
        let outcome = Observations {
            known: known.finish(),
            victim: victim.finish(),
            valid: valid.finish(),
            acknowledged,
            healed,
            bound: BOUND,
        }
        .outcome(fault);
        outcome.holds();
        outcome
    }

    /// The reason that somebody is refused for now; empty where they are not, or are not answered.
    pub fn reason_for(&self, account: &Account) -> String {
        let answer = account.get("/api/x").send_if_answered(self.gateway.edge);
        answer.map(|answer| answer.reason()).unwrap_or_default()
    }

    /// A request of the user who is never banned.
    pub fn valid_status(&self) -> u16 {
        self.gateway.ask(&self.valid.get("/api/x")).status
    }

    /// The answer to a request on a path that anybody may ask for.
    pub fn public_status(&self) -> u16 {
        self.gateway.ask(&get("/public/x")).status
    }

    /// The reason that the user who is never banned is refused for now.
    pub fn valid_reason(&self) -> String {
        self.gateway.ask(&self.valid.get("/api/x")).reason()
    }

    /// The status of the user who is never banned on a route that allows what is not known.
    pub fn lax_status(&self) -> u16 {
        self.gateway.ask(&self.valid.get("/lax/x")).status
    }
}

fn borrowed<'a>(pairs: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    pairs
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}
