//! What clients may take of the edge, whatever they ask for: connections, time, failures.

use std::ops::RangeInclusive;
use std::time::Duration;

use durward_config::{Diagnostics, Node, Section, Value};
use durward_policy::{Quota, Rate};

use crate::config::duration;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DEFAULT_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// So generous that whoever shares an address hardly meets it, and far below what verifying forged
/// signatures would cost.
const DEFAULT_FAILURE_LIMIT: Quota = Quota::new(Rate::new(10, SECOND), 500);
/// Enough to see what goes on, and no more than some 10 GB a day.
const DEFAULT_REFUSED_LOG_LIMIT: Quota = Quota::new(Rate::new(200, SECOND), 2000);
const CONNECTIONS: RangeInclusive<i64> = 1..=10_000_000;

/// The top-level keys of these limits.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientLimitNodes<'a> {
    /// `max_connections`: of the whole edge.
    pub max_connections: Option<&'a Node>,
    /// `max_connections_per_address`.
    pub max_connections_per_address: Option<&'a Node>,
    /// `keepalive_timeout`: how long a connection may lie unused.
    pub keepalive_timeout: Option<&'a Node>,
    /// `send_timeout`: for a client to take a piece of a response.
    pub send_timeout: Option<&'a Node>,
    /// `failure_limit`: credentials of an address that may fail.
    pub failure_limit: Option<&'a Node>,
    /// `refused_log_limit`: access log lines of refused requests.
    pub refused_log_limit: Option<&'a Node>,
}

impl<'a> ClientLimitNodes<'a> {
    pub(crate) fn take(section: &mut Section<'a>) -> Self {
        Self {
            max_connections: section.optional("max_connections"),
            max_connections_per_address: section.optional("max_connections_per_address"),
            keepalive_timeout: section.optional("keepalive_timeout"),
            send_timeout: section.optional("send_timeout"),
            failure_limit: section.optional("failure_limit"),
            refused_log_limit: section.optional("refused_log_limit"),
        }
    }
}

/// These limits, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Connections at the same time, WebSockets included; as many as the process has descriptors for
    /// where the file does not say.
    pub max_connections: Option<usize>,
    /// The same for one address, or one /64 of IPv6; without a limit where the file does not say.
    pub max_connections_per_address: Option<usize>,
    /// How long a connection may lie unused between two requests.
    pub keepalive_timeout: Duration,
    /// For a client to take a piece of a response.
    pub send_timeout: Duration,
    /// Credentials of an address that may fail; without a limit where the file says `none`.
    pub failures: Option<Quota>,
    /// Access log lines of refused requests; without a limit where the file says `none`.
    pub refused_log_lines: Option<Quota>,
}

impl ClientLimits {
    pub(crate) fn compile(nodes: ClientLimitNodes<'_>, diagnostics: &mut Diagnostics) -> Self {
        let ClientLimitNodes {
            max_connections,
            max_connections_per_address,
            keepalive_timeout,
            send_timeout,
            failure_limit,
            refused_log_limit,
        } = nodes;
        let count = |node: &Node, what, diagnostics: &mut Diagnostics| {
            let count = node.integer(what, CONNECTIONS, diagnostics)?;
            usize::try_from(count).ok()
        };
        Self {
            max_connections: max_connections.and_then(|node| count(node, "max_connections", diagnostics)),
            max_connections_per_address: max_connections_per_address
                .filter(|node| !is_none(node))
                .and_then(|node| count(node, "max_connections_per_address", diagnostics)),
            keepalive_timeout: duration(
                keepalive_timeout,
                "keepalive_timeout",
                SECOND..=HOUR,
                DEFAULT_KEEPALIVE_TIMEOUT,
                diagnostics,
            ),
            send_timeout: duration(
                send_timeout,
                "send_timeout",
                SECOND / 10..=HOUR,
                DEFAULT_SEND_TIMEOUT,
                diagnostics,
            ),
            failures: quota(
                failure_limit,
                "`failure_limit`",
                DEFAULT_FAILURE_LIMIT,
                diagnostics,
            ),
            refused_log_lines: quota(
                refused_log_limit,
                "`refused_log_limit`",
                DEFAULT_REFUSED_LOG_LIMIT,
                diagnostics,
            ),
        }
    }
}

/// Written as `none`.
fn is_none(node: &Node) -> bool {
    node.value == Value::Text("none".to_owned())
}

/// `{ rate: 10/s, burst: 500 }`, or `none`.
fn quota(node: Option<&Node>, what: &str, default: Quota, diagnostics: &mut Diagnostics) -> Option<Quota> {
    let node = match node {
        None => return Some(default),
        Some(node) if is_none(node) => return None,
        Some(node) => node,
    };
    if !matches!(node.value, Value::Map(_)) {
        let message = format!("{what} cannot be {}", node.value.kind());
        diagnostics.error(
            node.place,
            message,
            "write `{ rate: 10/s, burst: 500 }`, or `none`",
        );
        return None;
    }
    let mut section = node.section(what, diagnostics)?;
    let quota = Quota::compile(&mut section, diagnostics);
    section.finish(diagnostics);
    quota
}

#[cfg(test)]
mod tests {
    use durward_config::Document;

    use super::*;

    fn compile(text: &str) -> (ClientLimits, String) {
        let document = Document::parse("c.yaml", text).unwrap();
        let mut diagnostics = Diagnostics::default();
        let mut section = document.root().section("the file", &mut diagnostics).unwrap();
        let nodes = ClientLimitNodes::take(&mut section);
        section.finish(&mut diagnostics);
        let limits = ClientLimits::compile(nodes, &mut diagnostics);
        (limits, diagnostics.located_in(&document).to_string())
    }

    #[test]
    fn without_a_word_failures_and_times_are_limited() {
        let (limits, said) = compile("{}");
        assert_eq!(said, "");
        assert_eq!(limits.failures, Some(DEFAULT_FAILURE_LIMIT));
        assert_eq!(limits.max_connections, None);
        assert_eq!(limits.max_connections_per_address, None);
        assert_eq!(limits.keepalive_timeout, Duration::from_secs(60));
        assert_eq!(limits.send_timeout, Duration::from_secs(60));
    }

    #[test]
    fn each_is_as_it_is_written() {
        let (limits, said) = compile(
            "max_connections: 1000\nmax_connections_per_address: 10\nkeepalive_timeout: 5s\n\
             send_timeout: 500ms\nfailure_limit: { rate: 1/s, burst: 5 }\nrefused_log_limit: { rate: 1/s }\n",
        );
        assert_eq!(said, "");
        assert_eq!(limits.max_connections, Some(1000));
        assert_eq!(limits.max_connections_per_address, Some(10));
        assert_eq!(limits.keepalive_timeout, Duration::from_secs(5));
        assert_eq!(limits.send_timeout, Duration::from_millis(500));
        assert_eq!(limits.failures, Some(Quota::new(Rate::new(1, SECOND), 5)));
        assert_eq!(
            limits.refused_log_lines,
            Some(Quota::new(Rate::new(1, SECOND), 1))
        );
        let (limits, said) =
            compile("failure_limit: none\nrefused_log_limit: none\nmax_connections_per_address: none\n");
        assert_eq!(said, "");
        assert_eq!((limits.failures, limits.refused_log_lines), (None, None));
        assert_eq!(limits.max_connections_per_address, None);
    }

    #[test]
    fn every_error_is_reported() {
        let (_, said) = compile(
            "max_connections: none\nmax_connections_per_address: 0\nkeepalive_timeout: 500ms\nsend_timeout: 2h\n\
             failure_limit: { rate: 1/w, brust: 5 }\n",
        );
        for expected in [
            "max_connections must be a whole number",
            "max_connections_per_address is out of range: 0",
            "keepalive_timeout is out of range",
            "send_timeout is out of range",
            "`rate` is no rate",
            "unknown key `brust`",
        ] {
            assert!(said.contains(expected), "{expected} is not in\n{said}");
        }
        let (limits, said) = compile("failure_limit: off\n");
        assert!(said.contains("`failure_limit` cannot be text"), "{said}");
        assert_eq!(limits.failures, None);
    }
}
