//! What a publisher does over one connection, and what it knows as long as that lasts.

use durward_contract::{Sequence, UnixSeconds};
use redis::cmd;
use tokio::time::Instant;

use crate::dial::Node;
use crate::protocol::{ATTEST, BEGIN, EpochKeys, FORGET, Keys, Meta, SWEEP, read};
use crate::publish_failure::Failure;
use crate::publisher::Shared;
use crate::random;
use crate::rebuild::Found;
use crate::roster;
use crate::store_error::{StoreError, StoreFault};
use crate::store_health;

/// How many entries are forgotten at a time, and how often in one cycle.
const FORGET_BATCH: u32 = 1000;
const FORGET_ROUNDS: usize = 20;

pub(crate) struct Session {
    pub node: Node,
    /// Of this connection: what an older one still has on its way is not ours.
    pub id: String,
    pub epoch: Option<EpochKeys>,
    /// What Redis has, in that epoch.
    pub head: Sequence,
    health: Result<(), StoreError>,
    checked: Option<Instant>,
    evicted: Option<u64>,
}

/// Where Redis is, as of a tick.
pub(crate) struct Begun {
    pub tick: u64,
    /// The tick that was attested last.
    pub attested: u64,
    /// SQL has had less than Redis.
    pub went_back: bool,
    pub found: Found,
    /// Nothing where it lacks a part.
    pub meta: Option<Meta>,
}

/// What came of an attestation.
pub(crate) enum Attested {
    Ok,
    /// Entries are missing, in what was found.
    Damaged(Found),
    /// What was known is out of date.
    Outdated,
}

impl Session {
    pub(crate) async fn connect(shared: &Shared) -> Result<Self, StoreError> {
        let node = shared.connector.connect_home(shared.options.timeouts).await?;
        Ok(Self {
            node,
            id: random::id(),
            epoch: None,
            head: Sequence(0),
            health: Ok(()),
            checked: None,
            evicted: None,
        })
    }

    /// Asks now and then whether Redis keeps what it is given, and says how many keys it has evicted
    /// since it was last asked. News is published to one that may evict, but not attested.
    pub(crate) async fn check_health(&mut self, shared: &Shared) -> Result<u64, StoreError> {
        let every = shared.options.health_check;
        if self.health.is_ok() && self.checked.is_some_and(|last| last.elapsed() < every) {
            return Ok(0);
        }
        self.checked = Some(Instant::now());
        match store_health::ask(&mut self.node).await {
            Ok(health) => {
                self.health = Ok(());
                let before = self.evicted.replace(health.evicted).unwrap_or(health.evicted);
                Ok(health.evicted.saturating_sub(before))
            }
            Err(error) if error.fault == StoreFault::Evicting => {
                self.health = Err(error);
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Begins a tick: what is read from SQL from now on may be attested with it.
    pub(crate) async fn begin(&mut self, keys: &Keys) -> Result<Begun, StoreError> {
        type Reply = (
            u64,
            u64,
            Option<String>,
            Option<String>,
            Option<String>,
            Option<String>,
        );
        let (tick, attested, epoch, log, head, went_back): Reply = BEGIN
            .run(
                &mut self.node,
                &[&keys.meta, &keys.pulse],
                std::slice::from_ref(&self.id),
            )
            .await?;
        Ok(Begun {
            tick,
            attested,
            went_back: went_back.is_some(),
            found: Found {
                epoch: epoch.clone().unwrap_or_default(),
                head: head.clone().unwrap_or_default(),
            },
            meta: Meta::read(epoch, log, head.as_deref()),
        })
    }

    /// What `meta` holds now.
    pub(crate) async fn find(&mut self, keys: &Keys) -> Result<(Found, Option<Meta>), StoreError> {
        let mut command = cmd("HMGET");
        command.arg(&keys.meta).arg(&["epoch", "log", "head"]);
        let (epoch, log, head): (Option<String>, Option<String>, Option<String>) =
            read(self.node.ask(&command).await?)?;
        let found = Found {
            epoch: epoch.clone().unwrap_or_default(),
            head: head.clone().unwrap_or_default(),
        };
        Ok((found, Meta::read(epoch, log, head.as_deref())))
    }

    /// Says that all up to `head` is here, read from SQL after `tick` had begun.
    pub(crate) async fn attest(
        &mut self,
        keys: &Keys,
        tick: u64,
        head: Sequence,
    ) -> Result<Attested, Failure> {
        self.health.clone()?;
        let Some(epoch) = &self.epoch else {
            return Ok(Attested::Outdated);
        };
        let word: String = ATTEST
            .run(
                &mut self.node,
                &[&keys.meta, &keys.pulse, &epoch.entries],
                &[
                    self.id.clone(),
                    tick.to_string(),
                    epoch.epoch.clone(),
                    head.0.to_string(),
                ],
            )
            .await?;
        Ok(match word.as_str() {
            "ok" => Attested::Ok,
            "damaged" => Attested::Damaged(Found {
                epoch: epoch.epoch.clone(),
                head: self.head.0.to_string(),
            }),
            _ => Attested::Outdated,
        })
    }

    /// Hears which gateways there are, and ages those that are silent.
    pub(crate) async fn hear_gateways(&mut self, shared: &Shared) -> Result<(), StoreError> {
        let reports = roster::ask(&mut self.node, &shared.keys).await?;
        shared.roster.lock().hear_in_cycle(&reports);
        Ok(())
    }

    /// Takes out what may be forgotten, and who is gone.
    pub(crate) async fn forget(&mut self, keys: &Keys, until: UnixSeconds) -> Result<(), StoreError> {
        let Some(epoch) = &self.epoch else {
            return Ok(());
        };
        let arguments = [epoch.epoch.clone(), until.0.to_string(), FORGET_BATCH.to_string()];
        for _ in 0..FORGET_ROUNDS {
            let entry_keys = [keys.meta.as_str(), epoch.entries.as_str(), epoch.expiry.as_str()];
            let gone: u32 = FORGET.run(&mut self.node, &entry_keys, &arguments).await?;
            if gone < FORGET_BATCH {
                break;
            }
        }
        let gone_after = roster::GONE_AFTER_TICKS.to_string();
        let _: i64 = SWEEP
            .run(&mut self.node, &[&keys.pulse, &keys.gateways], &[gone_after])
            .await?;
        Ok(())
    }
}
