//! What is shipped in `deploy/` for operating: it names what there is, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::durward;

/// Suffixes that Prometheus adds to a histogram's name.
const OF_HISTOGRAMS: [&str; 3] = ["_bucket", "_count", "_sum"];

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every word that is a metric's name.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("durward_"));
    names
        .map(|name| {
            let plain = OF_HISTOGRAMS.iter().find_map(|suffix| name.strip_suffix(suffix));
            plain.unwrap_or(name).to_owned()
        })
        .collect()
}

/// The names of docs/METRICS.md, with those that it abbreviates.
fn documented() -> BTreeSet<String> {
    let text = read("docs/METRICS.md");
    let mut names = metrics_in(&text);
    let short = text
        .lines()
        .filter(|line| line.contains("`..._"))
        .flat_map(|line| line.split('`').filter_map(|word| word.strip_prefix("...")));
    for rest in short {
        for prefix in ["durward_auth_service", "durward_auth_service_password_hash"] {
            names.insert(format!("{prefix}{rest}"));
        }
    }
    names
}

#[test]
fn rules_and_dashboard_ask_for_metrics_that_there_are() {
    let documented = documented();
    for file in [
        "deploy/prometheus/durward.rules.yaml",
        "deploy/grafana/durward.json",
    ] {
        let used = metrics_in(&read(file));
        assert!(used.len() > 10, "{file}: {used:?}");
        let unknown: Vec<_> = used
            .difference(&documented)
            .filter(|name| *name != "durward_json")
            .collect();
        assert!(unknown.is_empty(), "{file} asks for {unknown:?}");
    }
}

#[test]
fn every_panel_of_the_dashboard_asks_something_and_has_its_own_place() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/durward.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut places = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_i64().unwrap()), "{panel}");
        let place = &panel["gridPos"];
        assert!(
            places.insert((place["x"].as_i64(), place["y"].as_i64())),
            "{panel}"
        );
        if panel["type"] != "row" {
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{panel}");
            for target in targets {
                let expression = target["expr"].as_str().unwrap();
                assert!(expression.contains("durward_"), "{panel}");
                let opened = expression.matches(['(', '{', '[']).count();
                assert_eq!(
                    opened,
                    expression.matches([')', '}', ']']).count(),
                    "{expression}"
                );
            }
        }
    }
}

#[test]
fn units_and_container_run_commands_that_there_are() {
    let files = [
        ("deploy/systemd/durward-gateway.service", "gateway"),
        ("deploy/systemd/durward-auth.service", "auth"),
    ];
    for (file, command) in files {
        let text = read(file);
        let line = format!("ExecStart=/usr/local/bin/durward {command} --config /etc/durward/config.yaml");
        assert!(text.lines().any(|its| its == line), "{file}");
        for hardened in [
            "DynamicUser=yes",
            "ProtectSystem=strict",
            "NoNewPrivileges=yes",
            "UMask=0077",
            "MemoryDenyWriteExecute=yes",
        ] {
            assert!(text.lines().any(|its| its == hardened), "{file}: {hardened}");
        }
    }
    let container = read("deploy/container/Containerfile");
    assert!(container.contains("USER 65532") && container.contains("CMD [\"gateway\""));
    for command in ["gateway", "auth", "check"] {
        let help = durward(&[command, "--help"], &std::env::temp_dir());
        assert_eq!(help.code, 0, "{help:?}");
        assert!(help.stdout.contains("--config"), "{help:?}");
    }
}
