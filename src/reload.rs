//! Taking over the configuration file again while the gateway runs: on SIGHUP, when the file has
//! changed, and when `durward reload` asks.
//!
//! All three do the same. A file that cannot be taken over as a whole changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use durward_config::Document;
use durward_gateway::{Gateway, ReloadReport, needs_restart};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use crate::configuration::{self, Loaded, Role};
use crate::shutdown::Shutdown;

mod difference;

pub use difference::{Difference, says_the_same};

/// How often the file is looked at. It is taken over when it was found changed, and the same twice in
/// a row: whoever writes it may not be done yet.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The top-level keys that can change while the gateway runs. Every other that differs is a reason to
/// refuse the file, named in the refusal.
pub const RELOADABLE: [&str; 16] = [
    "failure_limit",
    // Who may ask there, not where.
    "forward_auth",
    "identity_headers",
    "issuers",
    "max_connections",
    "max_connections_per_address",
    "max_header_bytes",
    "proof_cache",
    "rate_limits",
    "reload",
    // `when_unknown` alone.
    "revocations",
    "routes",
    "service_headers",
    "strip",
    "trusted_proxies",
    "upstreams",
];

/// What of `revocations` can change while the gateway runs.
const RELOADABLE_REVOCATIONS: &str = "when_unknown";

/// Who asks for a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// SIGHUP.
    Signal,
    /// The file has changed.
    Watch,
    /// `durward reload`.
    Command,
}

impl Trigger {
    const fn name(self) -> &'static str {
        match self {
            Self::Signal => "SIGHUP",
            Self::Watch => "file changed",
            Self::Command => "durward reload",
        }
    }
}

/// Takes over the configuration file of a running gateway.
#[derive(Clone)]
pub struct Reloader(Arc<Inner>);

struct Inner {
    path: PathBuf,
    role: Role,
    gateway: Arc<Gateway>,
    running: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

struct State {
    /// What runs.
    document: Document,
    watch: bool,
}

/// A reload that was not refused.
#[derive(Debug)]
struct TakenOver {
    difference: Difference,
    report: ReloadReport,
}

impl Reloader {
    /// For the gateway that runs by `document`, read from `path`.
    pub fn new(path: &Path, role: Role, gateway: &Arc<Gateway>, document: Document, watch: bool) -> Self {
        Self(Arc::new(Inner {
            path: path.to_owned(),
            role,
            gateway: Arc::clone(gateway),
            running: tokio::sync::Mutex::default(),
            state: Mutex::new(State { document, watch }),
        }))
    }

    /// Reloads on SIGHUP and on changes of the file, until `shutdown`.
    pub fn start(&self, shutdown: &Shutdown) -> std::io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let (on_signal, on_change) = (self.clone(), self.clone());
        let end = shutdown.clone();
        tokio::spawn(async move {
            let asked = async {
                while hangup.recv().await.is_some() {
                    on_signal.reload(Trigger::Signal, false).await;
                }
            };
            tokio::select! { () = asked => {}, () = end.requested() => {} }
        });
        let end = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! { () = on_change.watch() => {}, () = end.requested() => {} }
        });
        Ok(())
    }

    /// Reloads, or with `dry_run` says what that would do. The answer is that of `durward reload`.
    pub async fn reload(&self, trigger: Trigger, dry_run: bool) -> Value {
        let _one_at_a_time = self.0.running.lock().await;
        let result = self.0.reload(dry_run).await;
        if !dry_run {
            self.0.gateway.note_reload(result.is_ok());
            tell(trigger, &self.0.path, &result);
        }
        answer(&result, dry_run)
    }

    async fn watch(&self) {
        let mut ticks = tokio::time::interval(WATCH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = self.0.state.lock().document.text().to_owned();
        let mut before = seen.clone();
        loop {
            ticks.tick().await;
            if !self.0.state.lock().watch {
                continue;
            }
            // A file that is not there, or not readable, is between two of its states.
            let path = self.0.path.clone();
            let read = tokio::task::spawn_blocking(move || configuration::read_text(&path));
            let Ok(Ok(text)) = read.await else {
                continue;
            };
            let settled = text == before;
            if settled && text != seen {
                seen.clone_from(&text);
                if text != self.0.state.lock().document.text() {
                    self.reload(Trigger::Watch, false).await;
                }
            }
            before = text;
        }
    }
}

impl Inner {
    async fn reload(&self, dry_run: bool) -> Result<TakenOver, Vec<String>> {
        let digest_key = self.gateway.digest_key();
        let Loaded {
            gateway,
            policy,
            document,
            reload,
            ..
        } = configuration::load_again(&self.path, self.role, digest_key)?;
        let difference = {
            let state = self.state.lock();
            let problems = fixed_that_changed(&state.document, &document);
            if !problems.is_empty() {
                return Err(problems);
            }
            Difference::between(state.document.root(), document.root())
        };
        let report = self.gateway.reload(gateway, policy, dry_run).await?;
        if !dry_run {
            let mut state = self.state.lock();
            state.document = document;
            state.watch = reload.watch;
        }
        Ok(TakenOver {
            difference: difference.with_changed(&report.changed),
            report,
        })
    }
}

/// Says every top-level key that differs and cannot.
fn fixed_that_changed(old: &Document, new: &Document) -> Vec<String> {
    let names = difference::keys(old.root(), new.root());
    let fixed = names.into_iter().filter(|name| {
        let (old, new) = (
            difference::member(old.root(), name),
            difference::member(new.root(), name),
        );
        match name.as_str() {
            "revocations" => !difference::says_the_same_but_for(old, new, RELOADABLE_REVOCATIONS),
            name if RELOADABLE.contains(&name) => false,
            _ => !says_the_same(old, new),
        }
    });
    fixed.map(|name| needs_restart(&name)).collect()
}

fn tell(trigger: Trigger, path: &Path, result: &Result<TakenOver, Vec<String>>) {
    let (trigger, file) = (trigger.name(), path.display());
    match result {
        Ok(TakenOver { difference, report }) => {
            tracing::info!(
                trigger,
                %file,
                generation = report.generation,
                changes = %difference,
                streams_kept = report.kept,
                streams_ended = report.ended,
                "the configuration was taken over"
            );
        }
        Err(problems) => {
            for problem in problems {
                tracing::error!(trigger, "{problem}");
            }
            tracing::error!(trigger, %file, "the configuration is refused; the one before it runs on");
        }
    }
}

fn answer(result: &Result<TakenOver, Vec<String>>, dry_run: bool) -> Value {
    match result {
        Ok(TakenOver { difference, report }) => json!({
            "result": if dry_run { "would be taken over" } else { "taken over" },
            "generation": report.generation,
            "added": difference.added,
            "removed": difference.removed,
            "changed": difference.changed,
            "streams_kept": report.kept,
            "streams_ended": report.ended,
        }),
        Err(problems) => json!({ "result": "refused", "errors": problems }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(old: &str, new: &str) -> Vec<String> {
        let parse = |text: &str| Document::parse("c.yaml", text).unwrap();
        fixed_that_changed(&parse(old), &parse(new))
    }

    #[test]
    fn a_key_that_is_not_known_to_be_reloadable_is_refused_by_name() {
        let old = "listen: 127.0.0.1:1\nauth: { a: 1 }\nroutes: []\nrevocations: { store: embedded }\n";
        assert!(
            problems(old, &format!("\n\n{old}")).is_empty(),
            "places do not count"
        );
        let reloadable = old
            .replace("routes: []", "routes: [{ path: /a }]\nstrip: [X]")
            .replace("embedded }", "embedded, when_unknown: refuse }");
        assert!(problems(old, &reloadable).is_empty());
        let fixed = old
            .replace("a: 1", "a: 2")
            .replace("embedded", "'redis://h'")
            .replace("listen: 127.0.0.1:1", "future: 1");
        let problems = problems(old, &fixed);
        for key in ["auth", "revocations", "listen", "future"] {
            assert!(problems.contains(&needs_restart(key)), "{key}: {problems:?}");
        }
        assert_eq!(problems.len(), 4);
    }
}
