//! Any text is a policy, or is told what is wrong with it, in lines that there are; the same text
//! always the same. A policy that came of it judges requests without a panic.

#![no_main]

use durward_config::Document;
use durward_policy::{RawRequest, RequestFacts};
use http::{HeaderMap, HeaderValue, Method, Version};
use libfuzzer_sys::fuzz_target;

#[path = "../../gateway/policy/tests/support/mod.rs"]
mod support;

fuzz_target!(|text: &str| {
    if let Err(diagnostics) = Document::parse("c.yaml", text) {
        assert!(diagnostics.has_errors());
        let _ = diagnostics.to_string();
        return;
    }
    for own in [false, true] {
        let compiled = support::try_policy(text, own);
        match (&compiled, support::try_policy(text, own)) {
            (Ok(_), Ok(_)) => {}
            (Err(one), Err(other)) => {
                assert!(!one.is_empty());
                assert_eq!(*one, other);
                places_are_in(text, one);
            }
            _ => panic!("compiled once, and refused once: {text}"),
        }
        let Ok(policy) = compiled else { continue };
        let headers = HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("gw.test"))]);
        for target in ["/", "/a/b", "/%2e%2e/a", "/a//b/../c;d"] {
            let raw = RawRequest {
                method: &Method::GET,
                target: target.as_bytes(),
                authority: None,
                version: Version::HTTP_11,
                headers: &headers,
            };
            if let Ok(facts) = RequestFacts::judge(raw) {
                let _ = policy.routes().lookup(&facts);
            }
        }
    }
});

/// Every `c.yaml:LINE:COLUMN` is a place of the text.
fn places_are_in(text: &str, diagnostics: &str) {
    // YAML ends lines with a bare CR, too.
    let lines = text.split(['\n', '\r']).count();
    for place in diagnostics
        .lines()
        .filter_map(|line| line.strip_prefix("c.yaml:"))
    {
        let number: String = place.chars().take_while(char::is_ascii_digit).collect();
        if let Ok(line) = number.parse::<usize>() {
            assert!(line <= lines, "{diagnostics}");
        }
    }
}
