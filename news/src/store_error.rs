//! What can go wrong with Redis. None of it is ever an answer.

use std::fmt;
use std::sync::Arc;

use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

/// A kind of failure: a closed set, fit for a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreFault {
    /// No connection, or it broke.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// The login was refused, or the user may not run a command.
    Login,
    /// It is no master, or nobody knows which is.
    NotMaster,
    /// It is still loading its data, or its cluster is not whole.
    NotReady,
    /// Its memory is full.
    Full,
    /// It takes no writes for now: it cannot save to its disk, or too few replicas follow it.
    NotWritable,
    /// It would drop entries when its memory is full, or one cannot know.
    Evicting,
    /// A key holds what none of us wrote there.
    Foreign,
    /// The bytes are no reply, or more than one is given.
    Garbage,
    /// Another error reply.
    Refused,
}

impl StoreFault {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Unreachable,
        Self::Timeout,
        Self::Login,
        Self::NotMaster,
        Self::NotReady,
        Self::Full,
        Self::NotWritable,
        Self::Evicting,
        Self::Foreign,
        Self::Garbage,
        Self::Refused,
    ];

    /// Its word in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Login => "login",
            Self::NotMaster => "not_master",
            Self::NotReady => "not_ready",
            Self::Full => "full",
            Self::NotWritable => "not_writable",
            Self::Evicting => "evicting",
            Self::Foreign => "foreign",
            Self::Garbage => "garbage",
            Self::Refused => "refused",
        }
    }

    /// Whether Redis answered, and what it said was no: an error reply to a command.
    pub(crate) fn is_refusal(self) -> bool {
        match self {
            Self::Login
            | Self::NotMaster
            | Self::NotReady
            | Self::Full
            | Self::NotWritable
            | Self::Foreign
            | Self::Refused => true,
            Self::Unreachable | Self::Timeout | Self::Evicting | Self::Garbage => false,
        }
    }
}

/// A failure and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    /// Its kind.
    pub fault: StoreFault,
    /// For the log: no secret, bounded in length.
    pub detail: String,
}

/// The longest detail; what a server sends is not trusted to be short.
const MAX_DETAIL_CHARS: usize = 200;

impl StoreError {
    /// A failure of this kind.
    pub(crate) fn new(fault: StoreFault, detail: impl fmt::Display) -> Self {
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let detail = detail
            .to_string()
            .chars()
            .take(MAX_DETAIL_CHARS)
            .map(printable)
            .collect();
        Self { fault, detail }
    }

    /// A reply of another shape than the command has.
    pub(crate) fn unexpected(what: &str) -> Self {
        Self::new(StoreFault::Garbage, format_args!("an unexpected reply to {what}"))
    }

    /// A command that did not answer in time.
    pub(crate) fn timeout(what: &str) -> Self {
        Self::new(StoreFault::Timeout, format_args!("no answer to {what} in time"))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.fault.as_str(), self.detail)
    }
}

impl std::error::Error for StoreError {}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        let fault = match error.kind() {
            std::io::ErrorKind::TimedOut => StoreFault::Timeout,
            std::io::ErrorKind::InvalidData => StoreFault::Garbage,
            _ => StoreFault::Unreachable,
        };
        Self::new(fault, error)
    }
}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        let fault = match error.kind() {
            _ if error.is_timeout() => StoreFault::Timeout,
            ErrorKind::Io if is_garbage(&error) => StoreFault::Garbage,
            ErrorKind::AuthenticationFailed => StoreFault::Login,
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => StoreFault::Garbage,
            ErrorKind::Server(kind) => server_fault(kind),
            ErrorKind::Extension => code_fault(error.code().unwrap_or_default()),
            _ => StoreFault::Unreachable,
        };
        Self::new(fault, error)
    }
}

/// Whether it is an error of [`crate::reply_limit`].
fn is_garbage(error: &RedisError) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>())
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .is_some_and(|source| source.kind() == std::io::ErrorKind::InvalidData)
}

fn server_fault(kind: ServerErrorKind) -> StoreFault {
    match kind {
        ServerErrorKind::ReadOnly | ServerErrorKind::Moved | ServerErrorKind::Ask => StoreFault::NotMaster,
        ServerErrorKind::BusyLoading
        | ServerErrorKind::MasterDown
        | ServerErrorKind::ClusterDown
        | ServerErrorKind::TryAgain => StoreFault::NotReady,
        ServerErrorKind::NoPerm => StoreFault::Login,
        _ => StoreFault::Refused,
    }
}

fn code_fault(code: &str) -> StoreFault {
    match code {
        "OOM" => StoreFault::Full,
        "NOAUTH" | "WRONGPASS" => StoreFault::Login,
        "WRONGTYPE" => StoreFault::Foreign,
        "MISCONF" | "NOREPLICAS" => StoreFault::NotWritable,
        "BUSY" => StoreFault::NotReady,
        _ => StoreFault::Refused,
    }
}

/// A reply, with every error in it turned into one.
pub(crate) fn answer(reply: Result<Value, RedisError>) -> Result<Value, StoreError> {
    Ok(reply?.extract_error()?)
}
