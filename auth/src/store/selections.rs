//! Many sessions at once: finding them in pages, and ending them in batches.

use durward_contract::UnixSeconds;

use super::sessions::{self, Session};
use super::statement::{BATCH, Row, places, query};
use super::{Connection, StoreError};
use crate::session_filter::Criteria;

/// Rows that one statement of [`end_everything`] goes through.
const STRIDE: i64 = 10_000;

/// A session with its user's name.
#[derive(Clone, Debug)]
pub(crate) struct Selected {
    pub session: Session,
    pub username: String,
    /// Its refresh tokens that would be accepted, were it not for the session.
    pub valid_tokens: i64,
}

/// Which sessions a page is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Among {
    /// Those that can still be refreshed.
    Live,
    /// Those with a refresh token that is valid by its own row, whatever the session's row says. Asked
    /// to prove that there is none.
    WithValidToken,
}

/// The next sessions after the id `after` that SQL's part of a filter means, in the order of ids.
pub(crate) async fn page(
    connection: &mut Connection,
    among: Among,
    criteria: &Criteria,
    after: &str,
    limit: u32,
    now: UnixSeconds,
) -> Result<Vec<Selected>, StoreError> {
    let Criteria {
        session,
        user_ids,
        roles,
        clients,
        issued_before,
        issued_after,
        created_before,
        created_after,
    } = criteria;
    let mut conditions = Conditions::new(4);
    let listed = [
        ("id", session.as_slice()),
        ("user_id", user_ids),
        ("client_id", clients),
    ];
    for (column, values) in listed {
        conditions.one_of(&format!("{column} IN"), values, "");
    }
    let with_role = "EXISTS (SELECT 1 FROM user_roles r WHERE r.user_id = sessions.user_id AND r.role IN";
    conditions.one_of(with_role, roles, ")");
    for (comparison, instant) in [
        ("last_used_at <", issued_before),
        ("last_used_at >=", issued_after),
        ("created_at <", created_before),
        ("created_at >=", created_after),
    ] {
        conditions.compare(comparison, *instant);
    }
    let among = match among {
        Among::Live => "NOT revoked AND expires_at > $2",
        Among::WithValidToken => {
            "EXISTS (SELECT 1 FROM refresh_tokens t WHERE t.session_id = sessions.id AND t.state = 'valid'
             AND t.expires_at > $2)"
        }
    };
    let statement = format!(
        "SELECT {}, (SELECT username FROM users u WHERE u.id = sessions.user_id) AS username,
         (SELECT COUNT(*) FROM refresh_tokens t WHERE t.session_id = sessions.id AND t.state = 'valid'
          AND t.expires_at > $2) AS valid_tokens
         FROM sessions WHERE id > $1 AND {among}{} ORDER BY id LIMIT $3",
        sessions::COLUMNS,
        conditions.text,
    );
    let mut statement = query(sqlx::AssertSqlSafe(statement))
        .bind(after)
        .bind(now.0)
        .bind(limit);
    for values in [session.as_slice(), user_ids, clients, roles] {
        statement = statement.bind_all(values);
    }
    for instant in [issued_before, issued_after, created_before, created_after]
        .into_iter()
        .flatten()
    {
        statement = statement.bind(instant.0);
    }
    statement
        .fetch_all(connection)
        .await?
        .iter()
        .map(selected)
        .collect()
}

/// The next sessions after the id `after` that were ended for this very reason, in the order of ids.
pub(crate) async fn ended_by(
    connection: &mut Connection,
    why: &str,
    after: &str,
    limit: u32,
) -> Result<Vec<Selected>, StoreError> {
    query(sqlx::AssertSqlSafe(format!(
        "SELECT {}, (SELECT username FROM users u WHERE u.id = sessions.user_id) AS username,
         CAST(0 AS BIGINT) AS valid_tokens
         FROM sessions WHERE revoked_why = $1 AND id > $2 ORDER BY id LIMIT $3",
        sessions::COLUMNS
    )))
    .bind(why)
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?
    .iter()
    .map(selected)
    .collect()
}

/// Ends these sessions and their refresh tokens; returns how many tokens there were. The log's entries
/// are the caller's.
pub(crate) async fn end(
    connection: &mut Connection,
    ids: &[String],
    why: &str,
    now: UnixSeconds,
) -> Result<u64, StoreError> {
    let mut tokens = 0;
    for batch in ids.chunks(BATCH) {
        let ended = query(sqlx::AssertSqlSafe(format!(
            "UPDATE sessions SET revoked = TRUE, blacklisted = TRUE, revoked_at = $1, revoked_why = $2
             WHERE NOT revoked AND id IN ({})",
            places(3, batch.len())
        )));
        let ended = ended.bind(now.0).bind(why).bind_all(batch);
        // They were read as live in this very transaction, and their users are locked.
        if ended.execute(connection).await? != batch.len() as u64 {
            return Err(StoreError::Corrupt("session state"));
        }
        let revoked = query(sqlx::AssertSqlSafe(format!(
            "UPDATE refresh_tokens SET state = 'revoked' WHERE state = 'valid' AND session_id IN ({})",
            places(1, batch.len())
        )));
        tokens += revoked.bind_all(batch).execute(connection).await?;
    }
    Ok(tokens)
}

/// Ends every session that is not ended; returns how many refresh tokens there were. No statement goes
/// through more rows than it has time for. To be called with all users locked.
pub(crate) async fn end_everything(
    connection: &mut Connection,
    why: &str,
    now: UnixSeconds,
) -> Result<u64, StoreError> {
    let mut after = String::new();
    loop {
        let last: Option<String> = query(
            "SELECT MAX(id) FROM (SELECT id FROM sessions WHERE id > $1 ORDER BY id LIMIT $2) AS stride",
        )
        .bind(&after)
        .bind(STRIDE)
        .scalar(connection)
        .await?;
        let Some(last) = last else { break };
        query(
            "UPDATE sessions SET revoked = TRUE, blacklisted = TRUE, revoked_at = $3, revoked_why = $4
             WHERE id > $1 AND id <= $2 AND NOT revoked",
        )
        .bind(after)
        .bind(&last)
        .bind(now.0)
        .bind(why)
        .execute(connection)
        .await?;
        after = last;
    }
    // A hash begins with any byte as often as with any other.
    let mut tokens = 0;
    for first in 0..=u8::MAX {
        // Hashes have 32 bytes, so all of them are below 33 times the highest.
        let end = first.checked_add(1).map_or(vec![u8::MAX; 33], |next| vec![next]);
        tokens += query(
            "UPDATE refresh_tokens SET state = 'revoked' WHERE state = 'valid' AND hash >= $1 AND hash < $2",
        )
        .bind([first].as_slice())
        .bind(end.as_slice())
        .execute(connection)
        .await?;
    }
    Ok(tokens)
}

/// The latest `exp` among all access tokens whose sessions are still known.
pub(crate) async fn latest_access_expiry(
    connection: &mut Connection,
) -> Result<Option<UnixSeconds>, StoreError> {
    let latest: Option<i64> = query("SELECT MAX(access_expires_at) FROM sessions")
        .scalar(connection)
        .await?;
    Ok(latest.map(UnixSeconds))
}

/// Id and latest `exp` of sessions whose newest token carries a later time than `now`: the clock was
/// set back since, or another process has one that is ahead.
pub(crate) async fn issued_later_than(
    connection: &mut Connection,
    now: UnixSeconds,
    limit: u32,
) -> Result<Vec<(String, UnixSeconds)>, StoreError> {
    query("SELECT id, access_expires_at FROM sessions WHERE last_used_at > $1 ORDER BY id LIMIT $2")
        .bind(now.0)
        .bind(limit)
        .fetch_all(connection)
        .await?
        .iter()
        .map(|row| Ok((row.at(0)?, UnixSeconds(row.at(1)?))))
        .collect()
}

fn selected(row: &Row) -> Result<Selected, StoreError> {
    Ok(Selected {
        session: sessions::session(row)?,
        username: row.get("username")?,
        valid_tokens: row.get("valid_tokens")?,
    })
}

/// Conditions that are joined by AND, with places for their values. Values are never part of the text.
struct Conditions {
    text: String,
    next: usize,
}

impl Conditions {
    fn new(first: usize) -> Self {
        Self {
            text: String::new(),
            next: first,
        }
    }

    fn one_of(&mut self, before: &str, values: &[String], after: &str) {
        if !values.is_empty() {
            let places = places(self.next, values.len());
            self.next += values.len();
            self.text.push_str(&format!(" AND {before} ({places}){after}"));
        }
    }

    fn compare(&mut self, comparison: &str, instant: Option<UnixSeconds>) {
        if instant.is_some() {
            self.text.push_str(&format!(" AND {comparison} ${}", self.next));
            self.next += 1;
        }
    }
}
