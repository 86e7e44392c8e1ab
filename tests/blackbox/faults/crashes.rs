//! An auth service that dies between its commit and its publication.

use std::net::TcpStream;

use super::stage::Stage;
use crate::harness::{Fault, eventually};

/// How often it dies in the short run.
const ROUNDS: usize = 3;

/// Bans that were acknowledged while Redis could not be reached, by an auth service that was killed
/// before it could: how many of them bite once it is back.
#[track_caller]
pub fn die_between_commit_and_publication(rounds: usize) -> usize {
    let mut stage = Stage::new();
    let mut bitten = 0;
    for round in 0..rounds {
        let account = stage.auth.account_here(&format!("user-{round}"), &[]);
        stage.gateway.ask(&account.get("/api/x")).expect(200);
        // Not held back: what was held would arrive after its sender's death.
        stage.publishing.set(Fault::Refuse);
        stage.auth.told(&["ban", &account.name]);
        stage.auth.kill();
        stage.publishing.set(Fault::None);
        assert_ne!(
            stage.reason_for(&account),
            "revoked",
            "it was published before the death"
        );
        stage.auth.start_again();
        eventually("the auth service is back", || {
            TcpStream::connect(stage.auth.auth).ok()
        });
        eventually("the ban is published after the restart", || {
            let answer = account.get("/api/x").send_if_answered(stage.gateway.edge)?;
            (answer.reason() == "revoked").then_some(())
        });
        eventually("who may pass passes", || {
            (stage.valid_status() == 200).then_some(())
        });
        bitten += 1;
    }
    bitten
}

#[test]
fn no_ban_is_lost_between_commit_and_publication() {
    assert_eq!(die_between_commit_and_publication(ROUNDS), ROUNDS);
}
