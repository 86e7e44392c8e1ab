//! Revoking many sessions at once, provably: what a dry run lists is what the real run of the same
//! moment hits, a digest says whether it is still the same, and the audit trail holds who, when, why,
//! what and how many.
//!
//! The real run selects and ends in one transaction. Before it decides, it locks the users of what is
//! meant and selects once more: a refresh that races it was before, and then its session is hit with its
//! new tokens; or it comes after, and then it is refused. A session that was opened, or has come to match
//! the filter, after the run had looked for users goes on: it is later than the run.

use std::collections::BTreeSet;
use std::sync::Arc;

use durward_contract::{Bar, MAX_ACCESS_TOKEN_TTL, RETENTION_SLACK, Target, UnixSeconds};
use serde_json::json;

use crate::accounts::checked_reason;
use crate::audit::{self, Action, Actor};
use crate::problem::{Problem, Reason};
use crate::random;
use crate::selection::{Adding, Meant, Selection, Totals, Walk, valid_tokens};
use crate::service::{Inner, detached};
use crate::store::selections::{self, Among, Selected};
use crate::store::{Connection, Write, users};

/// Most sessions that one run ends, but for "everyone". It bounds for how long other writes wait and
/// what is held in memory; whoever needs more narrows the filter and runs again.
pub const MAX_SESSIONS_A_RUN: usize = 50_000;
/// Largest page of a list.
pub(crate) const MAX_LISTED: u32 = 1000;
/// Hex digits of SHA-256.
const SELECTION_LENGTH: usize = 64;

/// What a dry run says.
#[derive(Debug)]
pub(crate) struct Preview {
    pub totals: Totals,
    pub listed: Vec<Selected>,
    /// What is given as `after` for the rest.
    pub next: Option<String>,
    /// Valid refresh tokens that are meant, counted by their own rows.
    pub valid_refresh_tokens: u64,
}

/// What a run did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub run: String,
    pub at: UnixSeconds,
    pub totals: Totals,
    /// Valid refresh tokens that are meant, counted by their own rows after the commit; nothing where
    /// the database did not answer then.
    pub valid_refresh_tokens: Option<u64>,
}

impl Inner {
    /// What a run would hit now, with the first `limit` of it.
    pub async fn preview_revocation(&self, selection: &Selection, limit: u32) -> Result<Preview, Problem> {
        let limit = limit.clamp(1, MAX_LISTED) as usize;
        let mut read = self.store.snapshot().await?;
        let now = self.clock.now();
        let meant = selection.resolve(&mut read).await?;
        let (mut adding, mut listed, mut more) = (Adding::new(), Vec::new(), false);
        let mut walk = Walk::new(&meant, Among::Live, now, String::new());
        while let Some(page) = walk.next(&mut read).await? {
            for found in page {
                adding.add(&found);
                if listed.len() < limit {
                    listed.push(found);
                } else {
                    more = true;
                }
            }
        }
        let next = listed
            .last()
            .filter(|_| more)
            .map(|last: &Selected| last.session.id.clone());
        Ok(Preview {
            totals: adding.totals(),
            listed,
            next,
            valid_refresh_tokens: valid_tokens(&mut read, &meant, now).await?,
        })
    }

    /// The next sessions of a preview after the id `after`, as of now.
    pub async fn preview_rest(
        &self,
        selection: &Selection,
        after: String,
        limit: u32,
    ) -> Result<(Vec<Selected>, Option<String>), Problem> {
        let limit = limit.clamp(1, MAX_LISTED) as usize;
        let mut read = self.store.snapshot().await?;
        let meant = selection.resolve(&mut read).await?;
        let mut listed = Vec::new();
        let mut walk = Walk::new(
            &meant,
            Among::Live,
            self.clock.now(),
            without_nul(&after).to_owned(),
        );
        while let Some(page) = walk.next(&mut read).await? {
            listed.extend(page);
            if listed.len() > limit {
                break;
            }
        }
        let more = listed.len() > limit;
        listed.truncate(limit);
        let next = listed.last().filter(|_| more).map(|last| last.session.id.clone());
        Ok((listed, next))
    }

    /// The sessions that a run ended, after the id `after`.
    pub async fn revoked_by(
        &self,
        run: &str,
        after: &str,
        limit: u32,
    ) -> Result<(Vec<Selected>, Option<String>), Problem> {
        let limit = limit.clamp(1, MAX_LISTED);
        let mut read = self.store.read().await?;
        let listed = selections::ended_by(&mut read, &why(run), without_nul(after), limit).await?;
        let full = listed.len() >= limit as usize;
        let next = listed.last().filter(|_| full).map(|last| last.session.id.clone());
        Ok((listed, next))
    }

    /// Ends the sessions that are meant, with their refresh tokens, and refuses their access tokens.
    /// Where `expect` is given and no longer what is meant, it does nothing.
    pub async fn revoke_sessions(
        self: &Arc<Self>,
        actor: Actor,
        selection: Selection,
        expect: Option<String>,
        reason: Option<String>,
    ) -> Result<Outcome, Problem> {
        let reason = checked_reason(reason)?;
        if expect.as_ref().is_some_and(|digest| !is_digest(digest)) {
            return Err(Problem::with_detail(
                Reason::InvalidRevocation,
                "What is expected is the selection that a dry run names: 64 hexadecimal digits.",
            ));
        }
        let service = Arc::clone(self);
        detached(async move {
            let mut write = service.store.write().await?;
            let meant = selection.resolve(write.connection()).await?;
            let locked = service.lock(&mut write, &actor, &selection, &meant).await?;
            // Read once nobody else issues anything: what was issued is not from later.
            let now = service.clock.now();
            let (totals, sessions) = gather(&mut write, &locked, &meant, now).await?;
            if expect.is_some_and(|expected| expected != totals.digest) {
                return Err(Problem::with_detail(
                    Reason::SelectionChanged,
                    format!(
                        "The selection has changed: it is {} now, with {} sessions; nothing was revoked.",
                        totals.digest, totals.sessions
                    ),
                ));
            }
            let run = random::run_id();
            let ended = match &selection {
                Selection::Everyone => service.end_everyone(&mut write, &run, now).await?,
                Selection::Filter(_) | Selection::Session(_) => {
                    service.end_these(&mut write, sessions, &run, now).await?
                }
            };
            let totals = Totals {
                refresh_tokens: ended,
                ..totals
            };
            let mut detail = selection.described();
            detail["reason"] = json!(reason);
            detail["sessions"] = json!(totals.sessions);
            detail["users"] = json!(totals.users);
            detail["refresh_tokens"] = json!(totals.refresh_tokens);
            detail["selection"] = json!(totals.digest);
            audit::record_revocation(&mut write, now, &actor, selection.action(), &run, &detail).await?;
            service.log.commit(&service.store, write).await?;
            Ok(Outcome {
                run,
                at: now,
                totals,
                valid_refresh_tokens: service.valid_tokens_left(&meant).await.ok(),
            })
        })
        .await
    }

    /// Locks whoever has sessions that are meant, and the actor, who is judged again.
    async fn lock(
        &self,
        write: &mut Write,
        actor: &Actor,
        selection: &Selection,
        meant: &Meant,
    ) -> Result<Locked, Problem> {
        let connection = write.connection();
        if matches!(selection, Selection::Everyone) {
            users::lock_all(connection).await?;
            self.still_stands(connection, actor).await?;
            return Ok(Locked::All);
        }
        let (mut owners, mut found) = (BTreeSet::new(), 0);
        let mut walk = Walk::new(meant, Among::Live, self.clock.now(), String::new());
        while let Some(page) = walk.next(connection).await? {
            found += page.len();
            if found > MAX_SESSIONS_A_RUN {
                return Err(too_many());
            }
            owners.extend(page.into_iter().map(|found| found.session.user_id));
        }
        self.judge_actor_among(write, actor, owners.clone()).await?;
        Ok(Locked::These(owners))
    }

    async fn valid_tokens_left(&self, meant: &Meant) -> Result<u64, Problem> {
        let mut read = self.store.snapshot().await?;
        valid_tokens(&mut read, meant, self.clock.now()).await
    }

    async fn end_these(
        &self,
        write: &mut Write,
        mut sessions: Vec<(String, UnixSeconds)>,
        run: &str,
        now: UnixSeconds,
    ) -> Result<u64, Problem> {
        let ids: Vec<String> = sessions.iter().map(|(id, _)| id.clone()).collect();
        let tokens = selections::end(write.connection(), &ids, &why(run), now).await?;
        for (_, until) in &mut sessions {
            *until = (*until).max(now).plus(RETENTION_SLACK);
        }
        self.log.append_sessions(write, &sessions, now);
        Ok(tokens)
    }

    /// One entry for all tokens up to now, and one for each session whose tokens say that they are from
    /// later: the clock was set back, or another process has one that is ahead.
    async fn end_everyone(&self, write: &mut Write, run: &str, now: UnixSeconds) -> Result<u64, Problem> {
        let forget_at = self.all_tokens_expired(write.connection(), now).await?;
        let limit = u32::try_from(MAX_SESSIONS_A_RUN + 1).unwrap_or(u32::MAX);
        let mut later = selections::issued_later_than(write.connection(), now, limit).await?;
        if later.len() > MAX_SESSIONS_A_RUN {
            return Err(Problem::with_detail(
                Reason::SelectionTooLarge,
                "Too many sessions have tokens from later than now: has the clock been set back?",
            ));
        }
        for (_, until) in &mut later {
            *until = (*until).max(now).plus(RETENTION_SLACK);
        }
        self.log.append_sessions(write, &later, now);
        let bar = Bar::IssuedAtOrBefore(now);
        self.log.append(write, Target::Everyone, bar, forget_at, now);
        Ok(selections::end_everything(write.connection(), &why(run), now).await?)
    }

    /// Refuses one access token. Its session goes on: whoever holds the refresh token gets another.
    pub async fn revoke_token(
        self: &Arc<Self>,
        actor: Actor,
        id: String,
        reason: Option<String>,
    ) -> Result<UnixSeconds, Problem> {
        let reason = checked_reason(reason)?;
        // A token in the place of its id would be acknowledged and go on.
        if !random::is_token_id(&id) {
            return Err(Problem::with_detail(
                Reason::InvalidRevocation,
                "A token is named by its jti: 22 characters.",
            ));
        }
        let service = Arc::clone(self);
        detached(async move {
            let mut write = service.store.write().await?;
            service.judge_actor(&mut write, &actor).await?;
            let now = service.clock.now();
            let forget_at = service.all_tokens_expired(write.connection(), now).await?;
            let target = Target::Token(id.clone());
            service
                .log
                .append(&mut write, target, Bar::Always, forget_at, now);
            let detail = json!({ "token": id, "reason": reason });
            audit::record_revocation(&mut write, now, &actor, Action::TokenRevoked, &id, &detail).await?;
            service.log.commit(&service.store, write).await?;
            Ok(forget_at)
        })
        .await
    }

    /// When no access token that has been issued so far can be valid any more, slack included.
    pub async fn all_tokens_expired(
        &self,
        connection: &mut Connection,
        now: UnixSeconds,
    ) -> Result<UnixSeconds, Problem> {
        // The clock may have been set back, or the lifetime shortened.
        let latest = selections::latest_access_expiry(connection).await?.unwrap_or(now);
        Ok(latest.max(now.plus(MAX_ACCESS_TOKEN_TTL)).plus(RETENTION_SLACK))
    }
}

/// Whose sessions nobody else changes until the transaction ends.
enum Locked {
    All,
    These(BTreeSet<String>),
}

/// What a session's row says about why it ended.
fn why(run: &str) -> String {
    format!("revocation {run}")
}

/// No id has a NUL in it, and PostgreSQL no text: what follows one changes nothing.
fn without_nul(after: &str) -> &str {
    after.split('\0').next().unwrap_or_default()
}

fn is_digest(text: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == SELECTION_LENGTH && text.bytes().all(hex)
}

fn too_many() -> Problem {
    Problem::with_detail(
        Reason::SelectionTooLarge,
        format!("More than {MAX_SESSIONS_A_RUN} sessions are meant: narrow the filter and run again."),
    )
}

/// Adds up what is meant, and, but for "everyone", gathers ids with the latest `exp`.
async fn gather(
    write: &mut Write,
    locked: &Locked,
    meant: &Meant,
    now: UnixSeconds,
) -> Result<(Totals, Vec<(String, UnixSeconds)>), Problem> {
    let (mut adding, mut sessions) = (Adding::new(), Vec::new());
    let mut walk = Walk::new(meant, Among::Live, now, String::new());
    while let Some(mut page) = walk.next(write.connection()).await? {
        if let Locked::These(owners) = locked {
            page.retain(|found| owners.contains(&found.session.user_id));
        }
        page.iter().for_each(|found| adding.add(found));
        if matches!(locked, Locked::All) {
            continue;
        }
        sessions.extend(
            page.into_iter()
                .map(|found| (found.session.id, found.session.access_expires_at)),
        );
        if sessions.len() > MAX_SESSIONS_A_RUN {
            return Err(too_many());
        }
    }
    Ok((adding.totals(), sessions))
}
