//! A cluster: which node has a key, and one connection to each node that is asked.
//!
//! Our own keys share one hash tag and so one node; only lookups of foreign keys go to several.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::aio::ConnectionLike;
use redis::{Arg, Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Value, cmd};

use crate::connection::{Connector, Timeouts};
use crate::dial::Node;
use crate::store_error::{StoreError, StoreFault};
use crate::store_url::Endpoint;

/// A cluster's number of slots.
const SLOTS: u16 = 16_384;
/// The most ranges of slots that are read.
const MAX_RANGES: usize = 16_384;

/// Connections to the nodes of a cluster. Clones share them.
#[derive(Clone)]
pub(crate) struct Cluster(Arc<Shared>);

struct Shared {
    connector: Connector,
    timeouts: Timeouts,
    home: u16,
    routes: Mutex<Routes>,
}

#[derive(Default)]
struct Routes {
    ranges: Vec<SlotRange>,
    /// As many as the ranges name.
    nodes: HashMap<Endpoint, Node>,
}

/// Slots and the master that has them.
#[derive(Debug, PartialEq, Eq)]
struct SlotRange {
    first: u16,
    last: u16,
    master: Endpoint,
}

/// The master that has the namespace's own keys.
pub(crate) async fn home_of(connector: &Connector, timeouts: Timeouts) -> Result<Endpoint, StoreError> {
    let ranges = ask_for_ranges(connector, timeouts).await?;
    master_of(&ranges, home_slot(connector)).ok_or_else(uncovered)
}

impl Cluster {
    pub(crate) async fn connect(connector: Connector, timeouts: Timeouts) -> Result<Self, StoreError> {
        let home = home_slot(&connector);
        let cluster = Self(Arc::new(Shared {
            connector,
            timeouts,
            home,
            routes: Mutex::default(),
        }));
        cluster.refresh().await?;
        cluster.node(home).await?;
        Ok(cluster)
    }

    pub(crate) async fn command(&self, command: &Cmd) -> RedisResult<Value> {
        let slot = self.slot_of(command);
        let reply = self.command_to(slot, command).await;
        if !moved(&reply) {
            return reply;
        }
        self.refresh().await.map_err(as_redis)?;
        self.command_to(slot, command).await
    }

    /// Commands of one pipeline go to their nodes side by side; a transaction goes whole to the node
    /// of its first key.
    pub(crate) async fn commands(
        &self,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let slots: Vec<u16> = pipeline.cmd_iter().map(|command| self.slot_of(command)).collect();
        let first = slots.first().copied().unwrap_or(self.0.home);
        if pipeline.is_transaction() || slots.iter().all(|slot| *slot == first) {
            let mut node = self.node(first).await.map_err(as_redis)?;
            let replies = node.connection.req_packed_commands(pipeline, offset, count).await;
            return self.watched(first, replies).await;
        }
        let mut groups: HashMap<u16, (Vec<usize>, Pipeline)> = HashMap::new();
        for (index, command) in pipeline.cmd_iter().enumerate() {
            let (indices, group) = groups.entry(slots[index]).or_default();
            indices.push(index);
            group.add_command(command.clone());
        }
        let answers = join_all(groups.iter().map(|(slot, (indices, group))| async move {
            let mut node = self.node(*slot).await.map_err(as_redis)?;
            let replies = node.connection.req_packed_commands(group, 0, indices.len()).await;
            RedisResult::Ok((indices, self.watched(*slot, replies).await?))
        }));
        let mut replies = vec![Value::Nil; slots.len()];
        for answer in answers.await {
            let (indices, values) = answer?;
            if values.len() != indices.len() {
                return Err((ErrorKind::Parse, "another number of replies than of commands").into());
            }
            for (index, value) in indices.iter().zip(values) {
                replies[*index] = value;
            }
        }
        Ok(replies)
    }

    async fn command_to(&self, slot: u16, command: &Cmd) -> RedisResult<Value> {
        let mut node = self.node(slot).await.map_err(as_redis)?;
        let reply = node.connection.req_packed_command(command).await;
        if reply.is_err() {
            self.forget(slot);
        }
        reply
    }

    /// Replies that say that slots moved make the next command ask anew; these stay errors.
    async fn watched(&self, slot: u16, replies: RedisResult<Vec<Value>>) -> RedisResult<Vec<Value>> {
        match &replies {
            Err(_) => self.forget(slot),
            Ok(values) if values.iter().any(is_moved) => self.refresh().await.map_err(as_redis)?,
            Ok(_) => {}
        }
        replies
    }

    /// The node of a slot. Two that dial at once both connect, and the later connection is kept.
    async fn node(&self, slot: u16) -> Result<Node, StoreError> {
        let master = {
            let routes = self.0.routes.lock();
            let master = master_of(&routes.ranges, slot).ok_or_else(uncovered)?;
            if let Some(node) = routes.nodes.get(&master) {
                return Ok(node.clone());
            }
            master
        };
        match self.0.connector.dial(&master, self.0.timeouts).await {
            Ok(node) => {
                self.0.routes.lock().nodes.insert(master, node.clone());
                Ok(node)
            }
            Err(error) => {
                // Its replica may have taken over; the next command knows.
                drop(self.refresh().await);
                Err(error)
            }
        }
    }

    fn forget(&self, slot: u16) {
        let mut routes = self.0.routes.lock();
        if let Some(master) = master_of(&routes.ranges, slot) {
            routes.nodes.remove(&master);
        }
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        let ranges = ask_for_ranges(&self.0.connector, self.0.timeouts).await?;
        let mut routes = self.0.routes.lock();
        routes
            .nodes
            .retain(|endpoint, _| ranges.iter().any(|range| range.master == *endpoint));
        routes.ranges = ranges;
        Ok(())
    }

    fn slot_of(&self, command: &Cmd) -> u16 {
        first_key(command).map_or(self.0.home, slot)
    }
}

async fn ask_for_ranges(connector: &Connector, timeouts: Timeouts) -> Result<Vec<SlotRange>, StoreError> {
    let seeds = connector.seeds();
    let mut last = StoreError::new(StoreFault::NotMaster, "there is no cluster");
    let start = connector.answered().load(Ordering::Relaxed);
    for step in 0..seeds.len() {
        let index = (start + step) % seeds.len();
        match ask_seed(connector, &seeds[index], timeouts).await {
            Ok(ranges) => {
                connector.answered().store(index, Ordering::Relaxed);
                return Ok(ranges);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn ask_seed(
    connector: &Connector,
    seed: &Endpoint,
    timeouts: Timeouts,
) -> Result<Vec<SlotRange>, StoreError> {
    let mut node = connector.dial(seed, timeouts).await?;
    let mut command = cmd("CLUSTER");
    command.arg("SLOTS");
    read_ranges(&node.ask(&command).await?, seed).ok_or_else(|| StoreError::unexpected("CLUSTER SLOTS"))
}

/// `[[first, last, [host, port, ..], ..], ..]`; a node that does not know its own name sends none.
fn read_ranges(reply: &Value, seed: &Endpoint) -> Option<Vec<SlotRange>> {
    let Value::Array(rows) = reply else { return None };
    let read = |row: &Value| {
        let Value::Array(parts) = row else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = parts.as_slice() else {
            return None;
        };
        let [host, Value::Int(port), ..] = master.as_slice() else {
            return None;
        };
        let host = match host {
            Value::BulkString(host) if !host.is_empty() => std::str::from_utf8(host).ok()?.to_owned(),
            Value::BulkString(_) | Value::Nil => seed.host.clone(),
            _ => return None,
        };
        let port = u16::try_from(*port).ok()?;
        Some(SlotRange {
            first: u16::try_from(*first).ok()?,
            last: u16::try_from(*last).ok().filter(|last| *last < SLOTS)?,
            master: Endpoint { host, port },
        })
    };
    rows.iter().take(MAX_RANGES).map(read).collect()
}

fn master_of(ranges: &[SlotRange], slot: u16) -> Option<Endpoint> {
    ranges
        .iter()
        .find(|range| (range.first..=range.last).contains(&slot))
        .map(|range| range.master.clone())
}

fn home_slot(connector: &Connector) -> u16 {
    slot(connector.namespace().as_bytes())
}

/// The first key of a command, for those commands that are used here.
fn first_key(command: &Cmd) -> Option<&[u8]> {
    let words: Vec<&[u8]> = command
        .args_iter()
        .map(|argument| match argument {
            Arg::Simple(bytes) => bytes,
            Arg::Cursor => b"0",
            _ => b"",
        })
        .take(8)
        .collect();
    let name = words.first()?.to_ascii_uppercase();
    match name.as_slice() {
        b"EVAL" | b"EVALSHA" | b"EVAL_RO" | b"EVALSHA_RO" | b"FCALL" | b"FCALL_RO" => words.get(3).copied(),
        b"XREAD" => {
            let streams = words
                .iter()
                .position(|word| word.eq_ignore_ascii_case(b"STREAMS"))?;
            words.get(streams + 1).copied()
        }
        b"PING" | b"ECHO" | b"INFO" | b"CONFIG" | b"ROLE" | b"SCRIPT" | b"CLIENT" | b"CLUSTER"
        | b"COMMAND" | b"TIME" => None,
        _ => words.get(1).copied(),
    }
}

/// The slot of a key: CRC-16/XMODEM of the hash tag, or of the whole key without one.
fn slot(key: &[u8]) -> u16 {
    let tag = key
        .iter()
        .position(|byte| *byte == b'{')
        .and_then(|open| {
            let rest = &key[open + 1..];
            let close = rest.iter().position(|byte| *byte == b'}')?;
            (close > 0).then(|| &rest[..close])
        })
        .unwrap_or(key);
    crc16(tag) % SLOTS
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                crc << 1 ^ 0x1021
            }
        })
    })
}

fn moved(reply: &RedisResult<Value>) -> bool {
    reply.as_ref().is_ok_and(is_moved)
}

fn is_moved(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.code() == "MOVED")
}

fn uncovered() -> StoreError {
    StoreError::new(StoreFault::NotReady, "the cluster does not cover a slot")
}

fn as_redis(error: StoreError) -> RedisError {
    let kind = match error.fault {
        StoreFault::Login => ErrorKind::AuthenticationFailed,
        StoreFault::Garbage => ErrorKind::Parse,
        _ => ErrorKind::Io,
    };
    (kind, "the cluster", error.detail).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot(b"foo{{bar}}zap"), slot(b"{bar"));
        assert_eq!(slot(b"foo"), 12182);
    }

    #[test]
    fn commands_are_routed_by_their_first_key() {
        let key = |words: &[&str]| {
            let mut command = Cmd::new();
            for word in words {
                command.arg(*word);
            }
            first_key(&command).map(<[u8]>::to_vec)
        };
        assert_eq!(key(&["GET", "a"]), Some(b"a".to_vec()));
        assert_eq!(key(&["evalsha", "h", "1", "a"]), Some(b"a".to_vec()));
        let read = ["XREAD", "COUNT", "1", "BLOCK", "0", "STREAMS", "s", "0-0"];
        assert_eq!(key(&read), Some(b"s".to_vec()));
        assert_eq!(key(&["INFO", "memory"]), None);
    }

    #[test]
    fn ranges_are_read_and_a_node_without_a_name_is_the_one_asked() {
        let seed = Endpoint {
            host: "seed".into(),
            port: 1,
        };
        let node = |host: Value| Value::Array(vec![host, Value::Int(7000), Value::Nil]);
        let row = |first, last, host| Value::Array(vec![Value::Int(first), Value::Int(last), node(host)]);
        let reply = Value::Array(vec![
            row(0, 8191, Value::BulkString(b"a".to_vec())),
            row(8192, 16383, Value::BulkString(Vec::new())),
        ]);
        let ranges = read_ranges(&reply, &seed).unwrap();
        assert_eq!(master_of(&ranges, 8191).unwrap().host, "a");
        assert_eq!(master_of(&ranges, 8192).unwrap().host, "seed");
        assert_eq!(master_of(&ranges[..1], 8192), None);
        assert_eq!(
            read_ranges(&Value::Array(vec![row(0, 16384, Value::Nil)]), &seed),
            None
        );
        assert_eq!(read_ranges(&Value::Okay, &seed), None);
    }
}
