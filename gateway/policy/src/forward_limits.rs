//! How long a permitted request may take, and how large its body may be. An upstream says it for all
//! of its routes, and a route for itself. Data only: the shell keeps to it.

use std::ops::RangeInclusive;
use std::time::Duration;

use durward_config::{Diagnostics, Node, Section, Value};

/// The bounds of every timeout.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);
/// The bounds of the time that a whole request may take.
const TOTALS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(24 * 3600);
/// The largest limit of a body.
const LARGEST_BODY: u64 = 1 << 50;
/// The largest rate that a body can be asked to keep, in bytes a second.
const LARGEST_RATE: u64 = 1 << 30;

/// A limit that can be lifted by writing `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit<T> {
    /// Written as `none`.
    None,
    /// At most, or at least, so much.
    Of(T),
}

impl<T> Limit<T> {
    /// The limit, where there is one.
    pub fn value(self) -> Option<T> {
        match self {
            Self::None => None,
            Self::Of(value) => Some(value),
        }
    }
}

/// What an upstream or a route says of its requests; nothing where it does not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardLimits {
    /// For a server to accept a connection, TLS included.
    pub connect: Option<Duration>,
    /// From the end of the request to the first byte of the response.
    pub first_byte: Option<Limit<Duration>>,
    /// Between two pieces of a response.
    pub read: Option<Duration>,
    /// For a server to take a piece of a request.
    pub write: Option<Duration>,
    /// From the decision to the end of the response.
    pub total: Option<Limit<Duration>>,
    /// Whether that ends WebSockets and event streams too.
    pub total_ends_streams: Option<bool>,
    /// For a request body to arrive, before its rate counts.
    pub body: Option<Duration>,
    /// The bytes a second that a body has to keep beyond that.
    pub body_min_rate: Option<Limit<u64>>,
    /// The most bytes of a request body.
    pub max_body: Option<Limit<u64>>,
}

impl ForwardLimits {
    /// Takes the keys out of an upstream or a route.
    pub fn compile(section: &mut Section<'_>, diagnostics: &mut Diagnostics) -> Self {
        let d = diagnostics;
        Self {
            connect: duration(section.optional("connect_timeout"), "connect_timeout", d),
            first_byte: section.optional("first_byte_timeout").and_then(|node| {
                limit(node, d, |node, d| {
                    node.duration("first_byte_timeout", TIMEOUTS, d)
                })
            }),
            read: duration(section.optional("read_timeout"), "read_timeout", d),
            write: duration(section.optional("write_timeout"), "write_timeout", d),
            total: section
                .optional("total_timeout")
                .and_then(|node| limit(node, d, |node, d| node.duration("total_timeout", TOTALS, d))),
            total_ends_streams: section
                .optional("total_timeout_ends_streams")
                .and_then(|node| node.boolean("total_timeout_ends_streams", d)),
            body: duration(section.optional("body_timeout"), "body_timeout", d),
            body_min_rate: section.optional("body_min_rate").and_then(|node| {
                limit(node, d, |node, d| {
                    node.byte_size("body_min_rate", 1..=LARGEST_RATE, d)
                })
            }),
            max_body: section
                .optional("max_body")
                .and_then(|node| limit(node, d, |node, d| node.byte_size("max_body", 0..=LARGEST_BODY, d))),
        }
    }

    /// These, and what they leave unsaid as `other` says it.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            connect: self.connect.or(other.connect),
            first_byte: self.first_byte.or(other.first_byte),
            read: self.read.or(other.read),
            write: self.write.or(other.write),
            total: self.total.or(other.total),
            total_ends_streams: self.total_ends_streams.or(other.total_ends_streams),
            body: self.body.or(other.body),
            body_min_rate: self.body_min_rate.or(other.body_min_rate),
            max_body: self.max_body.or(other.max_body),
        }
    }
}

fn duration(node: Option<&Node>, what: &str, diagnostics: &mut Diagnostics) -> Option<Duration> {
    node.and_then(|node| node.duration(what, TIMEOUTS, diagnostics))
}

fn limit<T>(
    node: &Node,
    diagnostics: &mut Diagnostics,
    read: impl FnOnce(&Node, &mut Diagnostics) -> Option<T>,
) -> Option<Limit<T>> {
    if matches!(&node.value, Value::Text(text) if text == "none") {
        return Some(Limit::None);
    }
    read(node, diagnostics).map(Limit::Of)
}

#[cfg(test)]
mod tests {
    use durward_config::Document;

    use super::*;

    fn compile(text: &str) -> (ForwardLimits, String) {
        let document = Document::parse("c", text).unwrap();
        let mut diagnostics = Diagnostics::default();
        let mut section = document.root().section("a route", &mut diagnostics).unwrap();
        let limits = ForwardLimits::compile(&mut section, &mut diagnostics);
        section.finish(&mut diagnostics);
        (limits, diagnostics.located_in(&document).to_string())
    }

    #[test]
    fn what_a_route_says_goes_before_what_its_upstream_says() {
        let (route, text) = compile("{ total_timeout: none, max_body: 1KiB }");
        assert_eq!(text, "");
        let (upstream, text) = compile("{ total_timeout: 5s, max_body: 1MiB, read_timeout: 3s }");
        assert_eq!(text, "");
        let both = route.or(upstream);
        assert_eq!(both.total, Some(Limit::None));
        assert_eq!(both.max_body, Some(Limit::Of(1024)));
        assert_eq!(both.read, Some(Duration::from_secs(3)));
        assert_eq!(both.write, None);
    }

    #[test]
    fn every_limit_has_a_range() {
        for text in [
            "connect_timeout: 1ms",
            "connect_timeout: none",
            "read_timeout: 2h",
            "write_timeout: 5",
            "first_byte_timeout: 0s",
            "total_timeout: 2d",
            "total_timeout_ends_streams: 1",
            "body_timeout: none",
            "body_min_rate: 0",
            "max_body: lots",
            "max_body: 99999999GiB",
        ] {
            let (_, found) = compile(&format!("{{ {text} }}"));
            assert!(found.contains("error"), "{text}: {found}");
        }
    }
}
