//! Every kind of bad token is a 401 with the same words, and the backend hears nothing of it. Here:
//! algorithms, keys and headers.

mod claims;
mod form;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::harness::{Backend, Key, Service, Setup, claims, get, mint, mint_with, now, sign};

struct Stand {
    backend: Backend,
    service: Service,
    es256: Key,
    rs256: Key,
    eddsa: Key,
}

fn stand() -> Stand {
    let backend = Backend::start();
    let [es256, eddsa, rs256] = [Key::es256("e1"), Key::eddsa("d1"), Key::rs256("r1")];
    let service = Setup::foreign(&backend, &[&es256, &eddsa, &rs256]).start();
    Stand {
        backend,
        service,
        es256,
        rs256,
        eddsa,
    }
}

impl Stand {
    #[track_caller]
    fn assert_accepted(&self, token: &str, told: &str) {
        println!("case {told}");
        self.service.ask(&get("/api/x").bearer(token)).expect(200);
        assert_eq!(self.backend.take_one().values("x-user-id"), ["alice"], "{told}");
    }

    #[track_caller]
    fn assert_refused(&self, token: &str, reasons: &[&str], told: &str) {
        for path in ["/api/x", "/maybe/x"] {
            println!("case {told} at {path}");
            let answer = self.service.ask(&get(path).bearer(token));
            assert_eq!(answer.status, 401, "{told}: {}", answer.text());
            assert!(
                reasons.contains(&answer.reason().as_str()),
                "{told}: {}",
                answer.reason()
            );
            let challenge = answer.header("www-authenticate");
            assert!(
                challenge.starts_with("Bearer ") && challenge.contains(r#"error="invalid_token""#),
                "{challenge}"
            );
            assert_eq!(answer.header("content-type"), "application/problem+json");
            assert_eq!(answer.header("cache-control"), "no-store");
            assert_generic(&answer.json(), told);
            assert!(self.backend.take().is_empty(), "{told}");
        }
    }

    fn header(&self) -> Value {
        json!({ "alg": "ES256", "typ": "at+jwt", "kid": "e1" })
    }

    /// A token that is good but for these header members; null takes one away.
    fn with_header(&self, changes: &Value) -> String {
        mint_with(&self.es256, &changed(self.header(), changes), &claims("alice"))
    }

    /// A token that is good but for these claims; null takes one away.
    fn with_claims(&self, changes: &Value) -> String {
        mint_with(&self.es256, &self.header(), &changed(claims("alice"), changes))
    }

    /// A token with a good signature over this payload.
    fn with_payload(&self, payload: impl AsRef<[u8]>) -> String {
        sign(
            &self.es256,
            self.header().to_string().as_bytes(),
            payload.as_ref(),
        )
    }
}

/// The client learns which row of the table it was, and nothing of what was compared with what.
#[track_caller]
fn assert_generic(body: &Value, told: &str) {
    let members: Vec<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert!(
        members
            .iter()
            .all(|name| ["type", "title", "status", "detail", "reason"].contains(name)),
        "{members:?}"
    );
    let detail = body["detail"].as_str().unwrap();
    let known = [
        "The token is not accepted.",
        "The token has expired.",
        "The token is not valid yet.",
    ];
    assert!(
        known.contains(&detail) || detail == "The credential is malformed.",
        "{told}: {detail}"
    );
}

fn changed(mut whole: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            whole.as_object_mut().unwrap().remove(name);
        } else {
            whole[name] = value.clone();
        }
    }
    whole
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[test]
fn good_tokens_of_every_key_are_accepted() {
    let stand = stand();
    for key in [&stand.es256, &stand.rs256, &stand.eddsa] {
        stand.assert_accepted(&mint(key, &claims("alice")), key.algorithm());
    }
    for (told, changes) in [
        ("typ as a media type", json!({ "typ": "application/at+jwt" })),
        ("typ in other letters", json!({ "typ": "AT+JWT" })),
        ("unknown header", json!({ "foo": { "bar": 1 } })),
    ] {
        stand.assert_accepted(&stand.with_header(&changes), told);
    }
    for (told, changes) in [
        ("one audience of several", json!({ "aud": ["other", "gateway"] })),
        ("unknown claim", json!({ "x": { "deep": [1, 2] } })),
        ("nbf in the past", json!({ "nbf": now() - 10 })),
    ] {
        stand.assert_accepted(&stand.with_claims(&changes), told);
    }
}

#[test]
fn no_algorithm_but_that_of_the_key() {
    let stand = stand();
    let good = mint(&stand.es256, &claims("alice"));
    let (_, rest) = good.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    for alg in [
        json!("none"),
        json!("None"),
        json!("NONE"),
        json!("nOnE"),
        json!("none "),
        json!(""),
        json!(0),
        json!([]),
    ] {
        let header = encoded(&json!({ "alg": alg, "typ": "at+jwt", "kid": "e1" }));
        for end in ["", signature] {
            stand.assert_refused(
                &format!("{header}.{payload}.{end}"),
                &["token_algorithm", "token_malformed", "token_header"],
                &format!("{alg}"),
            );
        }
    }
    // A public key used as a secret, in every form that an attacker could have it in.
    for key in [&stand.es256, &stand.rs256, &stand.eddsa] {
        let pem = key.pem();
        let der = STANDARD
            .decode(
                pem.lines()
                    .filter(|line| !line.starts_with('-'))
                    .collect::<String>(),
            )
            .unwrap();
        let trimmed = pem.trim_end().to_owned();
        for secret in [
            pem.as_bytes(),
            trimmed.as_bytes(),
            &der,
            key.jwk().to_string().as_bytes(),
            b"",
        ] {
            let forged = mint(&Key::hs256(key.kid(), secret), &claims("alice"));
            stand.assert_refused(&forged, &["token_algorithm"], key.algorithm());
        }
    }
    for alg in [
        "HS256", "HS384", "HS512", "ES384", "ES512", "ES256K", "PS256", "RS512", "EdDSA", "Ed25519", "es256",
        "RS256",
    ] {
        let forged = stand.with_header(&json!({ "alg": alg }));
        stand.assert_refused(&forged, &["token_algorithm"], alg);
    }
    let forged = mint_with(
        &stand.rs256,
        &json!({ "alg": "PS256", "typ": "at+jwt", "kid": "r1" }),
        &claims("alice"),
    );
    stand.assert_refused(&forged, &["token_algorithm"], "PS256 on a key for RS256");
}

#[test]
fn no_key_but_the_issuers() {
    let stand = stand();
    let stranger = Key::es256("e1");
    stand.assert_refused(
        &mint(&stranger, &claims("alice")),
        &["bad_signature"],
        "a stranger's key",
    );
    stand.assert_refused(
        &mint(&Key::es256("zz"), &claims("alice")),
        &["unknown_key"],
        "unknown kid",
    );
    for kid in [
        json!("../../../../dev/null"),
        json!("e1\0"),
        json!(" e1"),
        json!("e1 "),
        json!("e1; DROP TABLE keys"),
        json!("E1"),
        json!(""),
    ] {
        stand.assert_refused(
            &stand.with_header(&json!({ "kid": kid })),
            &["unknown_key", "token_header"],
            &format!("{kid}"),
        );
    }
    for kid in [json!(1), json!(["e1"]), json!({}), json!(true)] {
        stand.assert_refused(
            &stand.with_header(&json!({ "kid": kid })),
            &["token_header", "token_malformed"],
            &format!("{kid}"),
        );
    }
    stand.assert_refused(
        &stand.with_header(&json!({ "kid": null })),
        &["unknown_key", "token_header"],
        "no kid",
    );
    // A key that the token brings with it, or says where to find.
    let listener = Backend::answering({
        let set = Key::set(&[&stranger]);
        move |_| crate::harness::Reply::ok(&set)
    });
    let url = format!("http://{}/jwks.json", listener.address());
    for brought in [
        json!({ "jwk": stranger.jwk() }),
        json!({ "jku": url }),
        json!({ "x5u": url }),
        json!({ "x5c": ["bm90IGEgY2VydA=="] }),
    ] {
        let header = changed(stand.header(), &brought);
        let told = brought.to_string();
        stand.assert_refused(
            &mint_with(&stranger, &header, &claims("alice")),
            &["token_header", "bad_signature"],
            &told,
        );
    }
    assert!(
        listener.requests().is_empty(),
        "a key was fetched from where the token said"
    );
}

#[test]
fn no_header_that_is_not_understood() {
    let stand = stand();
    for (changes, reasons) in [
        (json!({ "crit": ["exp"], "exp": 1 }), &["token_header"][..]),
        (json!({ "crit": [] }), &["token_header"]),
        (json!({ "crit": ["nope"] }), &["token_header"]),
        (json!({ "crit": "b64", "b64": true }), &["token_header"]),
        (json!({ "b64": false }), &["token_header"]),
        (json!({ "zip": "DEF" }), &["token_header"]),
        (json!({ "typ": null }), &["token_type"]),
        (json!({ "typ": "JWT" }), &["token_type"]),
        (json!({ "typ": "logout+jwt" }), &["token_type"]),
        (json!({ "typ": "secevent+jwt" }), &["token_type"]),
        (json!({ "typ": "at+jwt " }), &["token_type"]),
        (json!({ "typ": 1 }), &["token_type", "token_header"]),
    ] {
        stand.assert_refused(&stand.with_header(&changes), reasons, &changes.to_string());
    }
}
