//! The keys, and the scripts that are the only way in which this crate writes to them.

use std::sync::LazyLock;

use durward_contract::{News, Sequence, wire};
use redis::{FromRedisValue, ServerErrorKind, Value, cmd, from_redis_value};

use crate::dial::Ask;
use crate::store_error::{StoreError, StoreFault, answer};

/// The most entries of a batch, and their size. One entry always fits.
pub(crate) const BATCH_ENTRIES: u32 = 512;
pub(crate) const BATCH_BYTES: usize = 256 << 10;

/// The keys of one namespace. They share a hash tag, so a cluster keeps them on one node.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    tag: String,
    pub meta: String,
    pub pulse: String,
    pub gateways: String,
    pub loads: String,
    pub lock: String,
}

/// The keys of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EpochKeys {
    pub epoch: String,
    pub entries: String,
    pub expiry: String,
    pub stream: String,
}

impl Keys {
    pub(crate) fn new(namespace: &str) -> Self {
        let tag = format!("{{{namespace}}}");
        Self {
            meta: format!("{tag}:meta"),
            pulse: format!("{tag}:pulse"),
            gateways: format!("{tag}:gateways"),
            loads: format!("{tag}:loads"),
            lock: format!("{tag}:rebuild"),
            tag,
        }
    }

    pub(crate) fn epoch(&self, epoch: &str) -> EpochKeys {
        EpochKeys {
            epoch: epoch.to_owned(),
            entries: format!("{}:{epoch}:entries", self.tag),
            expiry: format!("{}:{epoch}:expiry", self.tag),
            stream: format!("{}:{epoch}:stream", self.tag),
        }
    }
}

/// A script, called by its hash and sent where Redis does not have it yet.
pub(crate) struct Script {
    code: &'static str,
    hash: String,
}

macro_rules! script {
    ($name:ident, $($file:literal),+) => {
        pub(crate) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!($(include_str!($file)),+)));
    };
}

script!(PUBLISH, "lua/put.lua", "lua/publish.lua");
script!(BUILD, "lua/put.lua", "lua/build.lua");
script!(FLIP, "lua/flip.lua");
script!(BEGIN, "lua/begin.lua");
script!(ATTEST, "lua/attest.lua");
script!(PULSE, "lua/pulse.lua");
script!(LEAVE, "lua/leave.lua");
script!(PLACE, "lua/place.lua");
script!(CHECK, "lua/check.lua");
script!(FORGET, "lua/forget.lua");
script!(SWEEP, "lua/sweep.lua");

impl Script {
    fn new(code: &'static str) -> Self {
        let hash = redis::Script::new(code).get_hash().to_owned();
        Self { code, hash }
    }

    /// Runs it and reads its reply.
    pub(crate) async fn run<T: FromRedisValue>(
        &self,
        node: &mut impl Ask,
        keys: &[&str],
        arguments: &[String],
    ) -> Result<T, StoreError> {
        let call = |name: &str, code: &str| {
            let mut command = cmd(name);
            command.arg(code).arg(keys.len()).arg(keys).arg(arguments);
            command
        };
        let known = node.tell(&call("EVALSHA", &self.hash)).await?;
        let reply = match &known {
            Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript) => {
                node.ask(&call("EVAL", self.code)).await?
            }
            _ => answer(Ok(known))?,
        };
        read(reply)
    }
}

/// Reads a reply; another shape is garbage.
pub(crate) fn read<T: FromRedisValue>(reply: Value) -> Result<T, StoreError> {
    from_redis_value(reply).map_err(|error| StoreError::new(StoreFault::Garbage, error))
}

/// What `meta` says; nothing where it does not say all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub epoch: String,
    pub log: String,
    pub head: Sequence,
}

impl Meta {
    pub(crate) fn read(epoch: Option<String>, log: Option<String>, head: Option<&str>) -> Option<Self> {
        Some(Self {
            epoch: epoch.filter(|epoch| !epoch.is_empty())?,
            log: log?,
            head: Sequence(head?.parse().ok()?),
        })
    }
}

/// Appends entries to a script's arguments until a batch is full, cuts them off `rest`, and gives the
/// number of the last.
pub(crate) fn push_batch(arguments: &mut Vec<String>, rest: &mut &[News]) -> Option<Sequence> {
    let mut size = 0;
    let mut last = None;
    let mut taken = 0;
    for news in rest.iter().take(BATCH_ENTRIES as usize) {
        let text = wire::encode(news);
        size += text.len();
        if taken > 0 && size > BATCH_BYTES {
            break;
        }
        arguments.push(wire::slot(news));
        arguments.push(text);
        arguments.push(wire::ended_grant(news).unwrap_or_default());
        arguments.push(news.forget_at().map(|at| at.0.to_string()).unwrap_or_default());
        last = Some(news.sequence());
        taken += 1;
    }
    *rest = &rest[taken..];
    last
}

/// How many arguments an entry is.
#[cfg(test)]
pub(crate) const ENTRY_ARGUMENTS: usize = 4;

/// What a gateway says of itself: the tick that the script puts before it, the log, what it applied,
/// its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// Nothing before it has loaded.
    pub log: Option<String>,
    pub applied: Sequence,
    pub name: String,
}

impl Report {
    /// What stands in a report's place, after the tick, once its gateway has stopped in order.
    pub(crate) const LEFT: &str = "left";

    pub(crate) fn to_text(&self) -> String {
        let log = self.log.as_deref().unwrap_or("-");
        format!("{log} {} {}", self.applied.0, self.name)
    }

    /// Reads what the script stored, tick and all.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut words = text.splitn(4, ' ').skip(1);
        let log = words.next()?;
        let applied = Sequence(words.next()?.parse().ok()?);
        let name = words.next()?.to_owned();
        let log = (log != "-").then(|| log.to_owned());
        Some(Self { log, applied, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_share_a_hash_tag() {
        let keys = Keys::new("prod:eu");
        let epoch = keys.epoch("e1");
        for key in [
            &keys.meta,
            &keys.pulse,
            &keys.gateways,
            &keys.loads,
            &keys.lock,
            &epoch.entries,
            &epoch.expiry,
            &epoch.stream,
        ] {
            assert!(key.starts_with("{prod:eu}:"), "{key}");
        }
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        for log in [None, Some("l1".to_owned())] {
            let report = Report {
                log,
                applied: Sequence(7),
                name: "edge 1".into(),
            };
            assert_eq!(Report::read(&format!("12 {}", report.to_text())), Some(report));
        }
        assert_eq!(Report::read("12 l1 x edge"), None);
        assert_eq!(Report::read(&format!("12 {}", Report::LEFT)), None);
        assert_eq!(Report::read(""), None);
    }

    #[test]
    fn meta_that_lacks_a_part_is_none() {
        let meta = |epoch: &str, head: &str| Meta::read(Some(epoch.into()), Some("l".into()), Some(head));
        assert!(meta("e", "1").is_some());
        assert_eq!(meta("", "1"), None);
        assert_eq!(meta("e", "-1"), None);
        assert_eq!(Meta::read(Some("e".into()), None, Some("1")), None);
    }
}
