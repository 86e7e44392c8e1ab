//! `assertion:` compiled.

use std::path::{Path, PathBuf};
use std::time::Duration;

use durward_config::{Diagnostics, Node};
use durward_policy::identity_header_name;
use http::HeaderName;

use super::key_path;
use crate::config::duration;

const DEFAULT_HEADER: HeaderName = HeaderName::from_static("x-durward-assertion");
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
const SHORTEST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);
const MAX_ISSUER_BYTES: usize = 512;

/// How the gateway signs who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionConfig {
    /// The file of the key that signs.
    pub key: PathBuf,
    /// `iss`.
    pub issuer: String,
    /// The header that it is sent in.
    pub header: HeaderName,
    /// From `iat` to `exp`.
    pub lifetime: Duration,
}

impl AssertionConfig {
    pub(crate) fn lifetime_seconds(&self) -> i64 {
        i64::try_from(self.lifetime.as_secs()).unwrap_or(i64::MAX)
    }
}

pub(crate) fn compile_assertion(
    node: Option<&Node>,
    base: &Path,
    diagnostics: &mut Diagnostics,
) -> Option<AssertionConfig> {
    let node = node?;
    let mut section = node.section("assertion", diagnostics)?;
    let key = section.required("key", "write `key: data/assertion.key`", diagnostics);
    let issuer = section.required(
        "issuer",
        "write `issuer: https://gateway.example.com`",
        diagnostics,
    );
    let header = section.optional("header");
    let lifetime = section.optional("lifetime");
    section.finish(diagnostics);
    let key = key.and_then(|node| node.text("assertion.key", diagnostics));
    let issuer = issuer.and_then(|node| compile_issuer(node, diagnostics));
    let header = match header {
        None => Some(DEFAULT_HEADER),
        Some(node) => node
            .text("assertion.header", diagnostics)
            .and_then(|name| identity_header_name(name, node.place, diagnostics)),
    };
    let lifetime = duration(
        lifetime,
        "assertion.lifetime",
        SHORTEST..=LONGEST,
        DEFAULT_LIFETIME,
        diagnostics,
    );
    let config = AssertionConfig {
        key: key_path(base, key?),
        issuer: issuer?,
        header: header?,
        lifetime,
    };
    if let Err(problem) = config.check_key() {
        let advice = "remove the file, and a start makes a new key";
        diagnostics.error(node.place, problem, advice);
        return None;
    }
    Some(config)
}

fn compile_issuer(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let issuer = node.text("assertion.issuer", diagnostics)?;
    if issuer.len() > MAX_ISSUER_BYTES {
        let message = format!("assertion.issuer has {} bytes", issuer.len());
        let advice = format!("write at most {MAX_ISSUER_BYTES}");
        diagnostics.error(node.place, message, advice);
        return None;
    }
    Some(issuer.to_owned())
}

#[cfg(test)]
mod tests {
    use durward_config::Document;

    use super::*;

    fn compile(text: &str) -> (Option<AssertionConfig>, String) {
        let document = Document::parse("c.yaml", text).unwrap();
        let mut diagnostics = Diagnostics::default();
        let config = compile_assertion(Some(document.root()), Path::new("/nowhere"), &mut diagnostics);
        (config, diagnostics.located_in(&document).to_string())
    }

    #[test]
    fn a_key_and_an_issuer_are_enough() {
        let (config, text) = compile("{ key: data/a.key, issuer: https://gw.test }");
        let config = config.unwrap_or_else(|| panic!("{text}"));
        assert_eq!(config.key, Path::new("/nowhere/data/a.key"));
        assert_eq!(config.header, DEFAULT_HEADER);
        assert_eq!(config.lifetime_seconds(), 60);
        assert!(config.is_taken_for("x_durward.assertion"));
    }

    #[test]
    fn every_error_is_told() {
        for (yaml, expected) in [
            ("{}", "`key` is missing"),
            ("{}", "`issuer` is missing"),
            ("{ key: k, issuer: '' }", "assertion.issuer must be text"),
            (
                "{ key: k, issuer: i, header: Authorization }",
                "cannot be an identity header",
            ),
            (
                "{ key: k, issuer: i, lifetime: 1h }",
                "assertion.lifetime is out of range",
            ),
            ("{ key: k, issuer: i, ttl: 1m }", "unknown key `ttl`"),
        ] {
            let (config, text) = compile(yaml);
            assert!(config.is_none() || text.contains("error"), "{yaml}");
            assert!(text.contains(expected), "{yaml}: {expected} is not in\n{text}");
        }
    }
}
