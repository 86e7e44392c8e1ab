//! Of a request's headers exactly those survive that no backend can take for the gateway's own, and
//! what is judged clean has one meaning. The input is a method, a target and header lines.

#![no_main]

use durward_policy::{RawRequest, RequestFacts, StripSet, canonical};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use libfuzzer_sys::fuzz_target;

const OWN: [&str; 4] = ["X-User-Id", "X-User-Roles", "Authorization", "X-Api-Key"];

fuzz_target!(|input: &[u8]| {
    let mut lines = input.split(|byte| *byte == b'\n');
    let request_line = lines.next().unwrap_or_default();
    let mut headers = HeaderMap::new();
    for line in lines.take(256) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line.get(colon + 1..).unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    strips_what_it_must(&headers);
    let mut words = request_line.splitn(2, |byte| *byte == b' ');
    let method = Method::from_bytes(words.next().unwrap_or_default()).unwrap_or(Method::GET);
    let target = words.next().unwrap_or(b"/");
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        let raw = RawRequest {
            method: &method,
            target,
            authority: None,
            version,
            headers: &headers,
        };
        if let Ok(facts) = RequestFacts::judge(raw) {
            means_one_thing(&facts, version);
        }
    }
});

fn strips_what_it_must(before: &HeaderMap) {
    let own: Vec<String> = OWN.iter().map(|name| by_hand(name)).collect();
    let mut after = before.clone();
    StripSet::new(OWN).strip_from(&mut after);
    for name in before.keys() {
        assert_eq!(canonical(name.as_str()), by_hand(name.as_str()), "{name}");
        let kept: Vec<_> = after.get_all(name).iter().collect();
        let expected: Vec<_> = if own.contains(&by_hand(name.as_str())) {
            Vec::new()
        } else {
            before.get_all(name).iter().collect()
        };
        assert_eq!(kept, expected, "{name}");
    }
    assert!(after.keys().all(|name| before.contains_key(name)));
}

/// Lower case, and everything that is neither letter nor digit a dash.
fn by_hand(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect()
}

/// What RFC 9112 sections 3 and 6 ask of a request, said again.
fn means_one_thing(facts: &RequestFacts<'_>, version: Version) {
    let count = |name: &str| facts.headers().get_all(name).iter().count();
    let told = format!("{facts:?}");
    if version == Version::HTTP_11 {
        assert_eq!(count("host"), 1, "{told}");
    }
    assert!(
        count("host") <= 1 && count("content-length") <= 1 && count("transfer-encoding") <= 1,
        "{told}"
    );
    assert!(
        count("content-length") + count("transfer-encoding") <= 1,
        "{told}"
    );
    if let Some(length) = facts.headers().get("content-length") {
        assert!(
            !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit),
            "{told}"
        );
    }
    let target = facts.forward_target();
    assert_eq!(target.first(), Some(&b'/'), "{told}");
    assert!(
        target
            .iter()
            .all(|byte| (0x21..0x7f).contains(byte) && *byte != b'#'),
        "{told}"
    );
    assert!(!["TRACE", "CONNECT"].contains(&facts.method().as_str()), "{told}");
    let host = facts.host();
    assert!(
        !host.is_empty() && !host.contains(['@', '/', '\\', ' ', ',', '?', '#']),
        "{told}"
    );
    assert_eq!(host, host.to_ascii_lowercase(), "{told}");
}
