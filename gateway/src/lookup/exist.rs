//! The one question of lookup mode: which of these keys the store has.

use durward_news::Connection;
use durward_policy::Lookup;
use redis::Value;
use redis::aio::ConnectionLike;

use crate::store_connection::{Probe, said};

/// Asks for keys as requests will.
pub(super) struct ListProbe {
    /// One for each template: whether this user may ask for such keys is known before a request is.
    keys: Vec<String>,
}

impl ListProbe {
    pub(super) fn new(lookup: &Lookup) -> Self {
        Self {
            keys: lookup.probe_keys(),
        }
    }
}

impl Probe for ListProbe {
    async fn probe(&self, connection: Connection) -> Result<(), String> {
        exist(connection, self.keys.iter().map(String::as_str))
            .await
            .map(drop)
    }
}

/// For each key, whether the store has it, by one command a key in one write. What is not exactly
/// that is an error.
pub(super) async fn exist(
    mut connection: Connection,
    keys: impl ExactSizeIterator<Item = &str>,
) -> Result<Vec<bool>, String> {
    let count = keys.len();
    let mut pipeline = redis::Pipeline::with_capacity(count);
    for key in keys {
        pipeline.cmd("EXISTS").arg(key);
    }
    let replies = connection
        .req_packed_commands(&pipeline, 0, count)
        .await
        .map_err(said)?;
    if replies.len() != count {
        return Err(format!("{} replies to {count} commands", replies.len()));
    }
    replies
        .iter()
        .map(|reply| match reply {
            Value::Int(0) => Ok(false),
            Value::Int(1) => Ok(true),
            Value::ServerError(error) => Err(said(error.clone().into())),
            _ => Err("the reply to EXISTS is neither 0 nor 1".to_owned()),
        })
        .collect()
}
