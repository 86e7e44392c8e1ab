//! No secret in a log line, a metric or an error body, however much is logged; and no file that
//! others can read.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Backend, OWN, Service, Setup, Tokens, claims, get, login, mint, post, put};

const PASSWORD: &str = "s3cret-passphrase-of-carol";
const WRONG: &str = "wr0ng-passphrase-of-carol";
const NEXT: &str = "n3xt-passphrase-of-carol";
const API_KEY: &str = "the-backends-own-api-key";

/// Does everything that handles a secret; returns what every answer said, and the secrets.
fn live_a_little(service: &Service) -> (Vec<String>, Vec<String>) {
    let mut said = Vec::new();
    let mut ask = |ask: &crate::harness::Ask| {
        let answer = service.ask(ask);
        if answer.status >= 400 {
            said.push(format!("{:?} {}", answer.headers, answer.text()));
        }
        answer
    };
    let register =
        |password: &str| post("/auth/register").json(&json!({ "username": "carol", "password": password }));
    ask(&register(PASSWORD)).expect(201);
    ask(&register(PASSWORD)).expect(409);
    ask(&login("carol", WRONG)).expect(401);
    ask(&post("/auth/login").json(&json!({ "username": "carol", "password": PASSWORD, "x": WRONG })))
        .expect(400);
    ask(&post("/auth/login")
        .header("Content-Type", "text/plain")
        .body(PASSWORD))
    .expect(415);
    ask(&post("/auth/login").json(&json!([PASSWORD]))).expect(400);
    let first = Tokens::of(&ask(&login("carol", PASSWORD)));
    ask(&get("/api/x").bearer(&first.access)).expect(200);
    ask(&get("/api/admin/x").bearer(&first.access)).expect(403);
    ask(&get(format!("/api/x?access_token={}", first.access))).expect(401);
    ask(&get(format!("/public/x?token={}", first.access))).expect(200);
    ask(&get("/api/x").bearer(&first.refresh)).expect(401);
    ask(&get("/api/x").bearer(&format!("{}x", first.access))).expect(401);
    ask(&get("/api/x").bearer(&first.access).bearer(&first.access)).expect(400);
    ask(&get("/api/x").header("Authorization", format!("Basic {}", first.access))).expect(401);
    ask(&get("/auth/me").bearer(&first.access)).expect(200);
    ask(&get("/auth/me").bearer(&first.refresh)).expect(401);
    let refresh = |token: &str| post("/auth/refresh").json(&json!({ "refresh_token": token }));
    let second = Tokens::of(&ask(&refresh(&first.refresh)));
    let third = Tokens::of(&ask(&refresh(&second.refresh)));
    ask(&refresh(&first.refresh)).expect(400);
    ask(&refresh(&third.access)).expect(400);
    ask(&get("/api/x").bearer(&third.access)).expect(401);
    let fourth = Tokens::of(&ask(&login("carol", PASSWORD)));
    let change = json!({ "current_password": PASSWORD, "new_password": NEXT });
    ask(&put("/auth/password").bearer(&fourth.access).json(&change)).expect(405);
    ask(&post("/auth/password").bearer(&fourth.access).json(&change)).expect(200);
    let foreign = mint(&crate::harness::Key::es256("k9"), &claims("carol"));
    ask(&get("/api/x").bearer(&foreign)).expect(401);
    ask(&post("/auth/logout").bearer(&fourth.access)).expect(401);
    let made = service.told(&["apikey", "create", "billing", "--scope", "a", "--json"]);
    let made: Value = serde_json::from_str(&made).unwrap();
    let key = made["key"].as_str().unwrap().to_owned();
    let with_key = |target: &str| get(target).header("X-Api-Key", &key);
    ask(&with_key("/services/x")).expect(200);
    ask(&with_key("/api/x")).expect(403);
    ask(&with_key("/services/x").header("X-Api-Key", &key)).expect(400);
    ask(&with_key("/auth/me")).expect(403);
    ask(&get("/services/x").bearer(&key)).expect(403);
    ask(&get("/api/x").bearer(&key)).expect(401);
    ask(&get(format!("/services/x?api_key={key}"))).expect(401);
    ask(&get(format!("/public/x?api_key={key}"))).expect(200);
    ask(&get("/services/x").header("X-Api-Key", format!("{key}x"))).expect(401);
    let url = format!("http://{}/services/x", service.edge);
    let explained = service.command_with_input(&["explain", "GET", &url, "--api-key", "-"], &key);
    assert_eq!(explained.code, 0, "{explained:?}");
    service.told(&["apikey", "list"]);
    service.told(&["apikey", "revoke", made["id"].as_str().unwrap()]);
    ask(&with_key("/services/x")).expect(401);
    service.told(&["ban", "carol"]);
    ask(&login("carol", NEXT)).expect(403);

    let mut secrets: Vec<String> = [PASSWORD, WRONG, NEXT, API_KEY, &foreign, &key]
        .map(str::to_owned)
        .into();
    for tokens in [first, second, third, fourth] {
        secrets.extend([tokens.access, tokens.refresh]);
    }
    (said, secrets)
}

/// A secret gives itself away by its last part as well: the signature, the end of a random text.
#[track_caller]
fn assert_absent(place: &str, text: &str, secrets: &[String]) {
    for secret in secrets {
        let end = &secret[secret.len().saturating_sub(24)..];
        assert!(
            !text.contains(end),
            "{place} has {secret}:\n{}",
            text.lines()
                .filter(|line| line.contains(end))
                .collect::<Vec<_>>()
                .join("\n")
        );
    }
}

#[test]
fn nothing_that_is_written_has_a_secret_in_it() {
    let backend = Backend::start();
    let service = Setup::up(OWN)
        .replace(
            r#"api: { servers: ["@api"] }"#,
            r#"api: { servers: ["@api"], headers: { X-Api-Key: { file: api-key } } }"#,
        )
        .append("  - { path: /services/**, upstream: api, credentials: [api_key] }\n")
        .api(&backend)
        .file("api-key", API_KEY)
        .environment("DURWARD_LOG", "trace")
        .start();
    let (said, secrets) = live_a_little(&service);
    let metrics = service.metrics();
    let backend_saw = String::from_utf8_lossy(&backend.bytes()).into_owned();
    let folder = service.folder.to_path_buf();
    let at_rest: Vec<_> = service
        .folder
        .files()
        .into_iter()
        .filter(|path| holds_data(path))
        .collect();
    let at_rest: Vec<_> = at_rest
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap_or_default()))
        .collect();
    let access_log = |service: &Service| service.folder.text("access.log");
    let early = access_log(&service);
    let Service {
        process,
        folder: kept,
        ..
    } = service;
    process.signal("TERM");
    let finished = process.finish();
    assert_eq!(finished.code, 0);

    assert!(finished.stderr.contains("DEBUG"), "{}", finished.stderr);
    assert_absent("standard output", &finished.stdout, &secrets);
    assert_absent("standard error", &finished.stderr, &secrets);
    let log = kept.text("access.log");
    assert!(log.len() >= early.len() && log.lines().count() > 20, "{log}");
    assert_absent("the access log", &log, &secrets);
    assert_absent("the metrics", &metrics, &secrets);
    assert_absent("the answers", &said.join("\n"), &secrets);
    assert!(
        at_rest
            .iter()
            .any(|(path, bytes)| path.ends_with("data/auth.db") && !bytes.is_empty()),
        "{folder:?}"
    );
    for (path, bytes) in at_rest {
        assert_absent(
            &path.display().to_string(),
            &String::from_utf8_lossy(&bytes),
            &secrets,
        );
    }
    // The backend has its own key, and nothing of the tokens but what the client put into a query.
    assert!(backend_saw.contains(API_KEY));
    let of_tokens: Vec<String> = secrets.into_iter().filter(|secret| secret != API_KEY).collect();
    let without_queries: Vec<&str> = backend_saw
        .lines()
        .filter(|line| !line.starts_with("GET /public/x?"))
        .collect();
    assert_absent("what the backend saw", &without_queries.join("\n"), &of_tokens);
}

fn holds_data(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "data")
}

#[test]
fn access_log_lines_are_json_with_reason_and_user() {
    let backend = Backend::start();
    let service = Setup::own(&backend).start();
    let alice = service.account("alice", &[]);
    service.ask(&alice.get("/api/x?secret=1")).expect(200);
    service.ask(&get("/api/x")).expect(401);
    service.raw(b"GET /public/\x22\x5c%0aforged HTTP/1.1\r\nHost: a\"b\r\n\r\n");
    let Service { process, folder, .. } = service;
    process.signal("TERM");
    assert_eq!(process.finish().code, 0);
    let text = folder.text("access.log");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |path: &str, status: u64| {
        lines
            .iter()
            .find(|line| line["path"] == path && line["status"] == status)
    };
    let permitted = of("/api/x", 200).unwrap_or_else(|| panic!("{text}"));
    assert_eq!(
        (&permitted["user"], &permitted["outcome"]),
        (&json!(alice.id), &json!("permitted"))
    );
    let refused = of("/api/x", 401).unwrap_or_else(|| panic!("{text}"));
    assert_eq!(
        (&refused["reason"], &refused["outcome"]),
        (&json!("no_credential"), &json!("refused"))
    );
    assert!(refused.get("user").is_none());
    assert!(!text.contains("secret=1"));
}

#[test]
fn what_is_kept_is_for_the_owner_alone() {
    let service = Setup::shipped().start();
    service.account("carol", &[]);
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&service.folder.join("data/control.sock")), 0o600);
    assert_eq!(mode(&service.folder.join("data/demo-passwords")), 0o600);
    assert_eq!(mode(&service.folder.join("data/keys")), 0o700);
    let keys: Vec<_> = fs::read_dir(service.folder.join("data/keys"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(!keys.is_empty());
    for key in keys {
        assert_eq!(mode(&key), 0o600, "{}", key.display());
    }
    let database: Vec<_> = service
        .folder
        .files()
        .into_iter()
        .filter(|path| path.display().to_string().contains("auth.db"))
        .collect();
    assert!(!database.is_empty());
    for file in database {
        assert_eq!(mode(&file) & 0o077, 0, "{} {:o}", file.display(), mode(&file));
    }
}

#[test]
fn the_published_keys_are_public_ones() {
    let backend = Backend::start();
    let service = Setup::own(&backend).start();
    let set = service.ask(&get("/.well-known/jwks.json")).expect(200).json();
    let keys = set["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1, "{set}");
    assert_eq!(
        (&keys[0]["kty"], &keys[0]["alg"], &keys[0]["use"]),
        (&json!("EC"), &json!("ES256"), &json!("sig"))
    );
    assert!(keys[0]["kid"].as_str().is_some_and(|kid| !kid.is_empty()));
    for private in ["d", "p", "q", "k", "dp", "dq", "qi"] {
        assert!(keys[0].get(private).is_none(), "{set}");
    }
    let listed: Value = serde_json::from_str(&service.told(&["keys", "list", "--json"])).unwrap();
    assert_eq!(listed["keys"][0]["kid"], keys[0]["kid"]);
    let service = service.restart();
    assert_eq!(
        service.ask(&get("/.well-known/jwks.json")).expect(200).json(),
        set,
        "keys outlive a restart"
    );
}
