//! Every kind of bad token is a 401 with the same words, and the backend hears nothing of it.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::harness::{
    Backend, FOREIGN, FOREIGN_ISSUER, Key, Service, Setup, claims, get, mint, mint_with, now, sign,
};

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
    let service = Setup::gateway(FOREIGN)
        .api(&backend)
        .file("jwks.json", Key::set(&[&es256, &eddsa, &rs256]))
        .start();
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
        self.service.ask(&get("/api/x").bearer(token)).expect(200);
        assert_eq!(self.backend.take_one().values("x-user-id"), ["alice"], "{told}");
    }

    #[track_caller]
    fn assert_refused(&self, token: &str, reasons: &[&str], told: &str) {
        for path in ["/api/x", "/maybe/x"] {
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

#[test]
fn no_claims_but_the_right_ones() {
    let stand = stand();
    for (changes, reasons) in [
        (json!({ "iss": null }), &["claim_missing"][..]),
        (
            json!({ "iss": "https://other.example.test" }),
            &["unknown_issuer"],
        ),
        (
            json!({ "iss": format!("{FOREIGN_ISSUER}/") }),
            &["unknown_issuer"],
        ),
        (
            json!({ "iss": [FOREIGN_ISSUER] }),
            &["claim_invalid", "unknown_issuer"],
        ),
        (json!({ "aud": null }), &["claim_missing"]),
        (json!({ "aud": "other" }), &["wrong_audience"]),
        (json!({ "aud": "gateway2" }), &["wrong_audience"]),
        (json!({ "aud": "Gateway" }), &["wrong_audience"]),
        (json!({ "aud": "" }), &["wrong_audience", "claim_invalid"]),
        (json!({ "aud": [] }), &["wrong_audience", "claim_invalid"]),
        (json!({ "aud": 1 }), &["claim_invalid"]),
        (json!({ "aud": { "gateway": true } }), &["claim_invalid"]),
        (json!({ "aud": [["gateway"]] }), &["claim_invalid"]),
        (json!({ "aud": ["gateway", 1] }), &["claim_invalid"]),
        (json!({ "sub": null }), &["claim_missing"]),
        (json!({ "sub": "" }), &["claim_invalid"]),
        (json!({ "sub": 7 }), &["claim_invalid"]),
        (json!({ "sub": "a\r\nX-User-Id: root" }), &["claim_invalid"]),
        (json!({ "jti": null }), &["claim_missing"]),
        (json!({ "jti": 5 }), &["claim_invalid"]),
        (json!({ "jti": "" }), &["claim_invalid"]),
        (json!({ "jti": "x\r\nDEL y" }), &["claim_invalid"]),
    ] {
        stand.assert_refused(&stand.with_claims(&changes), reasons, &changes.to_string());
    }
}

#[test]
fn no_time_but_now() {
    let stand = stand();
    let malformed = &["claim_invalid", "claim_missing", "token_malformed"][..];
    for (changes, reasons) in [
        (json!({ "exp": null }), &["claim_missing"][..]),
        (json!({ "exp": now() - 1, "iat": now() - 60 }), &["token_expired"]),
        (json!({ "exp": 0 }), &["token_expired", "claim_invalid"]),
        (json!({ "exp": -1 }), &["token_expired", "claim_invalid"]),
        (json!({ "exp": "4102444800" }), malformed),
        (json!({ "exp": true }), malformed),
        (json!({ "exp": [4_102_444_800_u64] }), malformed),
        (json!({ "exp": u64::MAX }), &["claim_invalid", "token_lifetime"]),
        (json!({ "exp": 1e300 }), &["claim_invalid", "token_lifetime"]),
        (json!({ "exp": now() + 25 * 3600 }), &["token_lifetime"]),
        (json!({ "nbf": now() + 600 }), &["token_not_yet_valid"]),
        (json!({ "nbf": "0" }), malformed),
        (json!({ "iat": null }), &["claim_missing"]),
        (
            json!({ "iat": now() + 600, "exp": now() + 900 }),
            &["token_not_yet_valid"],
        ),
        (json!({ "iat": "0" }), malformed),
        (
            json!({ "iat": now() + 200, "exp": now() + 100 }),
            &["token_not_yet_valid", "claim_invalid"],
        ),
    ] {
        stand.assert_refused(&stand.with_claims(&changes), reasons, &changes.to_string());
    }
    for exp in ["NaN", "Infinity", "04102444800", "-0", "1e", ".5", "0x7fffffff"] {
        let payload = claims("alice").to_string().replacen(
            &format!("\"exp\":{}", claims("alice")["exp"]),
            &format!("\"exp\":{exp}"),
            1,
        );
        assert!(payload.contains(exp));
        stand.assert_refused(
            &stand.with_payload(payload),
            &["token_malformed", "claim_invalid", "token_expired"],
            exp,
        );
    }
}

#[test]
fn no_signature_but_a_whole_one() {
    let stand = stand();
    let good = mint(&stand.es256, &claims("alice"));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let with = |signature: &[u8]| format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    let flipped: Vec<u8> = bytes
        .iter()
        .enumerate()
        .map(|(at, byte)| if at == 7 { byte ^ 1 } else { *byte })
        .collect();
    let doubled = [&bytes[..], &bytes[..]].concat();
    let zero_s = [&bytes[..32], &[0; 32]].concat();
    let padded = [&[0][..], &bytes[..32], &[0], &bytes[32..]].concat();
    for (told, signature) in [
        ("empty", &[][..]),
        ("one byte", &[1]),
        ("zeros", &[0; 64]),
        ("ones", &[255; 64]),
        ("half", &bytes[..32]),
        ("flipped", &flipped),
        ("doubled", &doubled),
        ("s of zero", &zero_s),
        ("66 bytes", &padded),
    ] {
        stand.assert_refused(&with(signature), &["bad_signature", "token_malformed"], told);
    }
    let (header, _) = signed.split_once('.').unwrap();
    let other = format!("{header}.{}.{signature}", encoded(&claims("root")));
    stand.assert_refused(&other, &["bad_signature"], "another payload");
}

#[test]
fn no_shape_but_that_of_a_token() {
    let stand = stand();
    let good = mint(&stand.es256, &claims("alice"));
    let parts: Vec<&str> = good.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let shape = &[
        "token_malformed",
        "malformed_credential",
        "bad_signature",
        "token_too_large",
    ][..];
    let mut last = signature.to_owned();
    // The last of 86 characters holds four bits that count and two that must be zero.
    let end = last.pop().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    last.push(alphabet.chars().nth(alphabet.find(end).unwrap() + 1).unwrap());
    let standard = STANDARD.encode(URL_SAFE_NO_PAD.decode(payload).unwrap());
    for (told, token) in [
        ("two parts", format!("{header}.{payload}")),
        ("four parts", format!("{good}.{signature}")),
        (
            "five parts",
            format!("{header}..{payload}.{signature}.{signature}"),
        ),
        ("leading dot", format!(".{good}")),
        ("trailing dot", format!("{good}.")),
        ("no header", format!(".{payload}.{signature}")),
        ("no payload", format!("{header}..{signature}")),
        ("padding", format!("{good}==")),
        ("padding inside", format!("{header}=.{payload}.{signature}")),
        (
            "other alphabet",
            format!("{header}.{}.{signature}", standard.replace('-', "+")),
        ),
        ("plus", format!("{good}+")),
        ("not canonical", format!("{header}.{payload}.{last}")),
        ("percent", format!("{header}%2E{payload}.{signature}")),
        ("one character more", format!("{good}A")),
        ("words", "null".to_owned()),
        ("large", format!("{header}.{}.{signature}", "A".repeat(20_000))),
    ] {
        stand.assert_refused(&token, shape, told);
    }
    for (told, payload) in [
        ("a list", b"[1]".to_vec()),
        ("a text", b"\"x\"".to_vec()),
        ("nothing", Vec::new()),
        ("null", b"null".to_vec()),
        ("trailing", format!("{}{{}}", claims("alice")).into_bytes()),
        (
            "a byte order mark",
            format!("\u{feff}{}", claims("alice")).into_bytes(),
        ),
        ("half", claims("alice").to_string().into_bytes()[..40].to_vec()),
        (
            "not UTF-8",
            claims("alice")
                .to_string()
                .replace("alice", "al\u{0}ce")
                .into_bytes()
                .iter()
                .map(|byte| if *byte == 0 { 255 } else { *byte })
                .collect(),
        ),
        (
            "a lone surrogate",
            claims("alice")
                .to_string()
                .replace("alice", "al\\ud800ice")
                .into_bytes(),
        ),
        (
            "depth",
            format!("{{\"a\":{}{}}}", "[".repeat(5000), "]".repeat(5000)).into_bytes(),
        ),
        (
            "a comment",
            claims("alice").to_string().replacen('{', "{/**/", 1).into_bytes(),
        ),
        (
            "a trailing comma",
            claims("alice").to_string().replace('}', ",}").into_bytes(),
        ),
    ] {
        stand.assert_refused(
            &stand.with_payload(payload),
            &["token_malformed", "token_too_large"],
            told,
        );
    }
}

#[test]
fn nothing_is_said_twice() {
    let stand = stand();
    let text = claims("alice").to_string();
    for member in [
        "\"sub\":\"root\"",
        "\"sub\":\"alice\"",
        "\"s\\u0075b\":\"root\"",
        "\"exp\":4102444800",
        "\"aud\":\"gateway\"",
        "\"iss\":\"https://other.example.test\"",
        "\"x\":1,\"x\":2",
        "\"x\":{\"y\":1,\"y\":2}",
    ] {
        for payload in [
            text.replacen('{', &format!("{{{member},"), 1),
            text.replace('}', &format!(",{member}}}")),
        ] {
            stand.assert_refused(&stand.with_payload(payload), &["token_malformed"], member);
        }
    }
    for header in [
        r#"{"alg":"none","alg":"ES256","typ":"at+jwt","kid":"e1"}"#,
        r#"{"alg":"ES256","typ":"at+jwt","kid":"zz","kid":"e1"}"#,
        r#"{"alg":"ES256","typ":"JWT","t\u0079p":"at+jwt","kid":"e1"}"#,
        r#"{"alg":"ES256","typ":"at+jwt","kid":"e1","foo":1,"foo":2}"#,
    ] {
        let token = sign(&stand.es256, header.as_bytes(), text.as_bytes());
        stand.assert_refused(&token, &["token_malformed"], header);
    }
}

#[test]
fn a_token_that_was_good_once_is_judged_anew() {
    let stand = stand();
    // Every member of the cache key matters: the same claims, other bytes.
    let good = mint(&stand.es256, &claims("alice"));
    for _ in 0..3 {
        stand.assert_accepted(&good, "warm");
        let (signed, _) = good.rsplit_once('.').unwrap();
        stand.assert_refused(
            &format!("{signed}.{}", "A".repeat(86)),
            &["bad_signature"],
            "the same claims",
        );
    }
    let short = stand.with_claims(&json!({ "exp": now() + 2 }));
    stand.assert_accepted(&short, "before its end");
    crate::harness::eventually("the token expires", || {
        let answer = stand.service.ask(&get("/api/x").bearer(&short));
        (answer.status == 401).then(|| answer.expect_refusal(401, "token_expired"))
    });
}
