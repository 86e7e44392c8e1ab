//! Loading all that an epoch holds.

use durward_contract::{Follower, News, Sequence, wire};
use redis::{Value, cmd};

use crate::dial::Node;
use crate::protocol::{CHECK, EpochKeys, Keys};
use crate::store_error::{StoreError, StoreFault};

/// About how many entries are read at a time: at their longest they stay within a reply's bound.
const PAGE: usize = 500;

/// What was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub log: String,
    pub head: Sequence,
    /// How many entries could not be read.
    pub unreadable: usize,
}

/// What the follower knows beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing.
    Nothing,
    /// What the snapshot may replace, if all of it can be read.
    Replaceable,
    /// What must not be forgotten for it.
    Kept,
}

/// Replaces all that the follower knows, or adds to it where that must not be forgotten, unless what is there is less than `at_least`, or not whole.
/// Where it fails, nothing has changed.
pub(crate) async fn load(
    node: &mut Node,
    keys: &Keys,
    epoch: &EpochKeys,
    follower: &dyn Follower,
    at_least: Sequence,
    known: Known,
) -> Result<Snapshot, StoreError> {
    let (log, head) = check(node, keys, epoch).await?;
    if head < at_least {
        return Err(StoreError::new(
            StoreFault::NotReady,
            "Redis has less than was applied",
        ));
    }
    let mut loading = follower.begin_load();
    let mut unreadable = 0;
    let mut page = scan(node, epoch, b"0").await?;
    loop {
        let (cursor, items) = page;
        let mut add = || {
            let (news, failed) = read_entries(&items);
            loading.add(&news);
            unreadable += failed;
        };
        if cursor == b"0" {
            add();
            break;
        }
        // The next page is on its way while this one is read.
        let (next, ()) = tokio::join!(scan(node, epoch, &cursor), async { add() });
        page = next?;
    }
    // What was scanned is whole only if nothing took the keys away meanwhile.
    let (_, now) = check(node, keys, epoch).await?;
    if now < head {
        return Err(StoreError::new(StoreFault::NotReady, "the head went back"));
    }
    if known == Known::Kept || (known == Known::Replaceable && unreadable > 0) {
        // What cannot be read may be what is known: it is added to, and nothing is forgotten.
        drop(loading);
        add_all(node, epoch, follower, head).await?;
    } else {
        loading.finish(head);
    }
    Ok(Snapshot {
        log,
        head,
        unreadable,
    })
}

/// Adds all that can be read to what the follower knows.
async fn add_all(
    node: &mut Node,
    epoch: &EpochKeys,
    follower: &dyn Follower,
    head: Sequence,
) -> Result<(), StoreError> {
    let mut cursor = b"0".to_vec();
    loop {
        let (next, items) = scan(node, epoch, &cursor).await?;
        let (news, _) = read_entries(&items);
        follower.apply(&news, head);
        if next == b"0" {
            return Ok(());
        }
        cursor = next;
    }
}

/// The log and the head, if the epoch is current and whole.
async fn check(node: &mut Node, keys: &Keys, epoch: &EpochKeys) -> Result<(String, Sequence), StoreError> {
    type Checked = (Option<String>, Option<String>, Option<u64>, Option<u64>, u64);
    let (current, log, head, count, there): Checked =
        CHECK.run(node, &[&keys.meta, &epoch.entries], &[]).await?;
    match (log, head, count) {
        (Some(log), Some(head), Some(count))
            if current.as_deref() == Some(&epoch.epoch) && count == there =>
        {
            Ok((log, Sequence(head)))
        }
        _ => Err(StoreError::new(
            StoreFault::NotReady,
            "what Redis holds is not whole, and waits for a publisher",
        )),
    }
}

/// The next cursor, and fields and values in turn.
async fn scan(
    node: &mut Node,
    epoch: &EpochKeys,
    cursor: &[u8],
) -> Result<(Vec<u8>, Vec<Value>), StoreError> {
    let mut command = cmd("HSCAN");
    command.arg(&epoch.entries).arg(cursor).arg("COUNT").arg(PAGE);
    let Value::Array(parts) = node.ask(&command).await? else {
        return Err(StoreError::unexpected("HSCAN"));
    };
    match <[Value; 2]>::try_from(parts) {
        Ok([Value::BulkString(cursor), Value::Array(items)]) => Ok((cursor, items)),
        _ => Err(StoreError::unexpected("HSCAN")),
    }
}

fn read_entries(items: &[Value]) -> (Vec<News>, usize) {
    let mut news = Vec::with_capacity(items.len() / 2);
    let mut unreadable = 0;
    for value in items.iter().skip(1).step_by(2) {
        let decoded = match value {
            Value::BulkString(bytes) => wire::decode(bytes).ok(),
            _ => None,
        };
        match decoded {
            Some(entry) => news.push(entry),
            None => unreadable += 1,
        }
    }
    (news, unreadable)
}
