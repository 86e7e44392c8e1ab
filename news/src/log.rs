//! The log as SQL has it: the truth that is published.

use async_trait::async_trait;
use durward_contract::{News, Sequence, UnixSeconds};

/// Which log, and how far it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogHead {
    /// The log's random id: another database has another.
    pub log: String,
    /// Its last entry's number.
    pub head: Sequence,
}

/// Why the log cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LogError(pub String);

/// The log of one database: contiguous numbers from 1, in the order of commits. Each call reads what
/// is committed when it is made, never from a copy that lags.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Its id and head.
    async fn head(&self) -> Result<LogHead, LogError>;

    /// The entries after `sequence`, in order, at most `limit`. Those that were forgotten may be
    /// missing; fewer than `limit` means that there are no more.
    async fn after(&self, sequence: Sequence, limit: u32) -> Result<Vec<News>, LogError>;

    /// The same without those that may be forgotten now.
    async fn standing(&self, after: Sequence, limit: u32) -> Result<Vec<News>, LogError>;

    /// What ends by this instant may be forgotten now.
    fn forgets_until(&self) -> UnixSeconds;
}
