//! How far an entry has come, and who has not answered.

mod parties;
mod servers;

use std::time::Duration;

use durward_contract::Sequence;
use durward_news::{FollowerTask, Publisher};
use parties::{Gateway, MemoryLog, publish, until};
use servers::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_far_an_entry_has_come_is_known_by_name() {
    let server = Server::start(&[]);
    let log = MemoryLog::new();
    let publisher = publish(&server.connector(), &log);
    let gateways: Vec<_> = (0..3).map(|_| Gateway::new(&log)).collect();
    let mut tasks: Vec<_> = gateways
        .iter()
        .enumerate()
        .map(|(number, gateway)| gateway.follow(&server.connector(), &format!("edge {number}")))
        .collect();
    until("loaded", || gateways.iter().all(|gateway| gateway.is_fresh())).await;
    let sequence = log.ban("mallory");
    publisher.wake();
    let reach = publisher.reach(sequence, Duration::from_secs(5)).await.unwrap();
    println!("reach: {:?}", reach.took);
    assert!(reach.is_complete(), "{reach:?}");
    let names: Vec<_> = reach
        .gateways
        .iter()
        .map(|gateway| gateway.name.as_str())
        .collect();
    assert_eq!(names, ["edge 0", "edge 1", "edge 2"]);

    // One that stops in order is not waited for; one that just falls silent is named.
    tasks.pop().unwrap().stop().await;
    drop(tasks.pop());
    let sequence = log.ban("eve");
    publisher.wake();
    let reach = publisher
        .reach(sequence, Duration::from_millis(300))
        .await
        .unwrap();
    let applied: Vec<_> = reach
        .gateways
        .iter()
        .map(|gateway| (gateway.name.as_str(), gateway.applied))
        .collect();
    assert_eq!(applied, [("edge 0", true), ("edge 1", false)]);
    // Until it has been silent for long.
    until("forgotten", || {
        !server.ask(&["HVALS", "{durward}:gateways"]).contains("edge 1")
    })
    .await;
}

/// What Redis loses it loses of the living and of the dead: who was known and has not reported again
/// is named as missing, like before, and for as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_not_reported_again_after_a_loss_is_named() {
    let server = Server::start(&[]);
    let log = MemoryLog::new();
    let publisher = publish(&server.connector(), &log);
    let gateways: Vec<_> = (0..3).map(|_| Gateway::new(&log)).collect();
    let follow = |(number, gateway): (usize, &std::sync::Arc<Gateway>)| {
        gateway.follow(&server.connector(), &format!("edge {number}"))
    };
    let mut tasks: Vec<FollowerTask> = gateways.iter().enumerate().map(follow).collect();
    until("loaded", || gateways.iter().all(|gateway| gateway.is_fresh())).await;
    assert_eq!(reached(&publisher, log.ban("a")).await.len(), 3);
    // One stops in order, one falls silent, one lives; then all reports are lost.
    tasks.pop().unwrap().stop().await;
    drop(tasks.pop());
    let before = reached(&publisher, log.ban("b")).await;
    assert_eq!(
        before,
        [("edge 0".to_owned(), true), ("edge 1".to_owned(), false)]
    );
    let lose: [&dyn Fn(); 2] = [&|| drop(server.ask(&["FLUSHALL"])), &|| {
        drop(server.ask(&["DEL", "{durward}:gateways"]))
    }];
    for lose in lose {
        lose();
        assert_eq!(reached(&publisher, log.ban("c")).await, before);
        until("reported again", || {
            server.ask(&["HVALS", "{durward}:gateways"]).contains("edge 0")
        })
        .await;
        assert_eq!(reached(&publisher, log.ban("d")).await, before);
    }
    // Not for ever.
    let mut named = 2;
    let start = std::time::Instant::now();
    while named > 1 {
        assert!(start.elapsed() < servers::PATIENCE, "it is never forgotten");
        named = reached(&publisher, log.head_now()).await.len();
    }
    let last = reached(&publisher, log.ban("e")).await;
    assert_eq!(last, [("edge 0".to_owned(), true)]);
}

/// Who was named, and whether they had it. Redis may have to be built anew for an answer, so where
/// nobody or not the living one has it yet, it is asked again.
async fn reached(publisher: &Publisher, sequence: Sequence) -> Vec<(String, bool)> {
    publisher.wake();
    let start = std::time::Instant::now();
    loop {
        let reach = publisher.reach(sequence, Duration::from_millis(200)).await;
        if let Ok(reach) = reach
            && reach.gateways.iter().any(|gateway| gateway.applied)
        {
            let named = |gateway: durward_news::GatewayReach| (gateway.name, gateway.applied);
            return reach.gateways.into_iter().map(named).collect();
        }
        assert!(start.elapsed() < servers::PATIENCE, "nobody has it");
    }
}
