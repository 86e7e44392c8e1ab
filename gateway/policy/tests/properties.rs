//! Properties: parsers never panic, names fold once and for all, and no rule widens access.

mod support;

use std::sync::LazyLock;

use durward_policy::json::{self, Limits};
use durward_policy::{Decision, KeySet, NoTrace, Policy, StripSet, canonical, decide, prove};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use support::{By, FixedKeys, HEADER, LIVE, NOW, Request, base64url, claims, good_token, token};

static POLICY: LazyLock<Policy> =
    LazyLock::new(|| support::policy_of_routes("  - { path: /**, upstream: api }"));
static KEYS: LazyLock<FixedKeys> = LazyLock::new(|| FixedKeys::usual(&POLICY));
static GOOD: LazyLock<String> = LazyLock::new(|| good_token(&[]));

fn permits(policy: &Policy, request: &Request) -> bool {
    let decision = decide(
        policy,
        &request.facts(),
        &FixedKeys::usual(policy),
        &LIVE,
        NOW,
        &mut NoTrace,
    );
    matches!(decision, Decision::Permit(_))
}

/// A `require` that may or may not hold for the tokens of [`some_claims`].
fn some_rule() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        "[ab]",
        Just("\"{owner}\"".to_owned()),
        Just("[a, b]".to_owned()),
        "[12]",
        Just("true".to_owned())
    ];
    let entry = ("(roles|sub|scope|level|mfa)", value).prop_filter("scopes are text", |(claim, value)| {
        claim != "scope" || !(value == "true" || value.parse::<i64>().is_ok())
    });
    let entry = entry.prop_map(|(claim, value)| format!("{claim}: {value}"));
    let any = proptest::collection::vec(entry.clone(), 1..3).prop_map(|entries| {
        format!(
            "any: [{}]",
            entries
                .iter()
                .map(|entry| format!("{{ {entry} }}"))
                .collect::<Vec<_>>()
                .join(", ")
        )
    });
    prop_oneof![4 => entry, 1 => any]
}

fn some_claims() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let value = |values: &'static [&'static str]| proptest::sample::select(values);
    (
        value(&[r#""a""#, r#""b""#, r#""x""#]),
        value(&[r#""a""#, r#"["a","b"]"#, "[]", r#"["c"]"#]),
        value(&[r#""a b""#, r#""ab""#, r#""""#]),
        value(&["1", "2", r#""1""#, "true"]),
        value(&["true", "false", r#""true""#]),
    )
        .prop_map(|(sub, roles, scope, level, mfa)| {
            vec![
                ("sub", sub),
                ("roles", roles),
                ("scope", scope),
                ("level", level),
                ("mfa", mfa),
            ]
        })
}

fn policy_requiring(rules: &[String]) -> Option<Policy> {
    let require = match rules {
        [] => String::new(),
        rules => format!(", require: {{ {} }}", rules.join(", ")),
    };
    let routes = format!("routes:\n  - {{ path: \"/{{owner}}/**\", upstream: api{require} }}\n");
    support::try_policy(&format!("{}{}{routes}", support::ISSUERS, support::REST), false).ok()
}

/// The whole number -0 is 0 here, and the fraction -0.0 there: RFC 8259 leaves it open.
fn with_one_zero(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Number(number) if number.as_f64() == Some(0.0) => Value::from(0),
        Value::Array(items) => items.into_iter().map(with_one_zero).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (name, with_one_zero(value)))
            .collect(),
        value => value,
    }
}

#[test]
fn minus_zero_is_zero() {
    let read = json::parse(b"[-0]", Limits::TOKEN).unwrap();
    assert_eq!(read.to_string(), "[0]");
    assert_eq!(
        with_one_zero(serde_json::from_str("[-0]").unwrap()),
        serde_json::json!([0])
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = json::parse(&bytes, Limits::TOKEN);
        let issuer = POLICY.issuers().iter().next().unwrap();
        let _ = KeySet::from_jwks(&bytes, issuer, 0);
        let _ = KeySet::from_pem(&bytes, durward_policy::Algorithm::RS256, 0);
        let _ = prove(&POLICY, &String::from_utf8_lossy(&bytes), &*KEYS);
        let parts = [base64url(&bytes), base64url(claims(&[])), base64url([0; 64])];
        prop_assert!(prove(&POLICY, &parts.join("."), &*KEYS).is_err());
    }

    #[test]
    fn json_agrees_with_a_laxer_reader(text in r#"[\[\]{}:,"a-c\\u0-9eE+.\- \n]{0,24}"#) {
        if let Ok(value) = json::parse(text.as_bytes(), Limits::TOKEN) {
            let theirs = serde_json::from_str(&text).unwrap();
            let ours = serde_json::from_str(&value.to_string()).unwrap();
            prop_assert_eq!(with_one_zero(ours), with_one_zero(theirs), "{}", text);
        }
    }

    #[test]
    fn json_reads_what_it_writes(text in ".*") {
        let written = serde_json::to_string(&text).unwrap();
        let read = json::parse(written.as_bytes(), Limits::TOKEN).unwrap();
        prop_assert_eq!(read.as_text(), Some(text.as_str()));
    }

    #[test]
    fn a_changed_token_is_another_token(place in 0..1000_usize, byte in any::<u8>()) {
        let mut changed = GOOD.clone().into_bytes();
        let place = place % changed.len();
        changed[place] = byte;
        let changed = String::from_utf8_lossy(&changed).into_owned();
        prop_assert_eq!(prove(&POLICY, &changed, &*KEYS).is_ok(), changed == *GOOD);
    }

    #[test]
    fn members_in_any_order_and_a_stranger_among_them(name in "[a-z]{1,8}_x", value in "[0-9]{1,5}") {
        let token = token(By::Es256, HEADER, claims(&[(&name, value.trim_start_matches('0').get(..1).unwrap_or("0"))]));
        prop_assert!(prove(&POLICY, &token, &*KEYS).is_ok());
    }

    #[test]
    fn names_fold_once_and_for_all(name in "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}") {
        let once = canonical(&name);
        prop_assert_eq!(&canonical(&once), &once);
        prop_assert!(StripSet::new([name.as_str()]).strips(&once));
        prop_assert!(StripSet::new([once.as_str()]).strips(&name));
    }

    #[test]
    fn no_alias_survives(names in proptest::collection::vec("[xX][-_.~][uU]ser[-_.!][iI][dD]|[a-z-]{1,12}", 0..40)) {
        let mut headers = HeaderMap::new();
        for name in &names {
            headers.append(HeaderName::try_from(name.as_str()).unwrap(), HeaderValue::from_static("v"));
        }
        StripSet::new(["X-User-Id"]).strip_from(&mut headers);
        for name in names {
            let kept = headers.contains_key(name.to_ascii_lowercase().as_str());
            prop_assert_eq!(kept, canonical(&name) != "x-user-id");
        }
    }

    #[test]
    fn another_rule_never_widens_access(
        rules in proptest::collection::vec(some_rule(), 0..3),
        more in some_rule(),
        claims in some_claims(),
        owner in "[abx]",
    ) {
        let longer: Vec<_> = rules.iter().cloned().chain([more]).collect();
        // Two entries for one claim are an error of the file; then there is nothing to compare.
        if let (Some(policy), Some(stricter)) = (policy_requiring(&rules), policy_requiring(&longer)) {
            let request = Request::get(&format!("/{owner}/x")).bearer(&good_token(&claims));
            prop_assert!(permits(&policy, &request) || !permits(&stricter, &request));
        }
    }

    #[test]
    fn nobody_passes_without_a_credential(rules in proptest::collection::vec(some_rule(), 0..3)) {
        if let Some(policy) = policy_requiring(&rules) {
            prop_assert!(!permits(&policy, &Request::get("/a/x")));
            prop_assert!(!permits(&policy, &Request::get("/a/x").bearer("a.b.c")));
        }
    }
}
