//! Exit codes that scripts can trust, and errors that carry one.

use std::fmt;
use std::process::ExitCode;

/// How a command ended badly.
#[derive(Debug)]
pub enum Failure {
    /// 1: the answer is no (a file with errors, a refused request, an unknown user).
    No(String),
    /// 2: the arguments make no sense. (clap uses 2 as well.)
    Usage(String),
    /// 3: the running service could not be asked.
    Unreachable(String),
    /// 4: something else failed (a port that is taken, a store that cannot be opened).
    Failed(String),
}

impl Failure {
    /// A failure of the fourth kind from any error.
    pub fn failed(error: impl fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// The exit code.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::No(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Failed(_) => 4,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No(text) | Self::Usage(text) | Self::Unreachable(text) | Self::Failed(text) => {
                f.write_str(text)
            }
        }
    }
}
