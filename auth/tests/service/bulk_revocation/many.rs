//! How long it takes, and where it ends.

use serde_json::{Value, json};

use super::Scene;
use crate::support::{House, ON_POSTGRES};

/// Puts sessions into the database, each with a valid refresh token, one in ten with an access token
/// that is valid, ten of a user.
async fn fill(house: &House, sessions: usize) {
    let now = house.clock.now();
    let (rows, random_id, random_hash) = if ON_POSTGRES {
        (
            "SELECT * FROM generate_series(0, {last})",
            "translate(gen_random_uuid()::text, '-', '')",
            "sha256(id::bytea)",
        )
    } else {
        (
            "SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {last}",
            "lower(hex(randomblob(13)))",
            "randomblob(32)",
        )
    };
    let numbers = |last: usize| rows.replace("{last}", &last.to_string());
    let statement = format!(
        "INSERT INTO users (id, username, password_hash, created_at, password_changed_at)
         WITH RECURSIVE n(i) AS ({}) SELECT 'u_' || i, 'user' || i, 'none', {now}, {now} FROM n;
         INSERT INTO sessions (id, user_id, client_id, client_address, user_agent, created_at, last_used_at,
         expires_at, access_expires_at)
         WITH RECURSIVE n(i) AS ({}) SELECT 's_' || {random_id}, 'u_' || (i / 10), 'first-party',
         '203.0.' || (i % 256) || '.' || (i / 256 % 256), 'Mozilla/5.0 (X11; Linux x86_64) Firefox/120', {now},
         {now}, {now} + 7776000, {now} + CASE WHEN i % 10 = 0 THEN 600 ELSE -600 END FROM n;
         INSERT INTO refresh_tokens (hash, session_id, state, issued_at, expires_at)
         SELECT {random_hash}, id, 'valid', {now}, {now} + 2592000 FROM sessions WHERE id NOT IN
         (SELECT session_id FROM refresh_tokens)",
        numbers(sessions / 10),
        numbers(sessions - 1),
    );
    house.outside().await.run(sqlx::AssertSqlSafe(statement)).await;
}

/// Prints how long it takes; what others wait for meanwhile is the longest part of it.
async fn measure(sessions: usize, what: Value) {
    let scene = Scene::new().await;
    fill(&scene.house, sessions).await;
    let mut dry = what.clone();
    dry["dry_run"] = json!(true);
    let start = std::time::Instant::now();
    let preview = scene.post(dry).await.ok();
    let tried = start.elapsed();
    let mut real = what.clone();
    real["expect"] = preview["selection"].clone();
    let start = std::time::Instant::now();
    let done = scene.post(real).await.ok();
    println!(
        "{sessions} sessions, {what}: dry run {tried:?}, run {:?}",
        start.elapsed()
    );
    assert!(done["counts"]["sessions"].as_u64().unwrap() >= sessions as u64);
    assert_eq!(done["valid_refresh_tokens"], 0);
}

#[tokio::test]
async fn ten_thousand_sessions_are_revoked_in_good_time() {
    measure(10_000, json!({ "filter": { "ip": ["203.0.0.0/16"] } })).await;
}

#[tokio::test]
#[ignore = "a measurement: run it in release, alone, with --nocapture"]
async fn figures() {
    for sessions in [10_000, durward_auth::MAX_SESSIONS_A_RUN] {
        measure(sessions, json!({ "filter": { "ip": ["203.0.0.0/16"] } })).await;
    }
    for sessions in [100_000, 1_000_000] {
        measure(sessions, json!({ "everyone": true })).await;
    }
}

#[tokio::test]
async fn more_sessions_than_a_run_ends_are_refused_and_everyone_is_not() {
    let scene = Scene::new().await;
    fill(&scene.house, durward_auth::MAX_SESSIONS_A_RUN + 1).await;
    let filter = json!({ "ip": ["203.0.0.0/16"] });
    let refused = scene.post(json!({ "filter": filter })).await;
    refused.refused(409, "selection_too_large");
    assert!(scene.house.recorder.entries().is_empty());
    assert_eq!(
        scene
            .house
            .query("SELECT COUNT(*) || '' FROM sessions WHERE revoked")
            .await,
        ["0"]
    );
    let real = scene.post(json!({ "everyone": true })).await.ok();
    assert!(real["counts"]["sessions"].as_u64().unwrap() > durward_auth::MAX_SESSIONS_A_RUN as u64);
}
