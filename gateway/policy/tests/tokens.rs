//! Tokens that a strict verifier must refuse, class by class (RFC 8725, RFC 7515, RFC 9068), and the
//! few variations that it must accept.

mod support;

use std::sync::Arc;

use durward_policy::{Issuer, KeySet, MAX_TOKEN_BYTES, Policy, Reason, VerifiedToken, prove};
use support::{By, FixedKeys, HEADER, SECRET, base64url, claims, good_token, sign, token};

const ROUTES: &str = "  - { path: /**, upstream: api }";

fn verdict_under(policy: &Policy, keys: &FixedKeys, token: &str) -> Result<VerifiedToken, Reason> {
    prove(policy, token, keys).map_err(|error| error.rejection.reason)
}

fn verdict(token: &str) -> Option<Reason> {
    let policy = support::policy_of_routes(ROUTES);
    verdict_under(&policy, &FixedKeys::usual(&policy), token).err()
}

#[test]
fn good_tokens_are_proved_under_every_algorithm() {
    for (by, alg, kid) in [
        (By::Es256, "ES256", "ec"),
        (By::Es384, "ES384", "ec384"),
        (By::Rs256, "RS256", "rsa"),
        (By::EdDsa, "EdDSA", "ed"),
    ] {
        let header = format!(r#"{{"alg":"{alg}","typ":"at+jwt","kid":"{kid}"}}"#);
        assert_eq!(verdict(&token(by, header, claims(&[]))), None, "{alg}");
    }
}

#[test]
fn what_the_standards_allow_is_accepted() {
    for header in [
        r#"{"typ":"application/at+jwt","alg":"ES256","kid":"ec"}"#,
        r#"{"typ":"AT+JWT","alg":"ES256","kid":"ec"}"#,
        r#"{"typ":"at+jwt","alg":"ES256","kid":"ec","x5t":"abc","unheard":{"of":[1]}}"#,
        " {\n\"typ\" : \"at\\u002bjwt\", \"alg\":\"ES256\",\"kid\":\"ec\" }\t",
    ] {
        assert_eq!(verdict(&token(By::Es256, header, claims(&[]))), None, "{header}");
    }
    for changes in [
        [("aud", r#"["someone-else","durward-tests"]"#)],
        [("unheard", r#"{"of":[1,2.5,null]}"#)],
        [("nbf", "1799999999.25")],
        [("exp", "1800000600.75")],
        [("sub", "\"u\u{e9}\"")],
    ] {
        assert_eq!(verdict(&good_token(&changes)), None, "{changes:?}");
    }
}

#[test]
fn unsigned_and_unknown_algorithms() {
    for alg in [
        r#""none""#,
        r#""None""#,
        r#""NONE""#,
        r#""nOnE""#,
        r#""none ""#,
        r#""""#,
        "null",
        "256",
        "[\"ES256\"]",
        r#""es256""#,
        r#""ES256 ""#,
        r#""ES256K""#,
        r#""ES512""#,
        r#""PBES2-HS256+A128KW""#,
        r#""Ed25519""#,
        r#""HS256""#,
        r#""PS256""#,
        "true",
    ] {
        let header = format!(r#"{{"alg":{alg},"typ":"at+jwt","kid":"ec"}}"#);
        let full = token(By::Es256, &header, claims(&[]));
        assert_eq!(verdict(&full), Some(Reason::TokenAlgorithm), "{alg}");
        let unsigned = format!("{}.{}.", base64url(&header), base64url(claims(&[])));
        assert_eq!(
            verdict(&unsigned),
            Some(Reason::TokenMalformed),
            "{alg} without signature"
        );
    }
    let absent = token(By::Es256, r#"{"typ":"at+jwt","kid":"ec"}"#, claims(&[]));
    assert_eq!(verdict(&absent), Some(Reason::TokenAlgorithm));
}

#[test]
fn each_key_is_for_one_algorithm() {
    for (by, alg, kid, reason) in [
        (By::Hs256, "HS256", "rsa", Reason::TokenAlgorithm),
        (By::Ps256, "PS256", "rsa", Reason::TokenAlgorithm),
        (By::Rs512, "RS512", "rsa", Reason::TokenAlgorithm),
        (By::Es256, "ES256", "rsa", Reason::TokenAlgorithm),
        (By::Rs256, "RS256", "ec", Reason::TokenAlgorithm),
        (By::Es384, "ES384", "ec", Reason::TokenAlgorithm),
        (By::EdDsa, "EdDSA", "ec", Reason::TokenAlgorithm),
        (By::Ps256, "RS256", "rsa", Reason::BadSignature),
        (By::OtherEs256, "ES256", "ec", Reason::BadSignature),
    ] {
        let header = format!(r#"{{"alg":"{alg}","typ":"at+jwt","kid":"{kid}"}}"#);
        let refused = verdict(&token(by, header, claims(&[])));
        assert_eq!(refused, Some(reason), "{alg} with {kid}");
    }
}

/// The classic confusion: an HMAC keyed with the bytes of a public key, in any form of them.
#[test]
fn a_public_key_is_no_secret() {
    let (n, _) = support::rsa_numbers();
    for secret in [
        support::usual_jwks().into_bytes(),
        n,
        b"".to_vec(),
        support::es256_jwk("ec").into_bytes(),
    ] {
        let message = format!(
            "{}.{}",
            base64url(r#"{"alg":"HS256","typ":"at+jwt","kid":"rsa"}"#),
            base64url(claims(&[]))
        );
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
        let mac = aws_lc_rs::hmac::sign(&key, message.as_bytes());
        assert_eq!(
            verdict(&format!("{message}.{}", base64url(mac))),
            Some(Reason::TokenAlgorithm)
        );
    }
}

#[test]
fn keys_are_named_exactly_and_never_brought_along() {
    let jwk = support::es256_jwk("mine");
    for (member, reason) in [
        (r#""kid":"ed25""#.to_owned(), Reason::UnknownKey),
        (r#""kid":"EC""#.to_owned(), Reason::UnknownKey),
        (r#""kid":"ec ""#.to_owned(), Reason::UnknownKey),
        (r#""kid":"ec\u0000""#.to_owned(), Reason::UnknownKey),
        (r#""kid":"../../../dev/null""#.to_owned(), Reason::UnknownKey),
        (r#""kid":"' OR 1=1 --""#.to_owned(), Reason::UnknownKey),
        (r#""x":1"#.to_owned(), Reason::UnknownKey),
        (r#""kid":"""#.to_owned(), Reason::TokenHeader),
        (r#""kid":1"#.to_owned(), Reason::TokenHeader),
        (r#""kid":null"#.to_owned(), Reason::TokenHeader),
        (r#""kid":["ec"]"#.to_owned(), Reason::TokenHeader),
        (format!(r#""kid":"{}""#, "k".repeat(256)), Reason::UnknownKey),
        (format!(r#""kid":"{}""#, "k".repeat(257)), Reason::TokenHeader),
        (format!(r#""kid":"ec","jwk":{jwk}"#), Reason::TokenHeader),
        (
            r#""kid":"ec","jku":"https://issuer.test/keys""#.to_owned(),
            Reason::TokenHeader,
        ),
        (
            r#""kid":"ec","x5u":"https://issuer.test/cert""#.to_owned(),
            Reason::TokenHeader,
        ),
        (r#""kid":"ec","x5c":["MIIB"]"#.to_owned(), Reason::TokenHeader),
        (r#""kid":"ec","crit":["exp"]"#.to_owned(), Reason::TokenHeader),
        (r#""kid":"ec","crit":[]"#.to_owned(), Reason::TokenHeader),
        (r#""kid":"ec","crit":null"#.to_owned(), Reason::TokenHeader),
        (
            r#""kid":"ec","b64":false,"crit":["b64"]"#.to_owned(),
            Reason::TokenHeader,
        ),
        (r#""kid":"ec","b64":true"#.to_owned(), Reason::TokenHeader),
        (r#""kid":"ec","zip":"DEF""#.to_owned(), Reason::TokenHeader),
        (r#""kid":"ec","enc":"A128GCM""#.to_owned(), Reason::TokenHeader),
    ] {
        let header = format!(r#"{{"alg":"ES256","typ":"at+jwt",{member}}}"#);
        assert_eq!(
            verdict(&token(By::Es256, &header, claims(&[]))),
            Some(reason),
            "{header}"
        );
    }
}

#[test]
fn only_a_named_unknown_key_asks_for_fresh_keys() {
    let policy = support::policy_of_routes(ROUTES);
    let keys = FixedKeys::usual(&policy);
    let unknown = |header: &str, claims: String| {
        prove(&policy, &token(By::Es256, header, claims), &keys)
            .unwrap_err()
            .unknown_key
    };
    let issuer = policy.issuers().iter().next().map(|issuer| issuer.id);
    let new_key = r#"{"alg":"ES256","typ":"at+jwt","kid":"new"}"#;
    assert_eq!(unknown(new_key, claims(&[])), issuer);
    assert_eq!(unknown(r#"{"alg":"ES256","typ":"at+jwt"}"#, claims(&[])), None);
    assert_eq!(
        unknown(new_key, claims(&[("iss", r#""https://other.test""#)])),
        None
    );
    assert_eq!(
        unknown(r#"{"alg":"HS256","typ":"at+jwt","kid":"new"}"#, claims(&[])),
        None
    );
    assert_eq!(
        unknown(r#"{"alg":"ES256","typ":"JWT","kid":"new"}"#, claims(&[])),
        None
    );
}

#[test]
fn keys_that_were_never_read_are_no_refusal_of_the_token() {
    let policy = support::policy_of_routes(ROUTES);
    let refused = verdict_under(&policy, &FixedKeys::default(), &good_token(&[]));
    assert_eq!(refused.err(), Some(Reason::KeysUnavailable));
}

#[test]
fn other_kinds_of_token_are_no_access_tokens() {
    for typ in [
        r#""JWT""#,
        r#""jwt""#,
        r#""""#,
        r#""at+jwt ""#,
        r#""secevent+jwt""#,
        r#""logout+jwt""#,
        r#""dpop+jwt""#,
        r#""rt+jwt""#,
        r#""application/jwt""#,
        r#""text/at+jwt""#,
        "null",
        "1",
        "[\"at+jwt\"]",
    ] {
        let header = format!(r#"{{"alg":"ES256","kid":"ec","typ":{typ}}}"#);
        assert_eq!(
            verdict(&token(By::Es256, header, claims(&[]))),
            Some(Reason::TokenType),
            "{typ}"
        );
    }
    let absent = token(By::Es256, r#"{"alg":"ES256","kid":"ec"}"#, claims(&[]));
    assert_eq!(verdict(&absent), Some(Reason::TokenType));
}

#[test]
fn names_are_unique_in_header_and_claims() {
    for header in [
        r#"{"alg":"none","alg":"ES256","typ":"at+jwt","kid":"ec"}"#,
        r#"{"alg":"ES256","typ":"at+jwt","kid":"ed","kid":"ec"}"#,
        r#"{"alg":"ES256","typ":"at+jwt","kid":"ec","x":1,"x":1}"#,
        r#"{"alg":"ES256","typ":"at+jwt","kid":"ec","\u0061lg":"ES256"}"#,
    ] {
        assert_eq!(
            verdict(&token(By::Es256, header, claims(&[]))),
            Some(Reason::TokenMalformed),
            "{header}"
        );
    }
    let good = claims(&[]);
    let members = good.strip_suffix('}').unwrap();
    for twin in [
        r#""sub":"admin""#,
        r#""s\u0075b":"user-1""#,
        r#""exp":1800000600"#,
        r#""aud":"durward-tests""#,
        r#""deep":{"a":1,"a":2}"#,
        r#""deep":[{"a":1,"\u0061":2}]"#,
    ] {
        let refused = verdict(&token(By::Es256, HEADER, format!("{members},{twin}}}")));
        assert_eq!(refused, Some(Reason::TokenMalformed), "{twin}");
    }
}

#[test]
fn claims_are_required_and_typed() {
    use Reason::{ClaimInvalid, ClaimMissing, TokenLifetime, UnknownIssuer, WrongAudience};
    let long_id = format!("\"{}\"", "x".repeat(257));
    for (name, value, reason) in [
        ("iss", "", ClaimMissing),
        ("iss", "null", ClaimInvalid),
        ("iss", r#"["https://issuer.test"]"#, ClaimInvalid),
        ("iss", r#""https://issuer.test/""#, UnknownIssuer),
        ("iss", r#""HTTPS://issuer.test""#, UnknownIssuer),
        ("iss", r#""""#, UnknownIssuer),
        ("sub", "", ClaimMissing),
        ("sub", "null", ClaimInvalid),
        ("sub", r#""""#, ClaimInvalid),
        ("sub", "7", ClaimInvalid),
        ("sub", r#"["user-1"]"#, ClaimInvalid),
        ("sub", r#""a\r\nX-Admin: 1""#, ClaimInvalid),
        ("sub", r#""a\u0000""#, ClaimInvalid),
        ("sub", r#""a\u0085b""#, ClaimInvalid),
        ("sub", &long_id, ClaimInvalid),
        ("aud", "", ClaimMissing),
        ("aud", "null", ClaimInvalid),
        ("aud", "7", ClaimInvalid),
        ("aud", "{}", ClaimInvalid),
        ("aud", r#"{"durward-tests":true}"#, ClaimInvalid),
        ("aud", r#"["durward-tests",7]"#, ClaimInvalid),
        ("aud", r#"[["durward-tests"]]"#, ClaimInvalid),
        ("aud", "[]", WrongAudience),
        ("aud", r#""""#, WrongAudience),
        ("aud", r#""durward-tests ""#, WrongAudience),
        ("aud", r#""durward""#, WrongAudience),
        ("aud", r#""durward-tests-2""#, WrongAudience),
        ("aud", r#""DURWARD-TESTS""#, WrongAudience),
        ("exp", "", ClaimMissing),
        ("exp", "null", ClaimInvalid),
        ("exp", "true", ClaimInvalid),
        ("exp", r#""1800000600""#, ClaimInvalid),
        ("exp", "-1", ClaimInvalid),
        ("exp", "9223372036854775807", ClaimInvalid),
        ("exp", "18446744073709551615", ClaimInvalid),
        ("exp", "1e18", ClaimInvalid),
        ("exp", "253402300800", ClaimInvalid),
        ("exp", "1799999999", ClaimInvalid),
        ("exp", "1800086401", TokenLifetime),
        ("exp", "4102444800", TokenLifetime),
        ("exp", "0", ClaimInvalid),
        ("iat", "", ClaimMissing),
        ("iat", "null", ClaimInvalid),
        ("iat", r#""1800000000""#, ClaimInvalid),
        ("iat", "-0.5", ClaimInvalid),
        ("nbf", r#""1800000000""#, ClaimInvalid),
        ("nbf", "null", ClaimInvalid),
        ("nbf", "[1800000000]", ClaimInvalid),
        ("jti", "", ClaimMissing),
        ("jti", "null", ClaimMissing),
        ("jti", r#""""#, ClaimInvalid),
        ("jti", "1", ClaimInvalid),
        ("jti", r#""a\r\nDEL b""#, ClaimInvalid),
        ("jti", &long_id, ClaimInvalid),
        ("sid", "[]", ClaimInvalid),
        ("client_id", "", ClaimMissing),
    ] {
        assert_eq!(
            verdict(&good_token(&[(name, value)])),
            Some(reason),
            "{name}: {value}"
        );
    }
    for value in [
        "1e999",
        "01800000600",
        "1800000600.",
        "0x6b49d200",
        "NaN",
        "Infinity",
    ] {
        assert_eq!(
            verdict(&good_token(&[("exp", value)])),
            Some(Reason::TokenMalformed),
            "exp: {value}"
        );
    }
    assert_eq!(
        verdict(&good_token(&[("exp", "1800086400")])),
        None,
        "a lifetime of exactly 24 h"
    );
}

#[test]
fn own_tokens_have_session_client_and_epoch() {
    let yaml = format!("issuers: [{{ use: auth }}]\n{}routes:\n{ROUTES}\n", support::REST);
    let policy = support::try_policy(&yaml, true).unwrap();
    let keys = FixedKeys::usual(&policy);
    let proved = verdict_under(&policy, &keys, &good_token(&[])).unwrap();
    assert_eq!(
        (proved.epoch(), proved.session_id(), proved.client_id()),
        (Some(3), Some("session-1"), Some("web"))
    );
    for (name, value, reason) in [
        ("jti", "", Reason::ClaimMissing),
        ("sid", "", Reason::ClaimMissing),
        ("client_id", "", Reason::ClaimMissing),
        ("epoch", "", Reason::ClaimMissing),
        ("epoch", "null", Reason::ClaimMissing),
        ("epoch", "-1", Reason::ClaimInvalid),
        ("epoch", "4294967296", Reason::ClaimInvalid),
        ("epoch", "3.0", Reason::ClaimInvalid),
        ("epoch", r#""3""#, Reason::ClaimInvalid),
    ] {
        let refused = verdict_under(&policy, &keys, &good_token(&[(name, value)])).err();
        assert_eq!(refused, Some(reason), "{name}: {value}");
    }
    let rsa = token(
        By::Rs256,
        r#"{"alg":"RS256","typ":"at+jwt","kid":"rsa"}"#,
        claims(&[]),
    );
    assert_eq!(
        verdict_under(&policy, &keys, &rsa).err(),
        Some(Reason::TokenAlgorithm)
    );
}

#[test]
fn the_form_is_one_jws_in_one_spelling() {
    let good = good_token(&[]);
    let parts: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = parts[..] else {
        panic!("three parts")
    };
    for broken in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "null".to_owned(),
        "undefined".to_owned(),
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!(".{good}"),
        format!("{good}."),
        format!("{header}..{payload}.{signature}"),
        format!("{header}.{payload}.{signature}.{signature}.{signature}"),
        format!("{header}=.{payload}.{signature}"),
        format!("{header}.{payload}.{signature}="),
        format!("{header}.{payload}\t.{signature}"),
        format!("{header}.{payload}.{signature}\n"),
        format!(" {good}"),
        format!("{header}.{payload}.{signature}+"),
        format!("{header}.{payload}.{signature}%3D"),
        format!(r#"{{"protected":"{header}","payload":"{payload}","signature":"{signature}"}}"#),
        ".".repeat(MAX_TOKEN_BYTES),
    ] {
        assert_eq!(verdict(&broken), Some(Reason::TokenMalformed), "{broken:?}");
    }
    assert_eq!(
        verdict(&"a".repeat(MAX_TOKEN_BYTES + 1)),
        Some(Reason::TokenTooLarge)
    );
    assert_eq!(verdict(&"\u{e9}".repeat(40)), Some(Reason::TokenMalformed));
}

/// 64 bytes leave four bits over in their last letter: sixteen spellings, of which one is right.
#[test]
fn leftover_bits_are_zero() {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let good = good_token(&[]);
    let (rest, last) = good.split_at(good.len() - 1);
    let index = ALPHABET
        .iter()
        .position(|letter| *letter == last.as_bytes()[0])
        .unwrap();
    for (other, letter) in ALPHABET.iter().enumerate().skip(index & !15).take(16) {
        let expected = (other != index).then_some(Reason::TokenMalformed);
        assert_eq!(verdict(&format!("{rest}{}", char::from(*letter))), expected);
    }
}

#[test]
fn header_and_claims_are_objects_of_strict_json() {
    let deep = format!(
        r#"{{"alg":"ES256","typ":"at+jwt","kid":"ec","x":{}1{}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    for header in [
        "",
        "[]",
        "null",
        r#""ES256""#,
        "{",
        "\u{feff}{}",
        &format!("{HEADER} x"),
        &format!("{HEADER}\0"),
        &deep,
    ] {
        assert_eq!(
            verdict(&token(By::Es256, header, claims(&[]))),
            Some(Reason::TokenMalformed),
            "{header:?}"
        );
    }
    let mut bytes = HEADER.replace("ec", "e_").into_bytes();
    let place = bytes.iter().position(|byte| *byte == b'_').unwrap();
    bytes[place] = 0xff;
    assert_eq!(
        verdict(&token(By::Es256, bytes, claims(&[]))),
        Some(Reason::TokenMalformed)
    );
    let good = claims(&[]);
    for payload in [
        String::new(),
        format!("[{good}]"),
        r#""claims""#.to_owned(),
        format!("\u{feff}{good}"),
        format!("{good}{good}"),
        good.replace("user-1", "\\ud800"),
        good.replace("user-1", "\\udc00\\ud800"),
        good.replace("user-1", "a\tb"),
        good.replace(r#"["user"]"#, &format!("{}{}", "[".repeat(64), "]".repeat(64))),
        good.replace('"', "'"),
    ] {
        assert_eq!(
            verdict(&token(By::Es256, HEADER, &payload)),
            Some(Reason::TokenMalformed),
            "{payload}"
        );
    }
    // A token within a token is a string, not claims (RFC 7519 section 5.2).
    let nested = token(By::Es256, HEADER, good_token(&[]));
    assert_eq!(verdict(&nested), Some(Reason::TokenMalformed));
}

#[test]
fn signatures_are_exact() {
    let good = good_token(&[]);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let bytes = sign(By::Es256, message.as_bytes());
    let order = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
        0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let (r, s) = bytes.split_at(32);
    let der = [&[0x30, 68, 2, 32], r, &[2, 32], s].concat();
    for wrong in [
        vec![0; 64],
        [&[0; 32], s].concat(),
        [r, &[0; 32]].concat(),
        [&order, s].concat(),
        [r, &order].concat(),
        [order, order].concat(),
        [s, r].concat(),
        der,
        bytes[..63].to_vec(),
        [&bytes[..], &[0]].concat(),
        [&[0], r, &[0], s].concat(),
        sign(By::Es256, b"something else"),
    ] {
        let refused = verdict(&format!("{message}.{}", base64url(&wrong)));
        assert_eq!(refused, Some(Reason::BadSignature), "{wrong:?}");
    }
    let other = good_token(&[("sub", r#""admin""#)]);
    let (other_message, _) = other.rsplit_once('.').unwrap();
    assert_eq!(
        verdict(&format!("{other_message}.{signature}")),
        Some(Reason::BadSignature)
    );
}

/// RFC 8032 section 5.1.7: adding the group order to S gives a second spelling, which is refused.
#[test]
fn ed25519_signatures_are_not_malleable() {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let good = token(
        By::EdDsa,
        r#"{"alg":"EdDSA","typ":"at+jwt","kid":"ed"}"#,
        claims(&[]),
    );
    let (message, _) = good.rsplit_once('.').unwrap();
    let mut signature = sign(By::EdDsa, message.as_bytes());
    assert_eq!(verdict(&format!("{message}.{}", base64url(&signature))), None);
    let mut carry = 0;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert_eq!(
        verdict(&format!("{message}.{}", base64url(&signature))),
        Some(Reason::BadSignature)
    );
}

fn policy_with_issuer(rest: &str) -> Policy {
    let issuers =
        format!("issuers:\n  - {{ issuer: \"https://issuer.test\", audience: durward-tests, {rest} }}\n");
    support::policy(&format!("{issuers}{}routes:\n{ROUTES}\n", support::REST))
}

fn keys_from(policy: &Policy, read: impl Fn(&Issuer) -> KeySet) -> FixedKeys {
    FixedKeys(
        policy
            .issuers()
            .iter()
            .map(|issuer| (issuer.id, Arc::new(read(issuer))))
            .collect(),
    )
}

#[test]
fn a_shared_secret_serves_one_algorithm_with_or_without_kid() {
    let policy = policy_with_issuer("secret: { file: s }, typ: JWT");
    let keys = keys_from(&policy, |issuer| KeySet::read(issuer, SECRET, 1).unwrap());
    for header in [
        r#"{"alg":"HS256","typ":"JWT"}"#,
        r#"{"alg":"HS256","typ":"JWT","kid":"any"}"#,
    ] {
        assert!(verdict_under(&policy, &keys, &token(By::Hs256, header, claims(&[]))).is_ok());
    }
    let at_jwt = token(By::Hs256, r#"{"alg":"HS256","typ":"at+jwt"}"#, claims(&[]));
    assert_eq!(
        verdict_under(&policy, &keys, &at_jwt).err(),
        Some(Reason::TokenType)
    );
    let es256 = token(By::Es256, r#"{"alg":"ES256","typ":"JWT"}"#, claims(&[]));
    assert_eq!(
        verdict_under(&policy, &keys, &es256).err(),
        Some(Reason::TokenAlgorithm)
    );
}

#[test]
fn a_token_without_kid_is_not_tried_against_several_keys() {
    let header = r#"{"alg":"ES256","typ":"at+jwt"}"#;
    let policy = policy_with_issuer("jwks: k, algorithms: [ES256, EdDSA]");
    let one = support::jwks(&[support::es256_jwk("ec")]);
    let keys = keys_from(&policy, |issuer| KeySet::read(issuer, one.as_bytes(), 1).unwrap());
    assert!(verdict_under(&policy, &keys, &token(By::Es256, header, claims(&[]))).is_ok());
    let two = support::jwks(&[support::es256_jwk("ec"), support::eddsa_jwk("ed")]);
    let keys = keys_from(&policy, |issuer| KeySet::read(issuer, two.as_bytes(), 1).unwrap());
    let refused = verdict_under(&policy, &keys, &token(By::Es256, header, claims(&[]))).err();
    assert_eq!(refused, Some(Reason::UnknownKey));
}

#[test]
fn a_proof_knows_what_it_is_made_of() {
    let policy = support::policy_of_routes(ROUTES);
    let keys = FixedKeys::usual(&policy);
    let proved = verdict_under(
        &policy,
        &keys,
        &good_token(&[("exp", "1800000600.9"), ("nbf", "1800000000.1")]),
    )
    .unwrap();
    assert_eq!(proved.subject(), "user-1");
    assert_eq!(proved.token_id(), Some("token-1"));
    assert_eq!(proved.expires_at().0, 1_800_000_600, "rounded towards refusal");
    assert_eq!(
        proved.not_before().map(|instant| instant.0),
        Some(1_800_000_001),
        "rounded towards refusal"
    );
    assert_eq!(proved.epoch(), None, "an epoch of a stranger means nothing");
    assert_eq!(proved.key_generation(), 1);
    let long = verdict_under(
        &policy,
        &keys,
        &good_token(&[("x", &format!("\"{}\"", "y".repeat(2000)))]),
    )
    .unwrap();
    assert!(long.memory_bytes() >= proved.memory_bytes() + 2000);
}
