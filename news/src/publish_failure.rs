//! Why publishing fails, and what is said of it.

use durward_contract::Sequence;

use crate::log::LogError;
use crate::publisher::{PublishFault, PublisherStatus};
use crate::rebuild::RebuildError;
use crate::store_error::{StoreError, StoreFault};

/// Why a step of publishing did not work.
pub(crate) enum Failure {
    Store(StoreError),
    Log(LogError),
    WentBack {
        redis: Sequence,
        sql: Sequence,
    },
    AnotherLog,
    /// Not a failure: what was known is out of date, and the next cycle learns it.
    Again,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<RebuildError> for Failure {
    fn from(error: RebuildError) -> Self {
        match error {
            RebuildError::Store(error) => Self::Store(error),
            RebuildError::Log(error) => Self::Log(error),
        }
    }
}

impl Failure {
    /// Notes it in the status, and in the log where it is news. `asked` is whether there was a
    /// connection, so that an error reply was one to what was to be published.
    pub(crate) fn note(self, asked: bool, status: &mut PublisherStatus) -> PublishFault {
        if let Self::Store(error) = &self
            && asked
            && error.fault.is_refusal()
        {
            status.refused_writes += 1;
        }
        let (fault, detail) = self.describe();
        if status.healthy || status.fault != Some(fault) {
            let fault = fault.as_str();
            tracing::error!(fault, detail, "news of revocations does not reach Redis");
        }
        status.healthy = false;
        status.fault = Some(fault);
        fault
    }

    /// Its kind, and what the log says of it.
    fn describe(self) -> (PublishFault, String) {
        match self {
            Self::Again => (
                PublishFault::Store(StoreFault::NotReady),
                "what Redis holds keeps changing: another replica builds it anew, or did not end".to_owned(),
            ),
            Self::Store(error) => (PublishFault::Store(error.fault), error.detail),
            Self::Log(error) => (PublishFault::Log, error.0),
            Self::WentBack { redis, sql } => (
                PublishFault::LogWentBack,
                format!(
                    "SQL's log ends at {}, and {} was published already: an older database was \
                     restored. Restore one that has these entries, or give the log a new id and \
                     restart every gateway",
                    sql.0, redis.0
                ),
            ),
            Self::AnotherLog => (
                PublishFault::AnotherLog,
                "the namespace holds the log of another database. It is replaced once that one is no \
                 longer published; if both are meant to run, give each its own `namespace`"
                    .to_owned(),
            ),
        }
    }
}
