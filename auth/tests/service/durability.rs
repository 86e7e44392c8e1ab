use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection;

use crate::support::House;

/// Another process that holds the write lock delays refreshes; it neither doubles them nor keeps the
/// attestations waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lock_held_by_another_process_delays_and_never_doubles() {
    let house = Arc::new(House::new().await);
    house.user("alice", &[]).await;
    let tokens = house.login("alice").await;
    let path = house.folder.path().join("auth.db");
    let mut other = sqlx::SqliteConnection::connect(&format!("sqlite:{}", path.display()))
        .await
        .unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (house, token) = (Arc::clone(&house), tokens.refresh.clone());
            tokio::spawn(async move { house.refresh(&token).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    tokio::time::timeout(Duration::from_secs(1), house.service.attest())
        .await
        .unwrap()
        .unwrap();
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    let mut successors = std::collections::BTreeSet::new();
    for task in tasks {
        successors.insert(task.await.unwrap().refresh);
    }
    assert_eq!(successors.len(), 1);
}

/// An entry that another process wrote reaches the followers before the one that came after it.
#[tokio::test]
async fn entries_of_another_process_are_applied_in_their_place() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let tokens = house.login("alice").await;
    let path = house.folder.path().join("auth.db");
    let mut other = sqlx::SqliteConnection::connect(&format!("sqlite:{}", path.display()))
        .await
        .unwrap();
    sqlx::query("UPDATE revocation_head SET sequence = 1")
        .execute(&mut other)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO revocations (sequence, issuer, target_kind, target_id, bar_kind, created_at)
         VALUES (1, 'http://issuer.test', 'token', 'abc', 'always', 0)",
    )
    .execute(&mut other)
    .await
    .unwrap();
    house
        .post("/auth/logout")
        .bearer(&tokens.access)
        .send()
        .await
        .ok();
    let sequences: Vec<u64> = house
        .recorder
        .entries()
        .iter()
        .map(|entry| entry.sequence.0)
        .collect();
    assert_eq!(sequences, [1, 2]);
}

#[tokio::test]
async fn the_database_is_in_wal_mode() {
    let house = House::new().await;
    assert_eq!(
        house.query("SELECT journal_mode FROM pragma_journal_mode").await,
        ["wal"]
    );
}
