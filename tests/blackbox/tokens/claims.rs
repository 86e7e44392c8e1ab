//! What a token says, and when it may say it.

use serde_json::json;

use super::stand;
use crate::harness::{FOREIGN_ISSUER, claims, eventually, get, mint, now};

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
    eventually("the token expires", || {
        let answer = get("/api/x")
            .bearer(&short)
            .send_if_answered(stand.service.edge)?;
        (answer.status == 401).then(|| answer.expect_refusal(401, "token_expired"))
    });
}
