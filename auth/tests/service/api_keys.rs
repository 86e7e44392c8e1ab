use std::sync::Arc;
use std::sync::atomic::Ordering;

use durward_contract::{Bar, Grant, News, Sequence, Target, UnixSeconds};
use durward_policy::ApiKey;
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{House, ON_POSTGRES, Tokens};

const DAY: i64 = 24 * 3600;
const KEYS: &str = "/auth/admin/api-keys";

async fn house_with_admin() -> (House, Tokens) {
    let house = House::new().await;
    house.user("root", &["admin"]).await;
    let admin = house.login("root").await;
    (house, admin)
}

async fn make(house: &House, admin: &Tokens, body: Value) -> Value {
    let made = house.post(KEYS).bearer(&admin.access).json(body).send().await;
    assert_eq!(made.status, 201, "{}", made.body);
    made.body
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("no {name}: {value}"))
}

/// The grants that the follower was loaded with last.
fn loaded_grants(house: &House) -> Vec<Grant> {
    let loaded = house.recorder.loaded.lock().unwrap();
    let grants = loaded.last().unwrap().news.iter().filter_map(|news| match news {
        News::Grant(grant) => Some(grant.clone()),
        News::Revocation(_) => None,
    });
    grants.collect()
}

#[tokio::test]
async fn a_key_is_shown_once_and_applied_before_that() {
    let (house, admin) = house_with_admin().await;
    let made = make(
        &house,
        &admin,
        json!({ "service": "billing", "scopes": ["notes:write", "notes:read", "notes:read"] }),
    )
    .await;
    let key = text(&made, "key").to_owned();
    let parsed = ApiKey::parse(&key).unwrap();
    assert_eq!(parsed.id(), text(&made, "id"));
    let now = house.clock.now();
    assert_eq!(
        (
            &made["service"],
            &made["scopes"],
            &made["state"],
            &made["expires_at"]
        ),
        (
            &json!("billing"),
            &json!(["notes:read", "notes:write"]),
            &json!("live"),
            &json!(now + 90 * DAY)
        )
    );
    let granted = house.recorder.grants();
    assert_eq!(
        granted,
        [Grant {
            sequence: Sequence(1),
            issuer: crate::support::ISSUER.into(),
            key: parsed.id().into(),
            digest: parsed.digest().0,
            service: "billing".into(),
            scopes: vec!["notes:read".into(), "notes:write".into()],
            expires_at: Some(UnixSeconds(now + 90 * DAY)),
        }]
    );
    // Never again, and nowhere: only the hash is kept.
    let listed = house.get(KEYS).bearer(&admin.access).send().await.ok();
    assert_eq!(listed["api_keys"][0]["id"], made["id"]);
    assert!(listed["api_keys"][0].get("key").is_none());
    let digests = match ON_POSTGRES {
        true => "SELECT upper(encode(digest, 'hex')) FROM api_keys",
        false => "SELECT hex(digest) FROM api_keys",
    };
    let stored = house.query(digests).await;
    let hash: String = parsed
        .digest()
        .0
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    assert_eq!(stored, [hash]);
    let secret = &key[21..];
    for file in std::fs::read_dir(house.folder.path()).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            let content = std::fs::read(&path).unwrap();
            let found = content
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
    let audit = house
        .query("SELECT actor || ' ' || action || ' ' || target || ' ' || detail FROM audit ORDER BY id DESC LIMIT 1")
        .await;
    let admin_id = &house.query("SELECT id FROM users WHERE username = 'root'").await[0];
    assert_eq!(
        audit,
        [format!(
            "{admin_id} api_key_made {} billing [notes:read notes:write]",
            parsed.id()
        )]
    );
}

#[tokio::test]
async fn a_revoked_key_is_refused_before_that_is_acknowledged() {
    let (house, admin) = house_with_admin().await;
    let made = make(&house, &admin, json!({ "service": "billing" })).await;
    let path = format!("{KEYS}/{}", text(&made, "id"));
    for sequence in [2, 3] {
        let revoked = house.delete(&path).bearer(&admin.access).send().await.ok();
        assert_eq!(
            (&revoked["state"], &revoked["id"]),
            (&json!("revoked"), &made["id"])
        );
        let entry = house.recorder.entries().pop().unwrap();
        assert_eq!(
            (entry.sequence, entry.target, entry.bar),
            (
                Sequence(sequence),
                Target::ApiKey(text(&made, "id").into()),
                Bar::Always
            )
        );
        assert!(entry.forget_at.unwrap().0 > made["expires_at"].as_i64().unwrap());
    }
    let endless = make(
        &house,
        &admin,
        json!({ "service": "cron", "expires_in": "never" }),
    )
    .await;
    assert_eq!(endless["expires_at"], Value::Null);
    let path = format!("{KEYS}/{}", text(&endless, "id"));
    house.delete(&path).bearer(&admin.access).send().await.ok();
    assert_eq!(house.recorder.entries().pop().unwrap().forget_at, None);
    let unknown = house
        .delete(&format!("{KEYS}/0000000000000000"))
        .bearer(&admin.access)
        .send()
        .await;
    unknown.refused(404, "no_such_api_key");
}

#[tokio::test]
async fn a_new_follower_hears_of_the_keys_that_are_accepted_and_no_others() {
    let (house, admin) = house_with_admin().await;
    let kept = make(
        &house,
        &admin,
        json!({ "service": "kept", "expires_in": "never" }),
    )
    .await;
    make(&house, &admin, json!({ "service": "short", "expires_in": 60 })).await;
    let gone = make(&house, &admin, json!({ "service": "gone" })).await;
    let path = format!("{KEYS}/{}", text(&gone, "id"));
    house.delete(&path).bearer(&admin.access).send().await.ok();
    let house = house.restart().await;
    let services = |house: &House| -> Vec<String> {
        loaded_grants(house)
            .into_iter()
            .map(|grant| grant.service)
            .collect()
    };
    assert_eq!(services(&house), ["kept", "short"]);
    assert_eq!(loaded_grants(&house)[0].key, text(&kept, "id"));
    house.clock.advance(60);
    let house = house.restart().await;
    assert_eq!(services(&house), ["kept"]);
    let states = house
        .query(
            "SELECT service || ' ' || CASE WHEN revoked_at IS NULL THEN '1' ELSE '0' END FROM api_keys
             ORDER BY service",
        )
        .await;
    assert_eq!(
        states,
        ["gone 0", "kept 1", "short 1"],
        "their rows stay for operators"
    );
}

/// What another process wrote is read from the log: grants and revocations in the order of their
/// numbers, page by page.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_is_caught_up_with_in_order() {
    let (house, admin) = house_with_admin().await;
    let mut ids = Vec::new();
    house.recorder.die.store(true, Ordering::SeqCst);
    for n in 0..3 {
        let body = json!({ "service": format!("s{n}"), "expires_in": "never" });
        // The first answer is lost in the crash; what it committed is not.
        let made = house.post(KEYS).bearer(&admin.access).json(body).send().await;
        if n == 0 {
            assert_eq!(made.status, 500);
        } else {
            ids.push(text(&made.body, "id").to_owned());
        }
    }
    let path = format!("{KEYS}/{}", ids[0]);
    house.delete(&path).bearer(&admin.access).send().await.ok();
    let sequences: Vec<u64> = house
        .recorder
        .grants()
        .iter()
        .map(|grant| grant.sequence.0)
        .collect();
    assert_eq!(sequences, [1, 2, 3]);
    assert_eq!(house.recorder.entries()[0].sequence, Sequence(4));
    let heads = house.query("SELECT sequence || '' FROM revocation_head").await;
    assert_eq!(heads, ["4"]);
}

#[tokio::test]
async fn what_a_key_may_be_is_checked() {
    let (house, admin) = house_with_admin().await;
    let many: Vec<String> = (0..33).map(|n| format!("s{n}")).collect();
    for (body, reason) in [
        (json!({}), "invalid_body"),
        (json!({ "service": "a", "key": "b" }), "invalid_body"),
        (json!({ "service": "a", "scopes": "b" }), "invalid_body"),
        (json!({ "service": "a", "expires_in": -1 }), "invalid_body"),
        (json!({ "service": "a", "expires_in": 1.5 }), "invalid_body"),
        (json!({ "service": "" }), "invalid_service"),
        (json!({ "service": "u_abcdef" }), "invalid_service"),
        (json!({ "service": "Billing" }), "invalid_service"),
        (json!({ "service": "a,b" }), "invalid_service"),
        (json!({ "service": "a\r\nX-User-Id: root" }), "invalid_service"),
        (json!({ "service": "a", "scopes": ["a b"] }), "invalid_scope"),
        (json!({ "service": "a", "scopes": [""] }), "invalid_scope"),
        (json!({ "service": "a", "scopes": many }), "invalid_scope"),
        (json!({ "service": "a", "expires_in": 0 }), "invalid_expiry"),
        (
            json!({ "service": "a", "expires_in": 3651 * DAY }),
            "invalid_expiry",
        ),
        (json!({ "service": "a", "expires_in": "90d" }), "invalid_expiry"),
    ] {
        let refused = house
            .post(KEYS)
            .bearer(&admin.access)
            .json(body.clone())
            .send()
            .await;
        assert_eq!((refused.status, refused.reason()), (400, reason), "{body}");
    }
    assert!(house.recorder.grants().is_empty());
    // A user's id is never a service's name.
    let id = &house.query("SELECT id FROM users").await[0];
    let refused = house
        .post(KEYS)
        .bearer(&admin.access)
        .json(json!({ "service": id }))
        .send()
        .await;
    refused.refused(400, "invalid_service");
}

#[tokio::test]
async fn keys_are_for_admins_and_a_key_is_none_itself() {
    let (house, admin) = house_with_admin().await;
    house.user("alice", &["editor"]).await;
    let alice = house.login("alice").await;
    let made = make(
        &house,
        &admin,
        json!({ "service": "billing", "scopes": ["admin"] }),
    )
    .await;
    let one = format!("{KEYS}/{}", text(&made, "id"));
    for (method, path) in [
        (Method::GET, KEYS),
        (Method::POST, KEYS),
        (Method::DELETE, one.as_str()),
    ] {
        let call = || {
            house
                .call(method.clone(), path)
                .json(json!({ "service": "other" }))
        };
        call().send().await.refused(401, "no_credential");
        let refused = call().bearer(&alice.access).send().await;
        refused.refused(403, "admin_required");
        let refused = call().header("x-api-key", text(&made, "key")).send().await;
        refused.refused(403, "credential_not_accepted");
        let both = call()
            .header("x-api-key", text(&made, "key"))
            .bearer(&admin.access)
            .send()
            .await;
        both.refused(400, "several_credentials");
    }
    assert_eq!(house.recorder.grants().len(), 1);
    assert!(house.recorder.entries().is_empty());
}

#[tokio::test]
async fn keys_are_listed_in_pages_with_their_state() {
    let (house, admin) = house_with_admin().await;
    for n in 0..5 {
        make(
            &house,
            &admin,
            json!({ "service": format!("s{n}"), "expires_in": 60 + n }),
        )
        .await;
    }
    let page = async |query: &str| {
        house
            .get(&format!("{KEYS}{query}"))
            .bearer(&admin.access)
            .send()
            .await
            .ok()
    };
    let first = page("?limit=3").await;
    let second = page(&format!("?limit=3&after={}", text(&first, "next"))).await;
    assert_eq!(second["next"], Value::Null);
    let mut services: Vec<String> = [&first, &second]
        .iter()
        .flat_map(|page| page["api_keys"].as_array().unwrap())
        .map(|key| text(key, "service").to_owned())
        .collect();
    services.sort();
    assert_eq!(services, ["s0", "s1", "s2", "s3", "s4"]);
    house.clock.advance(62);
    let states: Vec<_> = page("").await["api_keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| (text(key, "service").to_owned(), text(key, "state").to_owned()))
        .filter(|(_, state)| state == "expired")
        .map(|(service, _)| service)
        .collect();
    assert_eq!(states.len(), 3, "{states:?}");
}

#[tokio::test]
async fn a_certificates_name_is_granted_to_one_at_a_time_and_anew_once_it_was_taken_back() {
    let (house, admin) = house_with_admin().await;
    let grant = async |service: &str, name: &str| {
        let body = json!({ "service": service, "certificate": name });
        house.post(KEYS).bearer(&admin.access).json(body).send().await
    };
    let revoke = async |made: &Value| {
        let path = format!("{KEYS}/{}", text(made, "id"));
        house.delete(&path).bearer(&admin.access).send().await.ok()
    };
    let name = "dns:billing.internal";
    let first = grant("billing", name).await.body;
    assert_eq!(
        (
            text(&first, "kind"),
            text(&first, "certificate"),
            first.get("key")
        ),
        ("client_certificate", name, None)
    );
    grant("cron", "dns:Billing.Internal.")
        .await
        .refused(409, "certificate_taken");
    assert_eq!(text(&revoke(&first).await, "state"), "revoked");
    // Many at once: one of them has it.
    let house = Arc::new(house);
    let mut all = JoinSet::new();
    for number in 0..8 {
        let (house, admin) = (Arc::clone(&house), admin.access.clone());
        let body = json!({ "service": format!("s{number}"), "certificate": name });
        all.spawn(async move { house.post(KEYS).bearer(&admin).json(body).send().await });
    }
    let (made, refused): (Vec<_>, Vec<_>) = all
        .join_all()
        .await
        .into_iter()
        .partition(|answer| answer.status == 201);
    let [second] = &made[..] else {
        panic!("{made:?} {refused:?}");
    };
    let second = &second.body;
    for answer in &refused {
        answer.refused(409, "certificate_taken");
    }
    assert_ne!(second["id"], first["id"]);
    // To revoke the first again leaves the second alone.
    let path = format!("{KEYS}/{}", text(&first, "id"));
    house.delete(&path).bearer(&admin.access).send().await.ok();
    let grants = house.recorder.grants();
    assert_eq!(grants.len(), 2);
    assert_eq!(grants[0].digest, grants[1].digest);
    assert!(grants[0].sequence < grants[1].sequence);
    let listed = house.get(KEYS).bearer(&admin.access).send().await.ok();
    for (made, state) in [(&first, "revoked"), (second, "live")] {
        let listed = listed["api_keys"].as_array().unwrap();
        let row = listed.iter().find(|row| row["id"] == made["id"]).unwrap();
        assert_eq!((text(row, "certificate"), text(row, "state")), (name, state));
    }
    // One that has expired holds its name until it is revoked.
    house.clock.advance(91 * DAY);
    let admin = house.login("root").await;
    let body = || json!({ "service": "billing", "certificate": name });
    let again = house.post(KEYS).bearer(&admin.access).json(body()).send().await;
    again.refused(409, "certificate_taken");
    let path = format!("{KEYS}/{}", text(second, "id"));
    house.delete(&path).bearer(&admin.access).send().await.ok();
    let third = make(&house, &admin, body()).await;
    let loaded = house.replica().await;
    let ids: Vec<String> = loaded_grants(&loaded)
        .into_iter()
        .map(|grant| grant.key)
        .collect();
    assert_eq!(ids, [text(&third, "id")]);
}

#[tokio::test]
async fn ended_keys_are_forgotten_in_time_and_live_ones_never() {
    let (house, admin) = house_with_admin().await;
    make(
        &house,
        &admin,
        json!({ "service": "kept", "expires_in": "never" }),
    )
    .await;
    make(&house, &admin, json!({ "service": "short", "expires_in": 60 })).await;
    let gone = make(
        &house,
        &admin,
        json!({ "service": "gone", "expires_in": "never" }),
    )
    .await;
    let path = format!("{KEYS}/{}", text(&gone, "id"));
    house.delete(&path).bearer(&admin.access).send().await.ok();
    house.clock.advance(399 * DAY);
    house.service.purge().await.unwrap();
    let services = async || house.query("SELECT service FROM api_keys ORDER BY service").await;
    assert_eq!(services().await, ["gone", "kept", "short"]);
    house.clock.advance(2 * DAY);
    house.service.purge().await.unwrap();
    assert_eq!(services().await, ["kept"]);
    let house = house.restart().await;
    assert_eq!(loaded_grants(&house).len(), 1);
    let loaded = house.recorder.loaded.lock().unwrap().pop().unwrap();
    let bars = loaded
        .news
        .iter()
        .any(|news| matches!(news, News::Revocation(entry) if entry.target == Target::ApiKey(text(&gone, "id").into())));
    assert!(bars, "a key without an end is refused without an end");
}

/// A database as it was after some of the migrations. PostgreSQL changes its tables in place.
async fn older(plan: &crate::support::Plan, migrations: &[&str]) -> sqlx::SqliteConnection {
    use sqlx::Connection;
    let path = plan.folder.path().join("auth.db");
    let url = format!("sqlite:{}?mode=rwc", path.display());
    let mut old = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let all = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite");
    let some = plan.folder.path().join("older");
    std::fs::create_dir(&some).unwrap();
    for name in migrations {
        std::fs::copy(all.join(name), some.join(name)).unwrap();
    }
    let migrator = sqlx::migrate::Migrator::new(some.as_path()).await.unwrap();
    migrator.run(&mut old).await.unwrap();
    old
}

/// A database of the version before: what its log refused is refused still.
#[tokio::test]
async fn the_log_survives_the_change_of_its_table() {
    use sqlx::Connection;
    if ON_POSTGRES {
        return;
    }
    let plan = crate::support::Plan::default();
    let mut old = older(&plan, &["0001_foundation.sql"]).await;
    sqlx::query(
        "INSERT INTO revocations VALUES (1, 'http://issuer.test', 'user', 'u_a', 'epoch_below', 4, NULL, 5)",
    )
    .execute(&mut old)
    .await
    .unwrap();
    sqlx::query("UPDATE revocation_head SET sequence = 1")
        .execute(&mut old)
        .await
        .unwrap();
    old.close().await.unwrap();
    let house = plan.build().await;
    let loaded = house.recorder.loaded.lock().unwrap().pop().unwrap();
    assert_eq!(loaded.head, Sequence(1));
    let [News::Revocation(entry)] = loaded.news.as_slice() else {
        panic!("{loaded:?}");
    };
    assert_eq!(
        (&entry.target, entry.bar),
        (&Target::User("u_a".into()), Bar::EpochBelow(4))
    );
}

/// Grants of before have the names that the audit has of them, and stay what they were.
#[tokio::test]
async fn grants_survive_the_change_of_their_table() {
    use sqlx::Connection;
    if ON_POSTGRES {
        return;
    }
    let plan = crate::support::Plan::default();
    let migrations = [
        "0001_foundation.sql",
        "0002_log_id.sql",
        "0003_api_keys.sql",
        "0004_revocation_runs.sql",
    ];
    let mut old = older(&plan, &migrations).await;
    for statement in [
        "INSERT INTO api_keys VALUES ('k1', 1, 'http://issuer.test', x'01', 'billing', '', 5, 'u_a', NULL, 7, 'u_b')",
        "INSERT INTO api_keys VALUES ('k2', 2, 'http://issuer.test', x'02', 'cron', 'a b', 6, 'u_a', 99, NULL, NULL)",
        "INSERT INTO api_keys VALUES ('k3', 3, 'http://issuer.test', x'03', 'old', '', 6, 'u_a', 99, NULL, NULL)",
        "INSERT INTO audit (at, actor, action, target, detail) VALUES
         (5, 'u_a', 'api_key_made', 'k1', 'billing [] dns:billing.internal'),
         (6, 'u_a', 'api_key_made', 'k2', 'cron [a b]'), (7, 'u_a', 'api_key_revoked', 'k1', 'billing')",
        "UPDATE revocation_head SET sequence = 3",
    ] {
        sqlx::query(statement).execute(&mut old).await.unwrap();
    }
    old.close().await.unwrap();
    let house = plan.build().await;
    let rows = "SELECT concat_ws(' ', id, sequence, hex(digest), coalesce(certificate, '-'), service, scopes,
         created_at, created_by, coalesce(expires_at, '-'), coalesce(revoked_at, '-'), coalesce(revoked_by, '-'))
         FROM api_keys ORDER BY id";
    assert_eq!(
        house.query(rows).await,
        [
            "k1 1 01 dns:billing.internal billing  5 u_a - 7 u_b",
            "k2 2 02 - cron a b 6 u_a 99 - -",
            "k3 3 03 - old  6 u_a 99 - -",
        ]
    );
}
