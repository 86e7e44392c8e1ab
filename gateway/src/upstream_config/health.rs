//! `health_check:`, `ejection:` and `retries:`: which servers are asked, and how often.

use std::time::Duration;

use durward_config::{Diagnostics, Node, Value};
use http::HeaderValue;

use crate::config::duration;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
/// The longest path of a health check.
const MAX_PATH: usize = 1024;
/// The most expected statuses.
const MAX_STATUSES: usize = 16;
/// The most results in a row that a threshold can ask for.
const MAX_THRESHOLD: i64 = 100;
/// The most servers that a request can be offered to.
pub(crate) const MAX_ATTEMPTS: usize = 8;
const DEFAULT_ATTEMPTS: usize = 4;
const DEFAULT_BUDGET: u32 = 20;

/// Asking each server whether it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheckConfig {
    /// What is asked for.
    pub path: String,
    /// The Host that is said; by default the server name of TLS, or else the first server.
    pub host: Option<HeaderValue>,
    /// The time between two questions.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// So many failures in a row take a server out.
    pub unhealthy_after: u32,
    /// So many answers in a row bring it back.
    pub healthy_after: u32,
    /// The statuses of a server that is well.
    pub statuses: Vec<u16>,
}

/// Taking a server out whose requests fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectionConfig {
    /// So many failures in a row take a server out.
    pub failures: u32,
    /// For how long, the first time.
    pub shortest: Duration,
    /// For how long at most: each time after the first takes twice as long as the one before.
    pub longest: Duration,
}

/// Offering a request to another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryConfig {
    /// The most servers that a request is offered to.
    pub attempts: usize,
    /// The most retries, in percent of the requests.
    pub budget: u32,
}

impl Default for EjectionConfig {
    fn default() -> Self {
        Self {
            failures: 5,
            shortest: 10 * SECOND,
            longest: 300 * SECOND,
        }
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: DEFAULT_ATTEMPTS,
            budget: DEFAULT_BUDGET,
        }
    }
}

impl HealthCheckConfig {
    pub(super) fn compile(node: &Node, diagnostics: &mut Diagnostics) -> Option<Self> {
        let mut section = node.section("health_check", diagnostics)?;
        let path = section
            .required("path", "write `path: /health`", diagnostics)
            .and_then(|node| compile_path(node, diagnostics));
        let host = match section.optional("host") {
            Some(node) => Some(compile_host(node, diagnostics)?),
            None => None,
        };
        let range = SECOND / 10..=HOUR;
        let interval = duration(
            section.optional("interval"),
            "interval",
            range.clone(),
            5 * SECOND,
            diagnostics,
        );
        let timeout_node = section.optional("timeout");
        let timeout = duration(timeout_node, "timeout", range, SECOND.min(interval), diagnostics);
        if let Some(node) = timeout_node
            && timeout > interval
        {
            let message = "the health check's timeout is longer than its interval";
            diagnostics.error(node.place, message, "write a shorter timeout");
        }
        let unhealthy_after = count(
            section.optional("unhealthy_after"),
            "unhealthy_after",
            3,
            diagnostics,
        );
        let healthy_after = count(section.optional("healthy_after"), "healthy_after", 2, diagnostics);
        let statuses = match section.optional("status") {
            Some(node) => compile_statuses(node, diagnostics),
            None => vec![200],
        };
        section.finish(diagnostics);
        Some(Self {
            path: path?,
            host,
            interval,
            timeout,
            unhealthy_after,
            healthy_after,
            statuses,
        })
    }
}

impl EjectionConfig {
    /// Reads `off`, or `{ failures: 5, for: 10s, at_most: 5m }`.
    pub(super) fn compile(node: Option<&Node>, diagnostics: &mut Diagnostics) -> Option<Self> {
        let defaults = Self::default();
        let Some(node) = node else {
            return Some(defaults);
        };
        if !matches!(node.value, Value::Map(_)) {
            node.one_of("ejection", &["off"], diagnostics);
            return None;
        }
        let mut section = node.section("ejection", diagnostics)?;
        let failures = count(
            section.optional("failures"),
            "failures",
            defaults.failures,
            diagnostics,
        );
        let range = SECOND / 10..=HOUR;
        let shortest = duration(
            section.optional("for"),
            "for",
            range.clone(),
            defaults.shortest,
            diagnostics,
        );
        let longest_node = section.optional("at_most");
        let longest = duration(
            longest_node,
            "at_most",
            range,
            defaults.longest.max(shortest),
            diagnostics,
        );
        if let Some(node) = longest_node
            && longest < shortest
        {
            diagnostics.error(
                node.place,
                "`at_most` is shorter than `for`",
                "write a longer one",
            );
        }
        section.finish(diagnostics);
        Some(Self {
            failures,
            shortest,
            longest,
        })
    }
}

impl RetryConfig {
    /// Reads `off`, or `{ attempts: 4, budget_percent: 20 }`.
    pub(super) fn compile(node: Option<&Node>, diagnostics: &mut Diagnostics) -> Self {
        let mut config = Self::default();
        let Some(node) = node else {
            return config;
        };
        if !matches!(node.value, Value::Map(_)) {
            node.one_of("retries", &["off"], diagnostics);
            config.attempts = 1;
            return config;
        }
        let Some(mut section) = node.section("retries", diagnostics) else {
            return config;
        };
        let attempts = section.optional("attempts");
        let range = 1..=i64::try_from(MAX_ATTEMPTS).unwrap_or(1);
        if let Some(attempts) = attempts.and_then(|node| node.integer("attempts", range, diagnostics)) {
            config.attempts = usize::try_from(attempts).unwrap_or(1);
        }
        let budget = section.optional("budget_percent");
        if let Some(budget) = budget.and_then(|node| node.integer("budget_percent", 0..=100, diagnostics)) {
            config.budget = u32::try_from(budget).unwrap_or_default();
        }
        section.finish(diagnostics);
        config
    }
}

fn compile_path(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let path = node.text("path", diagnostics)?;
    let is_target = path.starts_with('/')
        && path.len() <= MAX_PATH
        && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !is_target {
        let message = format!("`{path}` is no path that can be asked for");
        diagnostics.error(node.place, message, "write it as `/health`");
        return None;
    }
    Some(path.to_owned())
}

fn compile_host(node: &Node, diagnostics: &mut Diagnostics) -> Option<HeaderValue> {
    let text = node.text("host", diagnostics)?;
    if text.parse::<http::uri::Authority>().is_err() || text.contains('@') {
        let message = format!("`{text}` is no host");
        diagnostics.error(node.place, message, "write it as `api.example.com`");
        return None;
    }
    HeaderValue::from_str(text).ok()
}

fn compile_statuses(node: &Node, diagnostics: &mut Diagnostics) -> Vec<u16> {
    let items = node.one_or_many();
    if items.is_empty() || items.len() > MAX_STATUSES {
        let message = format!("`status` lists {} statuses", items.len());
        diagnostics.error(node.place, message, format!("list from 1 to {MAX_STATUSES}"));
    }
    let status = |item: &Node| item.integer("status", 200..=599, diagnostics);
    let statuses: Vec<_> = items.iter().filter_map(status).collect();
    statuses
        .into_iter()
        .filter_map(|status| u16::try_from(status).ok())
        .collect()
}

fn count(node: Option<&Node>, what: &str, default: u32, diagnostics: &mut Diagnostics) -> u32 {
    node.and_then(|node| node.integer(what, 1..=MAX_THRESHOLD, diagnostics))
        .and_then(|count| u32::try_from(count).ok())
        .unwrap_or(default)
}
