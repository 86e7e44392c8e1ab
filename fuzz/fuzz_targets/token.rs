//! No bytes make the verifier of tokens panic, and what it accepts another library accepts too, for
//! the same user. The input is a token, or, after `sign:`, a line that is its header and the rest its
//! payload; those are signed with the right key, so that what is behind the signature is tried.

#![no_main]

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use durward_policy::{Algorithm, KeySet, Policy, VerifiedToken, prove};
use jwt_simple::prelude::{Duration, HS256Key, MACLike, NoCustomClaims, UnixTimeStamp, VerificationOptions};
use libfuzzer_sys::fuzz_target;

#[path = "../../gateway/policy/tests/support/mod.rs"]
mod support;

use support::{AUDIENCE, By, FixedKeys, ISSUER, SECRET};

const POLICY_TEXT: &str = "
issuers:
  - issuer: https://issuer.test
    secret: { file: secret }
    audience: durward-tests
    algorithms: [HS256]
revocations: none
identity_headers: { X-User-Id: sub }
routes:
  - { path: /**, upstream: api }
";

static POLICY: LazyLock<Policy> = LazyLock::new(|| support::policy(POLICY_TEXT));
static KEYS: LazyLock<FixedKeys> = LazyLock::new(|| {
    let keys = Arc::new(KeySet::from_secret(SECRET, Algorithm::HS256, 1).unwrap());
    FixedKeys(HashMap::from_iter(
        POLICY
            .issuers()
            .iter()
            .map(|issuer| (issuer.id, Arc::clone(&keys))),
    ))
});
static OTHER: LazyLock<HS256Key> = LazyLock::new(|| HS256Key::from_bytes(SECRET));

fuzz_target!(|input: &[u8]| {
    let token = match input.strip_prefix(b"sign:") {
        Some(parts) => {
            let mut parts = parts.splitn(2, |byte| *byte == b'\n');
            let header = parts.next().unwrap_or_default();
            support::token(By::Hs256, header, parts.next().unwrap_or_default())
        }
        None => String::from_utf8_lossy(input).into_owned(),
    };
    if let Ok(proved) = prove(&POLICY, &token, &*KEYS) {
        another_agrees(&token, &proved);
    }
});

fn another_agrees(token: &str, proved: &VerifiedToken) {
    let (issued, expires) = (proved.issued_at().0, proved.expires_at().0);
    // Times are judged by each request, not by the proof; the other library judges them at once.
    let Ok(at) = u64::try_from(expires.saturating_sub(1)) else {
        return;
    };
    if issued >= expires || proved.not_before().is_some_and(|instant| instant.0 >= expires) {
        return;
    }
    let options = VerificationOptions {
        allowed_issuers: Some(HashSet::from([ISSUER.to_owned()])),
        allowed_audiences: Some(HashSet::from([AUDIENCE.to_owned()])),
        artificial_time: Some(UnixTimeStamp::from_secs(at)),
        time_tolerance: Some(Duration::from_secs(0)),
        ..VerificationOptions::default()
    };
    let claims = OTHER
        .verify_token::<NoCustomClaims>(token, Some(options))
        .unwrap_or_else(|error| panic!("{error}: {token}"));
    assert_eq!(claims.subject.as_deref(), Some(proved.subject()), "{token}");
    assert_eq!(claims.issuer.as_deref(), Some(ISSUER), "{token}");
    assert_eq!(claims.jwt_id.as_deref(), proved.token_id(), "{token}");
}
