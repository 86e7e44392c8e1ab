use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use durward_contract::{Bar, FORGETS_NOTHING_FOR, Sequence, Target, UnixSeconds};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{House, ON_POSTGRES, revocations};

#[tokio::test]
async fn a_ban_is_applied_before_it_is_acknowledged_and_refuses_everything_from_before() {
    let house = House::new().await;
    house.user("root", &["admin"]).await;
    let id = house.user("mallory", &[]).await;
    let (admin, tokens) = (house.login("root").await, house.login("mallory").await);
    let ban = house
        .put(&format!("/auth/admin/users/{id}/ban"))
        .bearer(&admin.access);
    let user = ban.json(json!({ "reason": "spam" })).send().await.ok();
    assert_eq!(
        (&user["banned"], &user["banned_reason"]),
        (&json!(true), &json!("spam"))
    );
    let entries = house.recorder.entries();
    assert_eq!(entries.len(), 1);
    assert_eq!(
        (&entries[0].target, entries[0].bar),
        (&Target::User(id.clone()), Bar::EpochBelow(1))
    );
    assert_eq!(entries[0].sequence, Sequence(1));
    house.me(&tokens.access).await.refused(401, "revoked");
    let refused = house.try_refresh(&tokens.refresh).await;
    refused.refused(400, "user_banned");
    assert_eq!(refused.body["error"], "invalid_grant");
    let audit = house.query("SELECT actor || ' ' || action || ' ' || target || ' ' || detail FROM audit ORDER BY id DESC LIMIT 1").await;
    let admin_id = house.query("SELECT id FROM users WHERE username = 'root'").await;
    assert_eq!(audit, [format!("{} banned {id} spam", admin_id[0])]);
}

#[tokio::test]
async fn epochs_rise_over_ban_unban_ban_and_never_fall() {
    let house = House::new().await;
    house.user("root", &["admin"]).await;
    let id = house.user("mallory", &[]).await;
    let admin = house.login("root").await;
    let path = format!("/auth/admin/users/{id}/ban");
    let old = house.login("mallory").await;
    let epochs = async || {
        house
            .query("SELECT epoch || '' FROM users WHERE username = 'mallory'")
            .await[0]
            .clone()
    };
    house.put(&path).bearer(&admin.access).send().await.ok();
    house.put(&path).bearer(&admin.access).send().await.ok();
    assert_eq!(epochs().await, "1", "a second ban raises nothing");
    let user = house.delete(&path).bearer(&admin.access).send().await.ok();
    assert_eq!(user["banned"], false);
    house.delete(&path).bearer(&admin.access).send().await.ok();
    assert_eq!(epochs().await, "1", "an unban lowers nothing");
    house.me(&old.access).await.refused(401, "revoked");
    house
        .try_refresh(&old.refresh)
        .await
        .refused(400, "session_ended");
    let new = house.login("mallory").await;
    house.me(&new.access).await.ok();
    house.put(&path).bearer(&admin.access).send().await.ok();
    assert_eq!(epochs().await, "2");
    house.me(&new.access).await.refused(401, "revoked");
    let bars: Vec<Bar> = house.recorder.entries().iter().map(|entry| entry.bar).collect();
    assert_eq!(bars, [Bar::EpochBelow(1), Bar::EpochBelow(1), Bar::EpochBelow(2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn followers_get_entries_in_order_without_gaps() {
    let house = Arc::new(House::new().await);
    let mut tasks = Vec::new();
    for n in 0..8 {
        let name = format!("user{n}");
        house.user(&name, &[]).await;
        for _ in 0..8 {
            let tokens = house.login(&name).await;
            let house = Arc::clone(&house);
            tasks.push(tokio::spawn(async move {
                let logout = house
                    .post("/auth/logout")
                    .json(json!({ "refresh_token": tokens.refresh }));
                logout.send().await.ok();
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    let sequences: Vec<u64> = house
        .recorder
        .entries()
        .iter()
        .map(|entry| entry.sequence.0)
        .collect();
    assert_eq!(sequences, (1..=64).collect::<Vec<_>>());
    house.service.attest().await.unwrap();
    assert_eq!(
        house.recorder.attested.lock().unwrap().last(),
        Some(&Sequence(64))
    );
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_leave_a_ban_unapplied() {
    let house = House::new().await;
    house.user("root", &["admin"]).await;
    let admin = house.login("root").await;
    // From before the ban is begun until after it is done.
    let step = if ON_POSTGRES { 3000 } else { 300 };
    for n in 0..20_u64 {
        let id = house.user(&format!("mallory{n}"), &[]).await;
        let mut stream = tokio::net::TcpStream::connect(house.base.strip_prefix("http://").unwrap())
            .await
            .unwrap();
        let request = format!(
            "PUT /auth/admin/users/{id}/ban HTTP/1.1\r\nhost: auth.test\r\nauthorization: Bearer {}\r\n\r\n",
            admin.access
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        if n == 19 {
            // One of them stays, so that there is a ban at all on the slowest machine.
            stream.read_u8().await.unwrap();
        } else {
            tokio::time::sleep(Duration::from_micros(step * n)).await;
        }
        drop(stream);
    }
    house.service.attest().await.unwrap();
    // What was committed was applied: by the ban itself, or it is still on its way and comes.
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    loop {
        let banned = house.query("SELECT id FROM users WHERE banned").await;
        let applied = house.recorder.entries();
        let missing = banned
            .iter()
            .filter(|id| !applied.iter().any(|e| e.target == Target::User((*id).clone())));
        if missing.count() == 0 && !banned.is_empty() {
            break;
        }
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_death_between_commit_and_apply_is_not_acknowledged_and_mended_by_the_next_attestation() {
    let house = House::new().await;
    house.user("root", &["admin"]).await;
    let id = house.user("mallory", &[]).await;
    let admin = house.login("root").await;
    house.recorder.die.store(true, Ordering::SeqCst);
    let ban = house
        .put(&format!("/auth/admin/users/{id}/ban"))
        .bearer(&admin.access)
        .send()
        .await;
    ban.refused(500, "internal");
    house.service.attest().await.unwrap();
    assert_eq!(house.recorder.entries().len(), 1);
    assert_eq!(house.recorder.attested.lock().unwrap().last(), Some(&Sequence(1)));
}

#[tokio::test]
async fn a_restart_loads_what_a_dead_process_had_committed() {
    let house = House::new().await;
    house.user("root", &["admin"]).await;
    let id = house.user("mallory", &[]).await;
    let admin = house.login("root").await;
    house.recorder.die.store(true, Ordering::SeqCst);
    house
        .put(&format!("/auth/admin/users/{id}/ban"))
        .bearer(&admin.access)
        .send()
        .await
        .refused(500, "internal");
    let house = house.restart().await;
    let loaded = house.recorder.loaded.lock().unwrap().clone();
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].head, Sequence(1));
    assert_eq!(loaded[0].news.len(), 1);
    assert_eq!(
        revocations(&loaded[0].news).next().unwrap().target,
        Target::User(id)
    );
    house
        .try_login("mallory", crate::support::PASSWORD)
        .await
        .refused(403, "banned");
}

#[tokio::test]
async fn entries_are_kept_until_nothing_that_they_cover_can_be_valid() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    // Nothing is forgotten before.
    house
        .clock
        .advance(i64::try_from(FORGETS_NOTHING_FOR.as_secs()).unwrap());
    let tokens = house.login("alice").await;
    house
        .post("/auth/logout-all")
        .bearer(&tokens.access)
        .send()
        .await
        .ok();
    let forget_at = house.recorder.entries()[0].forget_at.unwrap();
    let exp = crate::support::claims(&tokens.access)["exp"].as_i64().unwrap();
    assert_eq!(forget_at.0, exp + 120);
    house.clock.advance(forget_at.0 - 1 - (exp - 600));
    house.service.purge().await.unwrap();
    assert_eq!(house.query("SELECT COUNT(*) || '' FROM revocations").await, ["1"]);
    house.clock.advance(1);
    house.service.purge().await.unwrap();
    assert_eq!(house.query("SELECT COUNT(*) || '' FROM revocations").await, ["0"]);
    let house = house.restart().await;
    let loaded = house.recorder.loaded.lock().unwrap().clone();
    assert_eq!((loaded[0].head, loaded[0].news.len()), (Sequence(1), 0));
}

#[tokio::test]
async fn a_clock_that_was_set_back_does_not_shorten_an_entry() {
    let house = House::new().await;
    house.user("root", &["admin"]).await;
    let id = house.user("mallory", &[]).await;
    let admin = house.login("root").await;
    house.clock.advance(1800);
    let admin_later = house.refresh(&admin.refresh).await;
    let tokens = house.login("mallory").await;
    house.clock.jump(-1790);
    let _ = admin_later;
    house
        .put(&format!("/auth/admin/users/{id}/ban"))
        .bearer(&admin.access)
        .send()
        .await
        .ok();
    let exp = crate::support::claims(&tokens.access)["exp"].as_i64().unwrap();
    assert_eq!(house.recorder.entries()[0].forget_at.unwrap().0, exp + 120);
}

#[tokio::test]
async fn without_sql_nothing_is_attested_and_nothing_is_acknowledged() {
    let house = House::new().await;
    house.user("root", &["admin"]).await;
    let tokens = house.login("root").await;
    house.service.attest().await.unwrap();
    house.service.close().await;
    let before = house.recorder.attested.lock().unwrap().len();
    assert!(house.service.attest().await.is_err());
    assert_eq!(house.recorder.attested.lock().unwrap().len(), before);
    house.me(&tokens.access).await.refused(503, "store_unavailable");
    let refused = house.try_refresh(&tokens.refresh).await;
    refused.refused(503, "store_unavailable");
    assert_eq!(refused.body["error"], "temporarily_unavailable");
    assert_eq!(refused.headers["retry-after"], "1");
}

#[tokio::test]
async fn a_wall_clock_that_jumps_ahead_and_back_deletes_nothing_that_matters() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let tokens = house.login("alice").await;
    house
        .post("/auth/logout-all")
        .bearer(&tokens.access)
        .send()
        .await
        .ok();
    house.clock.jump(10 * 365 * 24 * 3600);
    house.service.purge().await.unwrap();
    house.clock.jump(-10 * 365 * 24 * 3600);
    assert_eq!(house.query("SELECT COUNT(*) || '' FROM revocations").await, ["1"]);
    assert_eq!(house.query("SELECT COUNT(*) || '' FROM sessions").await, ["1"]);
}

/// A machine whose clock is set only after the service has started.
#[tokio::test]
async fn a_service_that_starts_with_its_clock_ahead_refuses_what_was_revoked_before() {
    let house = House::new().await;
    house.user("alice", &[]).await;
    let tokens = house.login("alice").await;
    let ended = house.post("/auth/logout-all").bearer(&tokens.access);
    ended.send().await.ok();
    house.clock.jump(10 * 365 * 24 * 3600);
    let house = house.restart().await;
    house.service.purge().await.unwrap();
    house.clock.jump(-10 * 365 * 24 * 3600);
    house.me(&tokens.access).await.refused(401, "revoked");
    let loaded = house.recorder.loaded.lock().unwrap().pop().unwrap();
    assert_eq!(loaded.news.len(), 1, "the mirror has it");
    assert_eq!(house.service.forgets_until(), UnixSeconds(i64::MIN));
    let standing = house.service.log_standing(Sequence(0), 10).await.unwrap();
    assert_eq!(standing.len(), 1, "and so has Redis");
    // Nothing of it can be valid by then, whatever the clock says.
    house.clock.advance(4000);
    house.service.purge().await.unwrap();
    let rows = house.query("SELECT COUNT(*) || '' FROM revocations").await;
    assert_eq!(rows, ["0"]);
}
