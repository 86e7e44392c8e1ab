//! What the gateway measures about itself, read by a parser that somebody else wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use prometheus_parse::{Sample, Scrape, Value};

use crate::harness::{Account, Backend, FOREIGN, Key, OWN, Service, Setup, claims, get, login, mint, post};

/// The samples of a scrape by name and labels.
struct Metrics(Vec<Sample>);

impl Metrics {
    #[track_caller]
    fn of(service: &Service) -> Self {
        let answer = get("/metrics").send(service.admin).expect(200);
        assert!(
            answer
                .header("content-type")
                .starts_with("text/plain; version=0.0.4"),
            "{:?}",
            answer.headers
        );
        let text = answer.text();
        let scrape = Scrape::parse(text.lines().map(|line| Ok::<_, io::Error>(line.to_owned()))).unwrap();
        assert_well_formed(&text, &scrape);
        Self(scrape.samples)
    }

    /// The sum over all samples of this name with these labels; nothing where there is none.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let found: Vec<f64> = self
            .with(name, labels)
            .map(|sample| number(&sample.value))
            .collect();
        (!found.is_empty()).then(|| found.iter().sum())
    }

    fn count(&self, histogram: &str, labels: &[(&str, &str)]) -> f64 {
        self.sum(&format!("{histogram}_count"), labels).unwrap_or(0.0)
    }

    fn with(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Sample> {
        self.0.iter().filter(move |sample| {
            sample.metric == name
                && labels
                    .iter()
                    .all(|(label, value)| sample.labels.get(label) == Some(*value))
        })
    }

    fn values_of(&self, label: &str) -> BTreeSet<String> {
        self.0
            .iter()
            .filter_map(|sample| sample.labels.get(label))
            .map(str::to_owned)
            .collect()
    }
}

fn number(value: &Value) -> f64 {
    match value {
        Value::Counter(number) | Value::Gauge(number) | Value::Untyped(number) => *number,
        other => panic!("not a number: {other:?}"),
    }
}

/// The parser passes over lines that it cannot read; here there are none, and every family that has
/// a type has a help text.
fn assert_well_formed(text: &str, scrape: &Scrape) {
    assert!(text.ends_with('\n'));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut families: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lines {
        let name = line.split(['{', ' ']).next().unwrap();
        *families.entry(name.trim_end_matches("_bucket")).or_default() += 1;
    }
    let mut read: BTreeMap<&str, usize> = BTreeMap::new();
    for sample in &scrape.samples {
        let count = if let Value::Histogram(buckets) = &sample.value {
            buckets.len()
        } else {
            1
        };
        *read.entry(&sample.metric).or_default() += count;
        if let Value::Histogram(buckets) = &sample.value {
            assert!(
                buckets.windows(2).all(|pair| pair[0].count <= pair[1].count),
                "{sample:?}"
            );
            assert!(
                buckets.last().is_some_and(|last| last.less_than == f64::INFINITY),
                "{sample:?}"
            );
            assert!(scrape.docs.contains_key(&sample.metric), "{}", sample.metric);
        }
    }
    assert_eq!(families, read);
}

const DURATION: &str = "durward_auth_duration_seconds";
const PHASE: &str = "durward_auth_phase_duration_seconds";
const DECISIONS: &str = "durward_auth_decisions_total";

#[test]
fn decisions_and_their_phases_move_as_requests_are_made() {
    let backend = Backend::start();
    let key = Key::es256("k1");
    let service = Setup::gateway(FOREIGN)
        .api(&backend)
        .file("jwks.json", Key::set(&[&key]))
        .start();
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
    let took = after
        .sum(&format!("{DURATION}_sum"), &[("outcome", "permitted")])
        .unwrap();
    assert!(took > 0.0 && took < 60.0, "{took}");
    let smallest = after
        .with(DURATION, &[("outcome", "permitted")])
        .find_map(|sample| match &sample.value {
            Value::Histogram(buckets) => buckets.first().map(|bucket| bucket.less_than),
            _ => None,
        });
    assert!(
        smallest.is_some_and(|bound| (bound - 250e-9).abs() < 1e-12),
        "{smallest:?}"
    );

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
    let service = Setup::up(OWN).api(&backend).start();
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
    let names: BTreeSet<&str> = after.0.iter().map(|sample| sample.metric.as_str()).collect();
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
    let service = Setup::up(OWN).api(&backend).start();
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
    let labels: BTreeSet<String> = Metrics::of(&service)
        .0
        .iter()
        .flat_map(|sample| sample.labels.keys().cloned().collect::<Vec<_>>())
        .collect();
    let known = [
        "route", "outcome", "reason", "phase", "status", "upstream", "cause", "issuer", "result", "state",
        "kind", "name",
    ];
    assert!(
        labels.iter().all(|label| known.contains(&label.as_str())),
        "{labels:?}"
    );
    let routes = Metrics::of(&service).values_of("route");
    let configured = [
        "/auth/**",
        "/.well-known/**",
        "/public/**",
        "/maybe/**",
        "/api/**",
        "/api/admin/**",
        "/images/{owner}/**",
        "none",
    ];
    assert!(
        routes.iter().all(|route| configured.contains(&route.as_str())),
        "{routes:?}"
    );
}

#[test]
fn health_and_metrics_are_not_on_the_edge() {
    let backend = Backend::start();
    let service = Setup::gateway(FOREIGN)
        .api(&backend)
        .file("jwks.json", Key::set(&[&Key::es256("k1")]))
        .start();
    for path in ["/metrics", "/livez", "/readyz"] {
        get(path).send(service.admin).expect(200);
        service.ask(&get(path)).expect_refusal(404, "no_route");
    }
    // And nothing of the edge is on the admin listener.
    get("/public/x").send(service.admin).expect(404);
    post("/metrics").send(service.admin).expect(405);
    assert!(backend.requests().is_empty());
}
