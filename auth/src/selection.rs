//! Which sessions a run means, how many they are, and the digest that names them.

use std::collections::HashSet;

use aws_lc_rs::digest::{Context, SHA256};
use durward_contract::UnixSeconds;
use serde_json::{Value, json};

use crate::accounts::{UserKey, checked_roles};
use crate::audit::Action;
use crate::problem::{Problem, Reason};
use crate::random;
use crate::session_filter::{ClientFilter, Criteria, FilterForm};
use crate::store::selections::{self, Among, Selected};
use crate::store::{Connection, sessions};

/// Rows that are read at a time.
const PAGE: u32 = 1000;

/// Which sessions are meant.
#[derive(Clone, Debug)]
pub(crate) enum Selection {
    Filter(FilterForm),
    Session(String),
    Everyone,
}

/// How many are meant, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Totals {
    pub sessions: u64,
    pub users: u64,
    pub refresh_tokens: u64,
    /// SHA-256, in hex, of the ids in their order, each followed by a line feed.
    pub digest: String,
}

impl Selection {
    /// As it is written in answers and in the audit trail.
    pub fn described(&self) -> Value {
        match self {
            Self::Filter(form) => json!({ "filter": form }),
            Self::Session(id) => json!({ "session": id }),
            Self::Everyone => json!({ "everyone": true }),
        }
    }

    /// The word for a run in the audit trail.
    pub const fn action(&self) -> Action {
        match self {
            Self::Filter(_) | Self::Session(_) => Action::SessionsRevoked,
            Self::Everyone => Action::EveryoneRevoked,
        }
    }

    /// Reads names. A name that nobody has is an error: it would match nothing and look like a proof.
    pub async fn resolve(&self, connection: &mut Connection) -> Result<Meant, Problem> {
        match self {
            Self::Everyone => Ok(Meant::default()),
            Self::Session(id) => {
                let session = match random::could_be_id(id) {
                    true => sessions::by_id(connection, id).await?,
                    false => None,
                };
                let criteria = Criteria {
                    session: Some(session.ok_or(Reason::NoSuchSession)?.id),
                    ..Criteria::default()
                };
                Ok(Meant {
                    criteria,
                    ..Meant::default()
                })
            }
            Self::Filter(form) => {
                if form.is_empty() {
                    return Err(Problem::with_detail(
                        Reason::InvalidRevocation,
                        "The filter is empty: to revoke everyone, say everyone.",
                    ));
                }
                form.check()?;
                checked_roles(form.role.iter().cloned(), form.role.len())?;
                let clients = form.client_filter()?;
                let mut ids = Vec::new();
                for name in &form.user {
                    ids.push(UserKey::Name(name.clone()).find(connection).await?.id);
                }
                Ok(Meant {
                    criteria: form.criteria(ids),
                    clients,
                })
            }
        }
    }
}

/// A selection whose names were read.
#[derive(Debug, Default)]
pub(crate) struct Meant {
    criteria: Criteria,
    clients: ClientFilter,
}

/// Goes through the sessions that are meant, in the order of their ids.
pub(crate) struct Walk<'m> {
    meant: &'m Meant,
    among: Among,
    now: UnixSeconds,
    after: String,
    ended: bool,
}

impl<'m> Walk<'m> {
    /// Begins after the id `after`.
    pub fn new(meant: &'m Meant, among: Among, now: UnixSeconds, after: String) -> Self {
        Self {
            meant,
            among,
            now,
            after,
            ended: false,
        }
    }

    /// The next ones; a page may be empty, only nothing is the end.
    pub async fn next(&mut self, connection: &mut Connection) -> Result<Option<Vec<Selected>>, Problem> {
        if self.ended {
            return Ok(None);
        }
        let Meant { criteria, clients } = self.meant;
        let mut page =
            selections::page(connection, self.among, criteria, &self.after, PAGE, self.now).await?;
        self.ended = page.len() < PAGE as usize;
        if let Some(last) = page.last() {
            self.after.clone_from(&last.session.id);
        }
        page.retain(|found| clients.matches(&found.session.client_address, &found.session.user_agent));
        Ok(Some(page))
    }
}

/// Adds up a selection.
pub(crate) struct Adding {
    sessions: u64,
    users: HashSet<[u8; 8]>,
    refresh_tokens: u64,
    digest: Context,
}

impl Adding {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            sessions: 0,
            users: HashSet::new(),
            refresh_tokens: 0,
            digest: Context::new(&SHA256),
        }
    }

    /// Adds a session; they come in the order of their ids.
    pub fn add(&mut self, found: &Selected) {
        self.sessions += 1;
        self.refresh_tokens += u64::try_from(found.valid_tokens).unwrap_or_default();
        self.digest.update(found.session.id.as_bytes());
        self.digest.update(b"\n");
        // Eight bytes of a digest tell users apart as well, and "everyone" may be many.
        let user = aws_lc_rs::digest::digest(&SHA256, found.session.user_id.as_bytes());
        let mut short = [0; 8];
        short.copy_from_slice(&user.as_ref()[..8]);
        self.users.insert(short);
    }

    /// The sums.
    pub fn totals(self) -> Totals {
        let digest = self.digest.finish();
        Totals {
            sessions: self.sessions,
            users: self.users.len() as u64,
            refresh_tokens: self.refresh_tokens,
            digest: digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// Counts valid refresh tokens by their own rows, whatever the rows of their sessions say.
pub(crate) async fn valid_tokens(
    connection: &mut Connection,
    meant: &Meant,
    now: UnixSeconds,
) -> Result<u64, Problem> {
    let mut count = 0;
    let mut walk = Walk::new(meant, Among::WithValidToken, now, String::new());
    while let Some(page) = walk.next(connection).await? {
        count += page
            .iter()
            .map(|found| u64::try_from(found.valid_tokens).unwrap_or_default())
            .sum::<u64>();
    }
    Ok(count)
}
