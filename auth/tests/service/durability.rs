use std::sync::Arc;
use std::time::Duration;

use crate::support::{House, ON_POSTGRES};

/// Another process that holds a lock delays refreshes; it neither doubles them nor keeps the
/// attestations waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lock_held_by_another_process_delays_and_never_doubles() {
    let house = Arc::new(House::new().await);
    house.user("alice", &[]).await;
    let tokens = house.login("alice").await;
    let mut other = house.outside().await;
    other
        .run(if ON_POSTGRES {
            "BEGIN; SELECT * FROM users FOR UPDATE; UPDATE revocation_head SET sequence = sequence + 1"
        } else {
            "BEGIN IMMEDIATE"
        })
        .await;
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (house, token) = (Arc::clone(&house), tokens.refresh.clone());
            tokio::spawn(async move { house.refresh(&token).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(tasks.iter().all(|task| !task.is_finished()));
    tokio::time::timeout(Duration::from_secs(1), house.service.attest())
        .await
        .unwrap()
        .unwrap();
    other.run("ROLLBACK").await;
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
    let mut other = house.outside().await;
    other
        .run("UPDATE revocation_head SET sequence = sequence + 1")
        .await;
    other
        .run(
            "INSERT INTO revocations (sequence, issuer, target_kind, target_id, bar_kind, created_at)
             SELECT sequence, 'http://issuer.test', 'token', 'abc', 'always', 0 FROM revocation_head",
        )
        .await;
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
async fn sqlite_is_in_wal_mode() {
    if ON_POSTGRES {
        return;
    }
    let house = House::new().await;
    assert_eq!(
        house.query("SELECT journal_mode FROM pragma_journal_mode").await,
        ["wal"]
    );
}
