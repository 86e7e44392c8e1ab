//! You can always ask why.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{
    Backend, FOREIGN, Finished, Key, Service, Setup, TestFolder, claims, durward, eventually, get, mint, now,
};

struct Stand {
    service: Service,
    key: Key,
    _backend: Backend,
}

fn stand() -> Stand {
    let backend = Backend::start();
    let key = Key::es256("k1");
    let service = Setup::foreign(&backend, &[&key]).start();
    Stand {
        service,
        key,
        _backend: backend,
    }
}

fn explain(service: &Service, method: &str, path: &str, more: &[&str]) -> Finished {
    let url = format!("http://{}{path}", service.edge);
    service.command(&[&["explain", method, &url], more].concat())
}

fn explain_json(service: &Service, path: &str, more: &[&str]) -> Value {
    let finished = explain(service, "GET", path, &[more, &["--json"]].concat());
    let answer: Value =
        serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:?}"));
    assert_eq!(finished.code == 0, answer["verdict"] == "permit", "{finished:?}");
    answer
}

#[test]
fn a_permit_says_where_to_and_as_whom() {
    let stand = stand();
    let token = mint(&stand.key, &claims("alice"));
    let finished = explain(&stand.service, "GET", "/users/alice/x", &["--token", &token]);
    assert_eq!(finished.code, 0, "{finished:?}");
    for said in ["upstream api", "x-user-id: alice", "/users/{id}/**", "(line "] {
        assert!(
            finished.stdout.to_lowercase().contains(&said.to_lowercase()),
            "{said}: {}",
            finished.stdout
        );
    }
    let answer = explain_json(&stand.service, "/users/alice/x", &["--token", &token]);
    assert_eq!(
        (&answer["verdict"], &answer["upstream"]),
        (&json!("permit"), &json!("api")),
        "{answer}"
    );
    assert_eq!(answer["identity_headers"][0][1], "alice", "{answer}");
    let steps = answer["steps"].as_array().unwrap();
    for phase in ["route", "credential", "proof", "rules", "identity"] {
        assert!(
            steps.iter().any(|step| step["phase"] == phase),
            "{phase}: {answer}"
        );
    }
    assert!(steps.iter().any(|step| step["place"].is_string()), "{answer}");
    assert_eq!(explain(&stand.service, "GET", "/public/x", &[]).code, 0);
}

#[test]
fn every_refusal_has_the_reason_that_the_edge_gives() {
    let stand = stand();
    let alice = mint(&stand.key, &claims("alice"));
    let mut expired = claims("alice");
    expired["exp"] = (now() - 100).into();
    expired["iat"] = (now() - 200).into();
    let expired = mint(&stand.key, &expired);
    let stranger = mint(&Key::es256("k1"), &claims("alice"));
    let mut elsewhere = claims("alice");
    elsewhere["aud"] = "other".into();
    let elsewhere = mint(&stand.key, &elsewhere);
    for (path, token, reason) in [
        ("/nowhere", None, "no_route"),
        ("/public/../admin/x", None, "ambiguous_path"),
        ("/public/%00", None, "bad_target"),
        ("/api/x", None, "no_credential"),
        ("/api/x?access_token=a", None, "credential_in_query"),
        ("/api/x", Some("null"), "token_malformed"),
        ("/api/x", Some(expired.as_str()), "token_expired"),
        ("/api/x", Some(&stranger), "bad_signature"),
        ("/api/x", Some(&elsewhere), "wrong_audience"),
        ("/admin/x", Some(&alice), "rule_refused"),
        ("/users/bob/x", Some(&alice), "rule_refused"),
        ("/api/read/x", Some(&alice), "insufficient_scope"),
    ] {
        let more: Vec<&str> = token.into_iter().flat_map(|token| ["--token", token]).collect();
        let answer = explain_json(&stand.service, path, &more);
        assert_eq!(answer["reason"], reason, "{path}: {answer}");
        let ask = token.map_or_else(|| get(path), |token| get(path).bearer(token));
        let edge = stand.service.ask(&ask);
        assert_eq!(
            (edge.reason().as_str(), json!(edge.status)),
            (reason, answer["status"].clone()),
            "{path}"
        );
        let human = explain(&stand.service, "GET", path, &more);
        assert_eq!(human.code, 1, "{human:?}");
        assert!(human.stdout.contains(reason), "{human:?}");
        if let Some(token) = token.filter(|token| token.len() > 20) {
            assert!(
                !human.stdout.contains(token) && !human.stderr.contains(token),
                "{human:?}"
            );
        }
    }
}

#[test]
fn headers_and_methods_count() {
    let stand = stand();
    let token = mint(&stand.key, &claims("alice"));
    let bearer = format!("Authorization: Bearer {token}");
    assert_eq!(
        explain(&stand.service, "GET", "/api/x", &["--header", &bearer]).code,
        0
    );
    let twice = explain_json(
        &stand.service,
        "/api/x",
        &["--header", &bearer, "--token", &token],
    );
    assert_eq!(twice["reason"], "several_credentials");
    let finished = explain(&stand.service, "TRACE", "/public/x", &[]);
    assert_eq!(finished.code, 1, "{finished:?}");
    for wrong in [
        &["--header", "no colon"][..],
        &["--at", "tomorrow"],
        &["--claims", "[]"],
        &["--claims", "{"],
    ] {
        assert_eq!(
            explain(&stand.service, "GET", "/api/x", wrong).code,
            2,
            "{wrong:?}"
        );
    }
}

#[test]
fn another_time_gives_another_answer() {
    let stand = stand();
    let token = mint(&stand.key, &claims("alice"));
    let later = (now() + 400).to_string();
    let answer = explain_json(&stand.service, "/api/x", &["--token", &token, "--at", &later]);
    assert_eq!(answer["reason"], "token_expired");
    let earlier = (now() - 400).to_string();
    let answer = explain_json(&stand.service, "/api/x", &["--token", &token, "--at", &earlier]);
    assert_eq!(answer["reason"], "token_not_yet_valid");
    assert_eq!(
        explain_json(&stand.service, "/api/x", &["--token", &token])["verdict"],
        "permit"
    );
}

#[test]
fn claims_can_be_assumed_without_a_service() {
    let folder = TestFolder::new();
    folder.write("jwks.json", Key::set(&[&Key::es256("k1")]));
    let names = [
        ("@edge", "127.0.0.1:1001"),
        ("@admin", "127.0.0.1:1002"),
        ("@api", "127.0.0.1:1003"),
    ];
    let text = names
        .iter()
        .fold(FOREIGN.to_owned(), |text, (from, to)| text.replace(from, to));
    let file = folder.write("config.yaml", text);
    let ask = |path: &str, claims: &str| {
        let fixed = [
            "explain",
            "GET",
            path,
            "--claims",
            claims,
            "--config",
            file.to_str().unwrap(),
        ];
        durward(&fixed, &folder)
    };
    for (path, claims, code, said) in [
        ("/users/alice/x", r#"{"sub":"alice"}"#, 0, "alice"),
        ("/users/bob/x", r#"{"sub":"alice"}"#, 1, "rule_refused"),
        ("/admin/x", r#"{"sub":"alice","role":"admin"}"#, 0, "alice"),
        ("/admin/x", r#"{"sub":"alice","role":"Admin"}"#, 1, "rule_refused"),
        ("/admin/x", r#"{"sub":"alice"}"#, 1, "rule_refused"),
        (
            "/api/read/x",
            r#"{"sub":"alice","scope":"write read"}"#,
            0,
            "alice",
        ),
        (
            "/api/read/x",
            r#"{"sub":"alice","scope":"readonly"}"#,
            1,
            "insufficient_scope",
        ),
        ("/api/x", r#"{"role":"admin"}"#, 1, "claim_missing"),
        ("/nowhere", r#"{"sub":"alice"}"#, 1, "no_route"),
    ] {
        let finished = ask(path, claims);
        assert_eq!(finished.code, code, "{path} {claims}: {finished:?}");
        assert!(finished.stdout.contains(said), "{path} {claims}: {finished:?}");
    }
}

#[test]
fn a_banned_users_token_is_explained_as_revoked() {
    let backend = Backend::start();
    let service = Setup::own(&backend).start();
    let alice = service.account("alice", &[]);
    let answer = || explain_json(&service, "/api/x", &["--token", &alice.tokens.access]);
    assert_eq!(answer()["verdict"], "permit");
    service.told(&["ban", "alice"]);
    let revoked = answer();
    assert_eq!(
        (&revoked["reason"], &revoked["status"]),
        (&json!("revoked"), &json!(401)),
        "{revoked}"
    );
    let assumed = format!(r#"{{"sub":"{}","epoch":0}}"#, alice.id);
    assert_eq!(
        explain_json(&service, "/api/x", &["--claims", &assumed])["reason"],
        "revoked"
    );
    assert_eq!(
        explain_json(&service, "/api/x", &["--claims", r#"{"sub":"u_other"}"#])["verdict"],
        "permit"
    );
    // An explanation is no request: the backend saw none.
    assert!(backend.requests().is_empty());
}

#[test]
fn a_token_is_inspected_without_being_believed() {
    let stand = stand();
    let token = mint(&stand.key, &claims("alice"));
    let finished = durward(&["token", "inspect", &token, "--json"], &stand.service.folder);
    assert_eq!(finished.code, 0, "{finished:?}");
    let answer: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(
        (&answer["claims"]["sub"], &answer["header"]["kid"]),
        (&json!("alice"), &json!("k1"))
    );
    assert_eq!(answer["verified"], false);
    assert_eq!(
        durward(&["token", "inspect", "nonsense"], &stand.service.folder).code,
        1
    );
}

#[test]
fn a_refusal_names_its_line_of_the_access_log() {
    let backend = Backend::start();
    let key = Key::es256("k1");
    let service = Setup::foreign(&backend, &[&key]).start();
    let ids: Vec<String> = ["/api/one", "/api/two"]
        .map(|path| {
            let answer = service.ask(&get(path)).expect_refusal(401, "no_credential");
            answer.header("x-request-id").to_owned()
        })
        .into();
    assert_ne!(ids[0], ids[1]);
    let log = eventually("both lines are there", || {
        let text = service.folder.text("access.log");
        (text.lines().count() == 2).then_some(text)
    });
    for ((line, id), path) in log.lines().zip(&ids).zip(["/api/one", "/api/two"]) {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&line["id"], &line["path"]), (&json!(id), &json!(path)));
    }
}

#[test]
fn an_access_log_that_is_moved_away_is_begun_anew() {
    let backend = Backend::start();
    let key = Key::es256("k1");
    let service = Setup::foreign(&backend, &[&key]).start();
    let (log, moved) = (
        service.folder.join("access.log"),
        service.folder.join("access.log.1"),
    );
    let mut asked = 0_usize;
    let mut ask = || {
        asked += 1;
        service.ask(&get(format!("/api/{asked}"))).expect(401);
        asked
    };
    ask();
    eventually("the first line is there", || {
        (std::fs::metadata(&log).ok()?.len() > 0).then_some(())
    });
    std::fs::rename(&log, &moved).unwrap();
    let asked = eventually("there is a new file", || {
        let asked = ask();
        std::fs::metadata(&log).ok().map(|_| asked)
    });
    let lines = eventually("no line is lost", || {
        let text = service.folder.text("access.log.1") + &service.folder.text("access.log");
        (text.lines().count() >= asked).then_some(text)
    });
    let paths: BTreeSet<String> = lines
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["path"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(
        paths,
        (1..=asked).map(|number| format!("/api/{number}")).collect()
    );
}
