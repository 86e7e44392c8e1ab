//! Taking over another configuration while requests run.
//!
//! The next generation is made aside, with all that it needs; only when nothing is missing does it
//! take the place of the one before, for all requests that begin from then on. Those that are open
//! are judged again by it.

use std::sync::Arc;
use std::time::Duration;

use durward_policy::{DigestKey, Policy, RevocationsMode};

use super::Gateway;
use crate::assertion::Assertions;
use crate::client_limits::ClientLimits;
use crate::config::GatewayConfig;
use crate::descriptors;
use crate::generation::{Generation, upstreams_are_there};
use crate::issuer_keys::IssuerKeys;
use crate::judged_again::judge_again;
use crate::live_streams::{Cut, Which};

/// How long the keys of an issuer that is new, or has changed, may take to be fetched.
const FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// What came of a reload that was not refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadReport {
    /// The number of the generation that runs now, counted from 1.
    pub generation: u64,
    /// What changed that the configuration file alone does not show: `upstream api`, where a file that
    /// it names changed, or `the keys of issuer auth`.
    pub changed: Vec<String>,
    /// Open requests that go on.
    pub kept: usize,
    /// Open requests that were ended, since the new configuration refuses them.
    pub ended: usize,
}

impl Gateway {
    /// The secret under which this process keys revocations; a policy to be taken over must have it.
    pub fn digest_key(&self) -> DigestKey {
        self.shared.current().policy.digest_key()
    }

    /// Takes over a configuration, or says all that keeps it from being taken over, and changes
    /// nothing. With `dry_run` nothing changes in either case.
    ///
    /// Key files are read again. The keys of an issuer that is new, or whose section changed, are
    /// fetched first; those of the others stay, whatever state their source is in.
    pub async fn reload(
        &self,
        config: GatewayConfig,
        policy: Policy,
        dry_run: bool,
    ) -> Result<ReloadReport, Vec<String>> {
        let _one_at_a_time = self.reloading.lock().await;
        let current = self.shared.current();
        let problems = self.fixed_that_changed(&current, &config, &policy);
        if !problems.is_empty() {
            return Err(problems);
        }
        let keys = IssuerKeys::successor(current.proofs.keys(), &policy, &config.base)?;
        if let Some(own_keys) = &self.own_keys {
            keys.follow_own(own_keys.clone());
        }
        keys.fetch_missing(FETCH_TIMEOUT, Some(current.proofs.keys()))
            .await?;
        let mut changed: Vec<_> = upstreams_that_changed(&current, &config).collect();
        changed.extend(keys.changed_since(current.proofs.keys()));
        let mut report = ReloadReport {
            generation: current.number,
            changed,
            ..ReloadReport::default()
        };
        if dry_run {
            return Ok(report);
        }
        let header = self.shared.assertions.as_ref().map(Assertions::header);
        let next = current.next(
            config,
            Arc::new(policy),
            keys,
            header,
            &self.shared.metrics,
            &self.shared.tallies,
        );
        let next = Arc::new(next);
        report.generation = next.number;
        self.shared.take_over(&next);
        let clients = &next.config.client_limits;
        let most = descriptors::most_connections(clients.max_connections, descriptors::raise_limit());
        self.shared
            .connections
            .limit_to(most, clients.max_connections_per_address);
        // What was published since they were read for it.
        next.proofs.keys().catch_up_with_own();
        current.proofs.forget_all();
        let shared = Arc::clone(&self.shared);
        let judging = tokio::task::spawn_blocking(move || {
            let streams = Arc::clone(&shared.streams);
            let judge = |head: &_| judge_again(&shared, &next, head);
            streams.judge_again(next.number, Which::JudgedByOthers, Cut::PolicyChanged, judge)
        });
        let judged = judging
            .await
            .map_err(|error| vec![format!("the open requests could not be judged again: {error}")])?;
        report.kept = judged.kept;
        report.ended = judged.ended;
        Ok(report)
    }

    /// Notes a reload in the metrics.
    pub fn note_reload(&self, taken_over: bool) {
        self.shared.reloads.note(taken_over);
    }

    fn fixed_that_changed(
        &self,
        current: &Generation,
        config: &GatewayConfig,
        policy: &Policy,
    ) -> Vec<String> {
        let mut problems: Vec<_> = fixed_keys_that_changed(&current.config, config)
            .into_iter()
            .map(needs_restart)
            .collect();
        let old = &current.policy;
        if mode_of(old) != mode_of(policy) || old.max_staleness() != policy.max_staleness() {
            problems.push(needs_restart("revocations"));
        }
        if old.digest_key().0 != policy.digest_key().0 {
            problems.push("the policy is not for this process".into());
        }
        if !upstreams_are_there(policy, config) {
            problems.push("a route's upstream is not configured".into());
        }
        problems
    }
}

/// What is said of a key that cannot change while the process runs.
pub fn needs_restart(key: &str) -> String {
    format!("`{key}` cannot change while it runs: restart, or upgrade with SIGUSR2")
}

/// The keys of the file that differ and cannot change while the process runs.
///
/// Whoever adds a field to the configuration decides here whether it can.
fn fixed_keys_that_changed(old: &GatewayConfig, new: &GatewayConfig) -> Vec<&'static str> {
    let GatewayConfig {
        // The folder of the file, which is the same file.
        base: _,
        listen,
        admin,
        forward_auth,
        assertion,
        // Of the generation.
        upstreams: _,
        shutdown_grace,
        access_log,
        // Of the generation.
        proof_cache_bytes: _,
        workers,
        upstream_keepalive_pool,
        // Of the generation.
        max_header_bytes: _,
        header_timeout,
        // Of the generation.
        trusted_proxies: _,
        client_limits:
            ClientLimits {
                // Of the process, and set anew.
                max_connections: _,
                max_connections_per_address: _,
                keepalive_timeout,
                send_timeout,
                // Of the generation.
                failures: _,
                refused_log_lines,
            },
        // Where it is the caller compares, in the file.
        rate_limit_store,
    } = new;
    let clients = &old.client_limits;
    // Who may ask there is of the generation; where that is, is not.
    let place = |config: &GatewayConfig| config.forward_auth.as_ref().map(|config| config.listen);
    let same = [
        ("listen", old.listen == *listen),
        ("admin", old.admin == *admin),
        (
            "forward_auth.listen",
            place(old) == forward_auth.as_ref().map(|config| config.listen),
        ),
        ("assertion", old.assertion == *assertion),
        ("shutdown_grace", old.shutdown_grace == *shutdown_grace),
        ("access_log", old.access_log == *access_log),
        ("workers", old.workers == *workers),
        (
            "upstream_keepalive_pool",
            old.upstream_keepalive_pool == *upstream_keepalive_pool,
        ),
        ("header_timeout", old.header_timeout == *header_timeout),
        (
            "keepalive_timeout",
            clients.keepalive_timeout == *keepalive_timeout,
        ),
        ("send_timeout", clients.send_timeout == *send_timeout),
        (
            "refused_log_limit",
            clients.refused_log_lines == *refused_log_lines,
        ),
        (
            "rate_limit_store",
            old.rate_limit_store.is_some() == rate_limit_store.is_some(),
        ),
    ];
    let changed = same.into_iter().filter(|(_, same)| !same);
    changed.map(|(key, _)| key).collect()
}

/// Where revocations come from. The places and words of the file are the caller's to compare.
fn mode_of(policy: &Policy) -> u8 {
    match policy.revocations() {
        RevocationsMode::None => 0,
        RevocationsMode::Embedded => 1,
        RevocationsMode::Redis => 2,
        RevocationsMode::Lookup(_) => 3,
    }
}

fn upstreams_that_changed<'a>(
    current: &'a Generation,
    config: &'a GatewayConfig,
) -> impl Iterator<Item = String> + 'a {
    let changed = config.upstreams.iter().filter(|new| {
        let mut old = current.config.upstreams.iter();
        old.any(|old| old.name == new.name && !old.says_the_same(new))
    });
    changed.map(|upstream| format!("upstream {}", upstream.name))
}

#[cfg(test)]
mod tests {
    use durward_config::{Diagnostics, Document};
    use std::path::Path;

    use super::*;
    use crate::GatewaySections;

    fn config(text: &str) -> GatewayConfig {
        let document = Document::parse("c.yaml", text).unwrap();
        let mut diagnostics = Diagnostics::default();
        let mut section = document.root().section("the file", &mut diagnostics).unwrap();
        let sections = GatewaySections::take(&mut section);
        GatewayConfig::compile(sections, Path::new("."), &mut diagnostics)
            .unwrap_or_else(|| panic!("{}", diagnostics.located_in(&document)))
    }

    #[test]
    fn what_is_bound_to_the_process_cannot_change_and_the_rest_can() {
        let upstreams = "upstreams: { api: { servers: 127.0.0.1:3 } }\n";
        let old = config(&format!("listen: 127.0.0.1:1\nworkers: 2\n{upstreams}"));
        for (new, changed) in [
            (format!("workers: 2\nlisten: 127.0.0.1:1\n{upstreams}"), vec![]),
            (
                "listen: 127.0.0.1:1\nworkers: 2\nproof_cache: 1MiB\nmax_header_bytes: 4KiB\n\
                 upstreams: { other: { servers: 127.0.0.1:4 } }\n"
                    .to_owned(),
                vec![],
            ),
            (
                format!("listen: 127.0.0.1:2\nadmin: 127.0.0.1:4\nworkers: 3\n{upstreams}"),
                vec!["listen", "admin", "workers"],
            ),
            (
                format!("listen: 127.0.0.1:1\nworkers: 2\naccess_log: off\nheader_timeout: 1s\n{upstreams}"),
                vec!["access_log", "header_timeout"],
            ),
        ] {
            assert_eq!(fixed_keys_that_changed(&old, &config(&new)), changed, "{new}");
        }
    }
}
