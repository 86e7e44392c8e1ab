//! Loading all that an epoch holds.

use durward_contract::{Follower, News, Sequence, wire};

use crate::entry_scan::EntryScan;
use crate::protocol::{CHECK, EpochKeys, Keys};
use crate::store_error::{StoreError, StoreFault};

/// How many entries the follower is handed at a time.
const PIECE: usize = 512;

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

/// Replaces all that the follower knows, or adds to it where that must not be forgotten, unless what is
/// there is less than `at_least`, or not whole. Where it fails, nothing is forgotten.
pub(crate) async fn load(
    scan: &mut EntryScan,
    keys: &Keys,
    epoch: &EpochKeys,
    follower: &dyn Follower,
    at_least: Sequence,
    known: Known,
) -> Result<Snapshot, StoreError> {
    let (log, head) = check(scan, keys, epoch).await?;
    if head < at_least {
        return Err(StoreError::new(
            StoreFault::NotReady,
            "Redis has less than was applied",
        ));
    }
    let mut loading = follower.begin_load();
    let unreadable = read_all(scan, epoch, |news| loading.add(news)).await?;
    // What was scanned is whole only if nothing took the keys away meanwhile.
    let (_, now) = check(scan, keys, epoch).await?;
    if now < head {
        return Err(StoreError::new(StoreFault::NotReady, "the head went back"));
    }
    if known == Known::Kept || (known == Known::Replaceable && unreadable > 0) {
        // What cannot be read may be what is known: it is added to, and nothing is forgotten.
        drop(loading);
        read_all(scan, epoch, |news| follower.apply(news, head)).await?;
    } else {
        loading.finish(head);
    }
    Ok(Snapshot {
        log,
        head,
        unreadable,
    })
}

/// Hands over all entries in pieces, and says how many could not be read.
async fn read_all(
    scan: &mut EntryScan,
    epoch: &EpochKeys,
    mut take: impl FnMut(&[News]),
) -> Result<usize, StoreError> {
    let mut unreadable = 0;
    let mut news = Vec::with_capacity(PIECE);
    let each = |text: &[u8]| {
        match wire::decode(text) {
            Ok(entry) => news.push(entry),
            Err(_) => unreadable += 1,
        }
        if news.len() == PIECE {
            take(&news);
            news.clear();
        }
    };
    scan.values(&epoch.entries, each).await?;
    take(&news);
    Ok(unreadable)
}

/// The log and the head, if the epoch is current and whole.
async fn check(
    scan: &mut EntryScan,
    keys: &Keys,
    epoch: &EpochKeys,
) -> Result<(String, Sequence), StoreError> {
    type Checked = (Option<String>, Option<String>, Option<u64>, Option<u64>, u64);
    let (current, log, head, count, there): Checked =
        CHECK.run(scan, &[&keys.meta, &epoch.entries], &[]).await?;
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
