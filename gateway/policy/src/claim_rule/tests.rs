use durward_config::{Diagnostics, Document};

use super::Requirement;
use crate::json::{Limits, parse_object};
use crate::{NoTrace, Outcome, Reason};

const PARAMS: [&str; 2] = ["owner", "name"];

fn compile(yaml: &str) -> Result<Requirement, String> {
    let document = Document::parse("c.yaml", yaml).unwrap();
    let mut diagnostics = Diagnostics::default();
    let requirement = Requirement::compile(document.root(), &PARAMS, &mut diagnostics);
    let text = diagnostics.located_in(&document).to_string();
    requirement.ok_or(text)
}

fn verdict(yaml: &str, claims: &str) -> Option<Reason> {
    let claims = parse_object(claims.as_bytes(), Limits::TOKEN).unwrap();
    let params: &[&str] = &["u 1", ""];
    let requirement = compile(yaml).unwrap();
    requirement
        .check_claims(&claims, params, Outcome::Refused, &mut NoTrace)
        .err()
        .map(|rejection| rejection.reason)
}

#[test]
fn claims_compare_by_type_and_exactly() {
    for (require, claims, holds) in [
        ("roles: admin", r#"{"roles":"admin"}"#, true),
        ("roles: admin", r#"{"roles":["user","admin"]}"#, true),
        ("roles: admin", r#"{}"#, false),
        ("roles: admin", r#"{"roles":null}"#, false),
        ("roles: admin", r#"{"roles":"Admin"}"#, false),
        ("roles: admin", r#"{"roles":"admin "}"#, false),
        ("roles: admin", r#"{"roles":"administrator"}"#, false),
        ("roles: admin", r#"{"roles":["administrator"]}"#, false),
        ("roles: admin", r#"{"roles":"user,admin"}"#, false),
        ("roles: admin", r#"{"roles":"user admin"}"#, false),
        ("roles: admin", r#"{"roles":{"admin":true}}"#, false),
        ("roles: admin", r#"{"roles":[["admin"]]}"#, false),
        ("roles: admin", r#"{"roles":["admin",1]}"#, false),
        ("roles: [admin, root]", r#"{"roles":["root"]}"#, true),
        ("roles: [admin, root]", r#"{"roles":[]}"#, false),
        ("level: 3", r#"{"level":3}"#, true),
        ("level: 3", r#"{"level":"3"}"#, false),
        ("level: 3", r#"{"level":3.0}"#, false),
        ("level: \"3\"", r#"{"level":3}"#, false),
        ("level: 1.5", r#"{"level":1.5}"#, true),
        ("mfa: true", r#"{"mfa":true}"#, true),
        ("mfa: true", r#"{"mfa":"true"}"#, false),
        ("mfa: true", r#"{"mfa":1}"#, false),
        ("a.b: x", r#"{"a":{"b":"x"}}"#, true),
        ("a.b: x", r#"{"a.b":"x"}"#, false),
        ("a.b: x", r#"{"a":"x"}"#, false),
        ("\"https://x.test/a.b\": x", r#"{"https://x.test/a.b":"x"}"#, true),
        (
            "{ roles: admin, mfa: true }",
            r#"{"roles":"admin","mfa":false}"#,
            false,
        ),
    ] {
        let expected = (!holds).then_some(Reason::RuleRefused);
        assert_eq!(verdict(require, claims), expected, "{require} of {claims}");
    }
}

#[test]
fn scope_is_a_set_and_its_lack_has_its_own_reason() {
    for (require, claims, holds) in [
        ("scope: read", r#"{"scope":"write read"}"#, true),
        ("scope: read", r#"{"scope":"readonly"}"#, false),
        ("scope: read", r#"{"scope":"read-lite write"}"#, false),
        ("scope: read", r#"{"scope":"READ"}"#, false),
        ("scope: read", r#"{"scope":["read"]}"#, false),
        ("scope: read", r#"{}"#, false),
        ("scope: read write", r#"{"scope":"read"}"#, false),
        ("scope: read write", r#"{"scope":"write x read"}"#, true),
        ("scope: [read, write]", r#"{"scope":"write"}"#, true),
    ] {
        let expected = (!holds).then_some(Reason::InsufficientScope);
        assert_eq!(verdict(require, claims), expected, "{require} of {claims}");
    }
}

#[test]
fn a_parameter_is_the_decoded_text_and_never_empty() {
    assert_eq!(verdict(r#"sub: "{owner}""#, r#"{"sub":"u 1"}"#), None);
    assert_eq!(
        verdict(r#"sub: "{owner}""#, r#"{"sub":"u%201"}"#),
        Some(Reason::RuleRefused)
    );
    assert_eq!(verdict(r#"groups: "{owner}""#, r#"{"groups":["x","u 1"]}"#), None);
    assert_eq!(
        verdict(r#"sub: "{name}""#, r#"{"sub":""}"#),
        Some(Reason::RuleRefused)
    );
    assert!(compile(r#"sub: "{owner}""#).unwrap().uses_param(0));
    assert!(!compile(r#"sub: "{owner}""#).unwrap().uses_param(1));
    assert!(compile(r#"any: [{ sub: "{name}" }]"#).unwrap().uses_param(1));
}

#[test]
fn any_needs_one_alternative_and_the_rest_still_holds() {
    let rule = r#"{ mfa: true, any: [{ roles: admin }, { sub: "{owner}" }] }"#;
    assert_eq!(verdict(rule, r#"{"mfa":true,"roles":"admin"}"#), None);
    assert_eq!(verdict(rule, r#"{"mfa":true,"sub":"u 1"}"#), None);
    assert_eq!(
        verdict(rule, r#"{"mfa":true,"sub":"u2"}"#),
        Some(Reason::RuleRefused)
    );
    assert_eq!(
        verdict(rule, r#"{"sub":"u 1","roles":"admin"}"#),
        Some(Reason::RuleRefused)
    );
    assert_eq!(
        verdict("any: [{ scope: a }, { scope: b }]", "{}"),
        Some(Reason::InsufficientScope)
    );
}

#[test]
fn mistakes_are_errors_with_a_place_and_never_a_weaker_rule() {
    for (yaml, message) in [
        ("{}", "requires nothing"),
        ("roles: []", "no value of `roles` would do"),
        ("roles:", "cannot be required to be nothing"),
        ("roles: { a: b }", "cannot be required to be a mapping"),
        ("roles: [admin, [x]]", "cannot be required to be a list"),
        ("scope: 3", "cannot be required to be a whole number"),
        ("scope: ' '", "cannot be required to be text"),
        (r#"sub: "{nobody}""#, "no parameter `nobody`"),
        (r#"sub: "x{owner}""#, "neither a value nor a parameter"),
        ("any: []", "`any` is empty"),
        ("any: { roles: admin }", "must be a list"),
        ("any: [{}]", "requires nothing"),
        ("a..b: x", "no name of a claim"),
        (
            "any: [{ any: [{ any: [{ any: [{ any: [{ a: b }] }] }] }] }]",
            "nested too deeply",
        ),
        ("admin", "must be a mapping"),
    ] {
        let text = compile(yaml).expect_err(yaml);
        assert!(
            text.contains(message) && text.contains("c.yaml:1:"),
            "{yaml}: {text}"
        );
    }
    let text = compile("{ roles: [], sub: \"{x}\" }").unwrap_err();
    assert!(
        text.contains("no value") && text.contains("no parameter"),
        "{text}"
    );
}
