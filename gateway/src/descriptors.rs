//! How many files and sockets the process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What is not there for clients: listeners, logs, stores, checks.
const RESERVED: u64 = 256;
/// A connection of a client, and one to a server for its request.
const FOR_EACH_CLIENT: u64 = 2;
/// The most connections where the file does not say.
const DEFAULT_MOST: usize = 65_536;
/// The fewest: with less the edge would be of no use.
const FEWEST: usize = 64;

/// Raises the soft limit to the hard one, and gives what is in force then.
pub(crate) fn raise_limit() -> u64 {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => {
            tracing::warn!(%error, "the limit of descriptors cannot be read");
            return 1024;
        }
    };
    if soft >= hard {
        return soft;
    }
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::warn!(%error, soft, hard, "the limit of descriptors cannot be raised");
            soft
        }
    }
}

/// How many connections to take with so many descriptors; a warning goes to the log where the file asks
/// for more than there are descriptors for.
pub(crate) fn most_connections(asked: Option<usize>, descriptors: u64) -> usize {
    let room = descriptors.saturating_sub(RESERVED) / FOR_EACH_CLIENT;
    let room = usize::try_from(room).unwrap_or(usize::MAX).max(FEWEST);
    match asked {
        None => room.min(DEFAULT_MOST),
        Some(asked) => {
            if asked > room {
                let needed = (asked as u64) * FOR_EACH_CLIENT + RESERVED;
                tracing::warn!(
                    max_connections = asked,
                    descriptors,
                    needed,
                    "`max_connections` is more than there are descriptors for: raise the hard limit (LimitNOFILE)"
                );
            }
            asked
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_the_descriptors_unless_the_file_says_otherwise() {
        assert_eq!(most_connections(None, 20_256), 10_000);
        assert_eq!(most_connections(None, 1 << 30), DEFAULT_MOST);
        assert_eq!(most_connections(None, 256), FEWEST);
        assert_eq!(most_connections(Some(100_000), 1024), 100_000);
        assert_eq!(most_connections(Some(5), 1024), 5);
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let limit = raise_limit();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap().0, limit);
    }
}
