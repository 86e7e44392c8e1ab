//! What the gateway measures about itself, read by a parser that somebody else wrote.

use std::collections::BTreeSet;

use prom_text_format_parser::{Metric, Sample, Scrape, Type, ValueType};

use crate::harness::{Account, Backend, FOREIGN, Key, Service, Setup, claims, get, login, mint, post};

/// A scrape, parsed.
struct Metrics(Vec<Metric>);

impl Metrics {
    /// Scrapes. What the parser made of the text is all that stands in it.
    #[track_caller]
    fn of(service: &Service) -> Self {
        let answer = get("/metrics").send(service.admin).expect(200);
        let media_type = answer.header("content-type");
        assert!(
            media_type.starts_with("text/plain; version=0.0.4"),
            "{media_type}"
        );
        let text = answer.text();
        let scrape = Scrape::parse(&text).unwrap_or_else(|error| panic!("{error:?}\n{text}"));
        assert_eq!(scrape.to_string(), text);
        for metric in &scrape.metrics {
            assert!(
                metric.help_desc.is_some() && metric.kind != Type::Untyped,
                "{}",
                metric.name
            );
        }
        Self(scrape.metrics)
    }

    /// The samples of this metric with these labels.
    fn samples(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Sample> {
        let metrics = self.0.iter().filter(move |metric| metric.name == name);
        let has = |sample: &Sample, label: &(&str, &str)| label_of(sample, label.0) == Some(label.1);
        metrics
            .flat_map(|metric| &metric.samples)
            .filter(move |sample| labels.iter().all(|label| has(sample, label)))
    }

    /// The sum over these samples; nothing where there is none.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.sum_of(ValueType::Sample, name, labels)
    }

    /// How often a histogram with these labels has observed something.
    fn count(&self, histogram: &str, labels: &[(&str, &str)]) -> f64 {
        self.sum_of(ValueType::Count, histogram, labels).unwrap_or(0.0)
    }

    fn sum_of(&self, kind: ValueType, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let samples = self
            .samples(name, labels)
            .filter(|sample| sample.value.value_type == kind);
        let found: Vec<f64> = samples.map(|sample| sample.value.value.as_f64()).collect();
        (!found.is_empty()).then(|| found.iter().sum())
    }

    /// Every label with its values, but for the bounds of buckets.
    fn labels(&self) -> BTreeSet<(String, String)> {
        let labels = self
            .0
            .iter()
            .flat_map(|metric| &metric.samples)
            .flat_map(|sample| sample.labels.iter());
        let labels = labels.filter(|label| label.key != "le");
        labels
            .map(|label| (label.key.clone(), label.value.clone()))
            .collect()
    }
}

fn label_of<'a>(sample: &'a Sample, name: &str) -> Option<&'a str> {
    sample
        .labels
        .iter()
        .find(|label| label.key == name)
        .map(|label| label.value.as_str())
}

const DURATION: &str = "durward_auth_duration_seconds";
const PHASE: &str = "durward_auth_phase_duration_seconds";
const DECISIONS: &str = "durward_auth_decisions_total";

#[test]
fn decisions_and_their_phases_move_as_requests_are_made() {
    let backend = Backend::start();
    let key = Key::es256("k1");
    let service = Setup::foreign(&backend, &[&key]).start();
    let token = mint(&key, &claims("alice"));
    let before = Metrics::of(&service);
    for _ in 0..5 {
        service.ask(&get("/api/x").bearer(&token)).expect(200);
    }
    for _ in 0..3 {
        service.ask(&get("/api/x")).expect(401);
    }
    service.ask(&get("/admin/x").bearer(&token)).expect(403);
    service.ask(&get("/nowhere")).expect(404);
    let after = Metrics::of(&service);

    let moved = |name: &str, label: &str, value: &str| {
        after.count(name, &[(label, value)]) - before.count(name, &[(label, value)])
    };
    assert_eq!(moved(DURATION, "outcome", "permitted"), 5.0);
    assert_eq!(moved(DURATION, "outcome", "refused"), 5.0);
    for (phase, times) in [
        ("route", 10.0),
        ("credential", 9.0),
        ("proof", 6.0),
        ("rules", 6.0),
        ("identity", 5.0),
    ] {
        let count = moved(PHASE, "phase", phase);
        assert!(count > 0.0 && count <= times, "{phase}: {count}");
    }
    let permitted = [("outcome", "permitted")];
    let took = after.sum_of(ValueType::Sum, DURATION, &permitted).unwrap();
    assert!(took > 0.0 && took < 60.0, "{took}");
    let first = after
        .samples(DURATION, &permitted)
        .next()
        .and_then(|sample| label_of(sample, "le"));
    assert_eq!(first, Some("0.00000025"), "buckets from 250 ns up");

    for (route, outcome, reason, count) in [
        ("/api/**", "permitted", "none", 5.0),
        ("/api/**", "refused", "no_credential", 3.0),
        ("/admin/**", "refused", "rule_refused", 1.0),
        ("none", "refused", "no_route", 1.0),
    ] {
        let labels = [("route", route), ("outcome", outcome), ("reason", reason)];
        assert_eq!(after.sum(DECISIONS, &labels), Some(count), "{labels:?}");
    }
    let answered = [("route", "/api/**"), ("status", "2xx")];
    assert_eq!(after.count("durward_request_duration_seconds", &answered), 5.0);
    assert_eq!(after.count("durward_upstream_duration_seconds", &answered), 5.0);
    assert!(after.sum("durward_jwks_age_seconds", &[]).is_some());
}

#[test]
fn an_upstream_that_is_away_is_counted() {
    let backend = Backend::start();
    let away = crate::harness::free_address();
    let service = Setup::gateway(FOREIGN)
        .replace(
            "upstreams:\n",
            &format!("upstreams:\n  away: {{ servers: [{away}] }}\n"),
        )
        .append("  - { path: /away/**, upstream: away, access: public }\n")
        .api(&backend)
        .file("jwks.json", Key::set(&[&Key::es256("k1")]))
        .start();
    service
        .ask(&get("/away/x"))
        .expect_refusal(503, "upstream_unavailable");
    let labels = [("upstream", "away"), ("reason", "upstream_unavailable")];
    assert!(
        Metrics::of(&service)
            .sum("durward_upstream_failures_total", &labels)
            .unwrap()
            >= 1.0
    );
    assert_eq!(
        Metrics::of(&service).sum("durward_upstream_failures_total", &[("upstream", "api")]),
        Some(0.0)
    );
}

#[test]
fn the_auth_service_and_the_mirror_are_measured() {
    let backend = Backend::start();
    let service = Setup::own(&backend).start();
    let alice = service.account("alice", &[]);
    service.ask(&login("alice", "not the password")).expect(401);
    let before = Metrics::of(&service);
    let sequence = |metrics: &Metrics| metrics.sum("durward_revocation_applied_sequence", &[]).unwrap();
    service.told(&["ban", "alice"]);
    service.ask(&alice.get("/api/x")).expect(401);
    let after = Metrics::of(&service);
    assert!(sequence(&after) > sequence(&before));
    assert!(after.sum("durward_revocation_entries", &[]).unwrap() >= 1.0);
    assert!(after.sum("durward_revocation_staleness_seconds", &[]).unwrap() < 60.0);
    assert_eq!(after.sum(DECISIONS, &[("reason", "revoked")]), Some(1.0));
    let names: BTreeSet<&str> = after.0.iter().map(|metric| metric.name.as_str()).collect();
    for word in ["login", "refresh"] {
        assert!(
            names.iter().any(|name| name.contains(word)),
            "nothing about {word} in {names:?}"
        );
    }
}

#[test]
fn no_label_tells_of_a_user_a_path_or_a_token() {
    let backend = Backend::start();
    let service = Setup::own(&backend).start();
    let accounts: Vec<Account> = ["alice", "mallory"].map(|name| service.account(name, &[])).into();
    for account in &accounts {
        for path in [
            "/api/secret-path",
            "/public/secret-path",
            "/nowhere/secret-path",
            "/images/secret-owner/x",
            "/api/admin/secret-path",
        ] {
            service.ask(&account.get(path));
            service.ask(&get(path));
        }
        service.refresh(&account.tokens.refresh).expect(200);
        service.ask(&account.with(post("/auth/logout")));
        service.ask(&account.get("/api/x")).expect(401);
    }
    service.raw(b"SECRETMETHOD /secret-path HTTP/1.1\r\nHost: secret-host\r\n\r\n");
    let text = service.metrics();
    for account in &accounts {
        for secret in [
            &account.id,
            &account.name,
            &account.tokens.access,
            &account.tokens.refresh,
        ] {
            assert!(!text.contains(secret.as_str()), "{secret} is in\n{text}");
        }
    }
    assert!(!text.to_lowercase().contains("secret"), "{text}");
    let routes = [
        "/auth/**",
        "/.well-known/**",
        "/public/**",
        "/maybe/**",
        "/api/**",
        "/api/admin/**",
        "/images/{owner}/**",
        "none",
    ];
    let others = [
        "outcome", "reason", "phase", "status", "upstream", "server", "cause", "issuer", "result", "limit",
    ];
    for (label, value) in Metrics::of(&service).labels() {
        let known = if label == "route" {
            routes.contains(&value.as_str())
        } else {
            others.contains(&label.as_str())
        };
        assert!(known, "{label}={value}");
    }
}

#[test]
fn health_and_metrics_are_not_on_the_edge() {
    let backend = Backend::start();
    let service = Setup::foreign(&backend, &[&Key::es256("k1")]).start();
    for path in ["/metrics", "/livez", "/readyz"] {
        get(path).send(service.admin).expect(200);
        service.ask(&get(path)).expect_refusal(404, "no_route");
    }
    // And nothing of the edge is on the admin listener.
    get("/public/x").send(service.admin).expect(404);
    post("/metrics").send(service.admin).expect(405);
    assert!(backend.requests().is_empty());
}
