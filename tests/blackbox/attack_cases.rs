//! A file of attack cases from outside the project, run on demand:
//!
//! `DURWARD_ATTACK_CASES=cases.json cargo test --test blackbox attack_cases -- --ignored --nocapture`
//!
//! The file says `{"cases": [{id, class, kind, raw, token, verdict, expected}]}`; `jwks.json` with the
//! issuer's keys lies beside it. Raw requests are Latin-1; `{{USER_TOKEN}}` in them is the token of
//! the case `jwt-ok-es256`, and `{{TOKEN}}` the case's own. Cases of HTTP/2 have `h2_headers` and
//! `h2_body` instead, and are sent with the user's token.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Answer, Backend, Recorded, Service, Setup};

mod http2;

const CONFIGURATION: &str = r#"
listen: { address: "@edge", http2: true }
admin: "@admin"
control: control.sock
access_log: off
issuers:
  - issuer: https://auth.example.test
    jwks: jwks.json
    audience: gateway
    algorithms: [ES256, RS256, EdDSA]
    required_claims: [jti, client_id]
    max_lifetime: 36500d
revocations: none
identity_headers:
  X-User-Id: sub
  X-Gw-User: sub
upstreams:
  api: { servers: ["@api"] }
routes:
  - { host: gw.test, path: /public/**, upstream: api, access: public }
  - { host: gw.test, path: /api/**, upstream: api }
  - { host: gw.test, path: /admin/**, upstream: api, require: { role: admin } }
"#;

const USER: &str = "user-1";
/// Some requests wait for more that never comes.
const SILENCE: Duration = Duration::from_secs(3);

#[test]
#[ignore = "needs a file of cases: DURWARD_ATTACK_CASES"]
fn attack_cases() {
    let path =
        PathBuf::from(std::env::var_os("DURWARD_ATTACK_CASES").expect("DURWARD_ATTACK_CASES is the file"));
    let file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let keys = std::fs::read(path.with_file_name("jwks.json")).unwrap();
    let cases = file["cases"].as_array().unwrap();
    let user_token = text(
        cases.iter().find(|case| case["id"] == "jwt-ok-es256").unwrap(),
        "token",
    );

    let backend = Backend::start();
    let service = Setup::gateway(CONFIGURATION)
        .api(&backend)
        .file("jwks.json", keys)
        .start();
    let mut tally: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut failures = Vec::new();
    for case in cases {
        let judged = match text(case, "kind").as_str() {
            "http2" => http2::attempt(case, &user_token, &service, &backend),
            "jwt" | "http1-raw" => attempt(case, &user_token, &service, &backend),
            kind => Err(format!("the kind {kind} is not known")),
        };
        let (tried, passed) = tally.entry(text(case, "class")).or_default();
        *tried += 1;
        match judged {
            Ok(()) => *passed += 1,
            Err(why) => failures.push(format!("{} ({}): {why}", text(case, "id"), text(case, "class"))),
        }
    }
    for (class, (tried, passed)) in &tally {
        println!("{class:<28} {passed:>3} of {tried:>3}");
    }
    let (tried, passed) = tally
        .values()
        .fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    println!("{:<28} {passed:>3} of {tried:>3}", "all");
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Tries a case of HTTP/1 on a connection of its own; the error tells what came instead.
fn attempt(case: &Value, user_token: &str, service: &Service, backend: &Backend) -> Result<(), String> {
    let request = request_of(case, user_token).ok_or("the case has no bytes to send")?;
    let outcome = Outcome::of(service, backend, &request);
    judge(case, &outcome).map_err(|why| format!("{why}\n    {}", outcome.told()))
}

/// The bytes of a case. Where the file describes a large one instead of holding it, one of the kind
/// is made here.
fn request_of(case: &Value, user_token: &str) -> Option<Vec<u8>> {
    let plain = |rest: &str| {
        format!("GET /api/me HTTP/1.1\r\nHost: gw.test\r\nAuthorization: Bearer {user_token}\r\n{rest}\r\n")
    };
    let list = |item: &dyn Fn(usize) -> String, count: usize, by: &str| {
        (0..count).map(item).collect::<Vec<_>>().join(by)
    };
    let header = "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCIsImtpZCI6ImsxIn0";
    let raw = match (text(case, "id").as_str(), case["raw"].as_str()) {
        ("path-long", None) => format!("GET /{} HTTP/1.1\r\nHost: gw.test\r\n\r\n", "a".repeat(70_000)),
        ("path-many-segs", None) => format!("GET {} HTTP/1.1\r\nHost: gw.test\r\n\r\n", "/a".repeat(4_000)),
        ("frm-range-bomb", None) => plain(&format!(
            "Range: bytes={}\r\n",
            list(&|n| format!("{n}-"), 2_000, ",")
        )),
        ("frm-ae-bomb", None) => plain(&format!(
            "Accept-Encoding: {}\r\n",
            list(&|_| "gzip".into(), 2_000, ",")
        )),
        ("dos-cookie-count", None) => plain(&format!(
            "Cookie: {}\r\n",
            list(&|n| format!("a{n}=b"), 5_000, "; ")
        )),
        (_, None) => return None,
        (_, Some(raw)) => raw.to_owned(),
    };
    let token = match text(case, "id").as_str() {
        "jwt-size-1m" => format!("{header}.{}.{}", "A".repeat(1_333_000), "A".repeat(86)),
        // "[" a thousand times over.
        "jwt-deep-json" => format!("{header}.{}.{}", "W1tb".repeat(13_000), "A".repeat(86)),
        _ => case["token"].as_str().unwrap_or_default().to_owned(),
    };
    let raw = raw
        .replace("{{USER_TOKEN}}", user_token)
        .replace("{{TOKEN}}", &token);
    Some(
        raw.chars()
            .map(|c| u8::try_from(u32::from(c)).expect("Latin-1"))
            .collect(),
    )
}

/// What came of a request, on both sides.
struct Outcome {
    sent: Vec<u8>,
    answers: Vec<Answer>,
    seen: Vec<Recorded>,
}

impl Outcome {
    fn of(service: &Service, backend: &Backend, request: &[u8]) -> Self {
        let mut connection = service.connect();
        connection.set_patience(SILENCE);
        let answers = connection.raw(request);
        Self {
            sent: request.to_vec(),
            answers,
            seen: backend.take(),
        }
    }

    fn status(&self) -> u16 {
        self.answers.first().map_or(0, |answer| answer.status)
    }

    fn is_refused(&self) -> bool {
        self.seen.is_empty() && (self.answers.is_empty() || (400..600).contains(&self.status()))
    }

    fn told(&self) -> String {
        let statuses: Vec<_> = self
            .answers
            .iter()
            .map(|answer| format!("{} {}", answer.status, answer.reason()))
            .collect();
        let seen: Vec<_> = self
            .seen
            .iter()
            .map(|request| request.head.escape_ascii().to_string())
            .collect();
        let sent: String = self.sent.escape_ascii().to_string().chars().take(300).collect();
        format!("sent {sent}\n    answered {statuses:?}\n    forwarded {seen:?}")
    }

    /// One request arrived, whose identity is the one that was proved.
    fn is_forwarded_as_user(&self) -> Result<(), String> {
        if self.seen.len() != 1 || self.status() != 200 {
            return Err("not forwarded once".into());
        }
        for name in ["x-user-id", "x-gw-user"] {
            let found: Vec<String> = self.seen[0]
                .aliases(name)
                .into_iter()
                .map(|(_, value)| value)
                .collect();
            if found != [USER] {
                return Err(format!("{name} arrived as {found:?}"));
            }
        }
        Ok(())
    }
}

fn judge(case: &Value, outcome: &Outcome) -> Result<(), String> {
    let expected = text(case, "expected");
    match text(case, "class").as_str() {
        class if class.starts_with("jwt/") => token_case(&text(case, "verdict"), outcome),
        "http1/header-smuggling" | "http1/hop-by-hop" | "http1/trailers" => identity_case(&expected, outcome),
        "http1/forwarded-spoof" => spoof_case(outcome),
        "http1/path" => path_case(outcome),
        "http1/framing" => framing_case(outcome),
        _ => status_case(&expected, outcome),
    }
}

fn token_case(verdict: &str, outcome: &Outcome) -> Result<(), String> {
    let refused = || {
        let challenge = outcome
            .answers
            .first()
            .map(|answer| answer.header("www-authenticate"))
            .unwrap_or_default();
        // A token that does not fit into a header section is refused with it.
        let fits = outcome.status() == 401 && challenge.contains("error=\"invalid_token\"");
        if outcome.seen.is_empty() && (fits || outcome.status() == 431) {
            Ok(())
        } else {
            Err("not refused as it must be".to_owned())
        }
    };
    match verdict {
        "accept" => outcome.is_forwarded_as_user(),
        "reject" => refused(),
        _ if outcome.is_refused() || outcome.seen.len() == 1 => Ok(()),
        _ => Err("neither accepted nor refused".into()),
    }
}

fn identity_case(expected: &str, outcome: &Outcome) -> Result<(), String> {
    if outcome.is_refused() {
        return if outcome.status() == 400 {
            Ok(())
        } else {
            Err("refused, and not with 400".into())
        };
    }
    if expected == "400" {
        return Err("accepted".into());
    }
    let names = outcome
        .seen
        .first()
        .map(|request| request.values("connection"))
        .unwrap_or_default();
    let named = names
        .iter()
        .any(|value| value.to_lowercase().contains("x-gw-user"));
    if named {
        Err("Connection was forwarded".into())
    } else {
        upgrade_or(outcome)
    }
}

/// A backend that does not switch protocols answers an upgrade as any other request.
fn upgrade_or(outcome: &Outcome) -> Result<(), String> {
    outcome.is_forwarded_as_user()
}

fn spoof_case(outcome: &Outcome) -> Result<(), String> {
    outcome.is_forwarded_as_user()?;
    let sent = String::from_utf8_lossy(&outcome.sent).into_owned();
    let line = sent.lines().nth(3).unwrap_or_default();
    let (name, value) = line.split_once(": ").unwrap_or_default();
    let passed_on = outcome.seen[0]
        .headers()
        .iter()
        .any(|(its, had)| its.eq_ignore_ascii_case(name) && had == value);
    let overwritten =
        name.eq_ignore_ascii_case("x-forwarded-for") && outcome.seen[0].values(name) == ["127.0.0.1"];
    if passed_on && !overwritten {
        Err(format!("{name} was passed on"))
    } else {
        Ok(())
    }
}

/// Nobody is logged in: either it is refused, or it is public and forwarded as it was sent.
fn path_case(outcome: &Outcome) -> Result<(), String> {
    if outcome.is_refused() {
        return Ok(());
    }
    let target = outcome
        .sent
        .split(|byte| *byte == b' ')
        .nth(1)
        .unwrap_or_default();
    let as_sent =
        outcome.seen.len() == 1 && outcome.seen[0].target() == target && target.starts_with(b"/public/");
    if as_sent {
        Ok(())
    } else {
        Err("forwarded otherwise than judged".into())
    }
}

fn framing_case(outcome: &Outcome) -> Result<(), String> {
    let smuggled = outcome
        .seen
        .iter()
        .any(|request| request.line().contains("/admin/smuggled"));
    if smuggled || outcome.seen.len() > 1 {
        return Err("smuggled".into());
    }
    match outcome.seen.len() {
        1 => outcome.is_forwarded_as_user(),
        _ if (400..600).contains(&outcome.status()) || outcome.answers.is_empty() => Ok(()),
        _ => Err("neither forwarded nor refused".into()),
    }
}

/// The statuses stand in the text; where there are none, a refusal of the client's doing is right.
fn status_case(expected: &str, outcome: &Outcome) -> Result<(), String> {
    let words = expected
        .split(|c: char| !c.is_ascii_digit())
        .filter(|word| word.len() == 3);
    let statuses: Vec<u16> = words.filter_map(|word| word.parse().ok()).collect();
    let got = outcome.status();
    let well = match got {
        200 if expected.contains("pass opaque") => outcome.seen.len() == 1,
        200 => statuses.contains(&200) && outcome.is_forwarded_as_user().is_ok(),
        _ if statuses.is_empty() || expected.contains(" or ") => outcome.is_refused(),
        _ => outcome.is_refused() && statuses.contains(&got),
    };
    if well {
        Ok(())
    } else {
        Err(format!("{got} instead of: {expected}"))
    }
}

fn text(case: &Value, name: &str) -> String {
    case[name].as_str().unwrap_or_default().to_owned()
}
