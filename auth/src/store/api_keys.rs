//! API keys: their rows, which are their grants in the log.

use durward_contract::{Grant, News, Sequence, UnixSeconds};
use durward_policy::KeyDigest;

use super::revocations::{Pending, number};
use super::statement::{Row, query};
use super::{Connection, StoreError, Write};

/// A key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredKey {
    pub id: String,
    pub issuer: String,
    /// The name of a client certificate, where that is granted and no key.
    pub certificate: Option<String>,
    pub service: String,
    pub scopes: Vec<String>,
    pub created_at: UnixSeconds,
    pub created_by: String,
    pub expires_at: Option<UnixSeconds>,
    pub revoked_at: Option<UnixSeconds>,
}

/// A key that is to be added.
#[derive(Clone, Debug)]
pub(crate) struct NewKey {
    pub stored: StoredKey,
    pub digest: KeyDigest,
}

impl NewKey {
    /// Its grant, at its place in the log.
    pub fn grant(self, sequence: Sequence) -> Grant {
        let Self { stored, digest } = self;
        Grant {
            sequence,
            issuer: stored.issuer,
            key: stored.id,
            digest: digest.0,
            service: stored.service,
            scopes: stored.scopes,
            expires_at: stored.expires_at,
        }
    }
}

/// Adds a key, and its grant to the news of the transaction. Its row is written with its number.
pub(crate) fn insert(write: &mut Write, stored: StoredKey, digest: KeyDigest) {
    write.pending.push(Pending::Grant(NewKey { stored, digest }));
}

/// Writes a key down.
pub(super) async fn write(
    connection: &mut Connection,
    sequence: i64,
    key: &NewKey,
) -> Result<(), StoreError> {
    let NewKey { stored, digest } = key;
    query(
        "INSERT INTO api_keys (id, sequence, issuer, digest, certificate, service, scopes, created_at, created_by,
         expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(&stored.id)
    .bind(sequence)
    .bind(&stored.issuer)
    .bind(&digest.0[..])
    .bind(stored.certificate.as_deref())
    .bind(&stored.service)
    .bind(stored.scopes.join(" "))
    .bind(stored.created_at.0)
    .bind(&stored.created_by)
    .bind(stored.expires_at.map(|at| at.0))
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether a grant that was not taken back has this digest.
pub(crate) async fn has_digest(connection: &mut Connection, digest: KeyDigest) -> Result<bool, StoreError> {
    let row = query("SELECT id FROM api_keys WHERE digest = $1 AND revoked_at IS NULL")
        .bind(&digest.0[..])
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// Marks a key as revoked; who was first stays written down.
pub(crate) async fn revoke(
    connection: &mut Connection,
    id: &str,
    by: &str,
    now: UnixSeconds,
) -> Result<(), StoreError> {
    query("UPDATE api_keys SET revoked_at = $2, revoked_by = $3 WHERE id = $1 AND revoked_at IS NULL")
        .bind(id)
        .bind(now.0)
        .bind(by)
        .execute(connection)
        .await?;
    Ok(())
}

pub(crate) async fn by_id(connection: &mut Connection, id: &str) -> Result<Option<StoredKey>, StoreError> {
    let row = query(
        "SELECT id, issuer, certificate, service, scopes, created_at, created_by, expires_at, revoked_at
         FROM api_keys WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(stored).transpose()
}

/// The next keys after `id`, in the order of their ids, ended ones too.
pub(crate) async fn page(
    connection: &mut Connection,
    after: &str,
    limit: u32,
) -> Result<Vec<StoredKey>, StoreError> {
    query(
        "SELECT id, issuer, certificate, service, scopes, created_at, created_by, expires_at, revoked_at
         FROM api_keys WHERE id > $1 ORDER BY id LIMIT $2",
    )
    .bind(after)
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?
    .iter()
    .map(stored)
    .collect()
}

/// How many keys are accepted at `now`.
pub(crate) async fn count_live(connection: &mut Connection, now: UnixSeconds) -> Result<i64, StoreError> {
    let count = query(
        "SELECT COUNT(*) FROM api_keys WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1)",
    );
    count.bind(now.0).scalar(connection).await
}

/// The next grants after `sequence` that were not taken back, in order, at most `limit`; where `now`
/// is given, without those that have expired by then.
pub(super) async fn grants_after(
    connection: &mut Connection,
    sequence: Sequence,
    limit: u32,
    now: Option<UnixSeconds>,
) -> Result<Vec<News>, StoreError> {
    query(
        "SELECT id, sequence, issuer, digest, service, scopes, expires_at FROM api_keys
         WHERE sequence > $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $3)
         ORDER BY sequence LIMIT $2",
    )
    .bind(i64::try_from(sequence.0).unwrap_or(i64::MAX))
    .bind(i64::from(limit))
    .bind(now.map_or(i64::MIN, |now| now.0))
    .fetch_all(connection)
    .await?
    .iter()
    .map(grant)
    .collect()
}

fn stored(row: &Row) -> Result<StoredKey, StoreError> {
    Ok(StoredKey {
        id: row.get("id")?,
        issuer: row.get("issuer")?,
        certificate: row.get("certificate")?,
        service: row.get("service")?,
        scopes: scopes(row)?,
        created_at: UnixSeconds(row.get("created_at")?),
        created_by: row.get("created_by")?,
        expires_at: row.get::<Option<i64>>("expires_at")?.map(UnixSeconds),
        revoked_at: row.get::<Option<i64>>("revoked_at")?.map(UnixSeconds),
    })
}

fn grant(row: &Row) -> Result<News, StoreError> {
    let digest: Vec<u8> = row.get("digest")?;
    Ok(News::Grant(Grant {
        sequence: number(row.get("sequence")?)?,
        issuer: row.get("issuer")?,
        key: row.get("id")?,
        digest: digest
            .try_into()
            .map_err(|_| StoreError::Corrupt("digest of an API key"))?,
        service: row.get("service")?,
        scopes: scopes(row)?,
        expires_at: row.get::<Option<i64>>("expires_at")?.map(UnixSeconds),
    }))
}

fn scopes(row: &Row) -> Result<Vec<String>, StoreError> {
    let scopes: String = row.get("scopes")?;
    Ok(scopes.split_ascii_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use durward_contract::{Bar, Target};

    use super::*;
    use crate::database_config::DatabaseConfig;
    use crate::random;
    use crate::store::Store;
    use crate::store::revocations::{self, PendingEntry};

    const NOW: UnixSeconds = UnixSeconds(1000);

    fn key(id: &str, expires_at: Option<i64>) -> StoredKey {
        StoredKey {
            id: id.into(),
            issuer: "i".into(),
            certificate: None,
            service: "a".into(),
            scopes: vec!["r".into(), "w".into()],
            created_at: NOW,
            created_by: "u_1".into(),
            expires_at: expires_at.map(UnixSeconds),
            revoked_at: None,
        }
    }

    /// Grants 1, 3, 4 and 6, of which 3 was taken back by 5 and 4 has expired; revocations 2 and 5.
    async fn log(store: &Store) {
        let mut write = store.write().await.unwrap();
        let add = |write: &mut Write, id: u8, expires_at: Option<i64>| {
            insert(write, key(&format!("k{id}"), expires_at), KeyDigest([id; 32]));
        };
        let bar = |write: &mut Write, target: Target| {
            let entry = PendingEntry {
                issuer: "i".into(),
                target,
                bar: Bar::Always,
                forget_at: None,
                created_at: NOW,
            };
            revocations::append(write, entry);
        };
        add(&mut write, 1, None);
        bar(&mut write, Target::User("u_1".into()));
        add(&mut write, 3, None);
        add(&mut write, 4, Some(NOW.0));
        assert_eq!(commit(write).await, [1, 2, 3, 4]);
        let mut write = store.write().await.unwrap();
        bar(&mut write, Target::ApiKey("k3".into()));
        revoke(write.connection(), "k3", "u_1", NOW).await.unwrap();
        add(&mut write, 6, Some(NOW.0 + 1));
        assert_eq!(commit(write).await, [5, 6]);
    }

    /// Commits, and returns the numbers that were taken.
    async fn commit(write: Write) -> Vec<u64> {
        let news = write.take_numbers().await.unwrap().commit().await.unwrap();
        news.iter().map(|news| news.sequence().0).collect()
    }

    #[tokio::test]
    async fn grants_and_revocations_are_one_log_in_pages_of_any_size() {
        let folder = std::env::temp_dir().join(format!("durward-keys-{}", random::token_id()));
        let store = Store::open(&DatabaseConfig::Sqlite(folder.join("auth.db")))
            .await
            .unwrap();
        log(&store).await;
        let mut read = store.log_snapshot().await.unwrap();
        for limit in 1..8 {
            let (mut all, mut standing) = (Vec::new(), Vec::new());
            let mut last = Sequence(0);
            loop {
                let page = revocations::after(&mut read, last, limit).await.unwrap();
                assert!(page.len() <= limit as usize);
                let Some(end) = page.last() else { break };
                last = end.sequence();
                all.extend(page.iter().map(|news| news.sequence().0));
            }
            last = Sequence(0);
            loop {
                let page = revocations::standing(&mut read, last, limit, NOW, NOW)
                    .await
                    .unwrap();
                assert!(page.len() <= limit as usize);
                let Some(end) = page.last() else { break };
                last = end.sequence();
                standing.extend(page.iter().map(|news| news.sequence().0));
            }
            assert_eq!(all, [1, 2, 4, 5, 6], "pages of {limit}");
            assert_eq!(standing, [1, 2, 5, 6], "pages of {limit}");
        }
        assert_eq!(count_live(&mut read, NOW).await.unwrap(), 2);
        let News::Grant(grant) = &revocations::after(&mut read, Sequence(0), 1).await.unwrap()[0] else {
            panic!("a grant is first");
        };
        assert_eq!(
            (grant.digest, grant.scopes.join(" ")),
            ([1; 32], "r w".to_owned())
        );
        drop(read);
        store.close().await;
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[tokio::test]
    async fn an_id_is_given_once_and_a_digest_again_once_it_was_taken_back() {
        let folder = std::env::temp_dir().join(format!("durward-keys-{}", random::token_id()));
        let store = Store::open(&DatabaseConfig::Sqlite(folder.join("auth.db")))
            .await
            .unwrap();
        let mut write = store.write().await.unwrap();
        insert(&mut write, key("k1", None), KeyDigest([1; 32]));
        commit(write).await;
        for (id, digest) in [("k1", 2), ("k2", 1)] {
            let mut write = store.write().await.unwrap();
            insert(&mut write, key(id, None), KeyDigest([digest; 32]));
            assert!(write.take_numbers().await.is_err(), "{id}");
        }
        let mut write = store.write().await.unwrap();
        assert!(has_digest(write.connection(), KeyDigest([1; 32])).await.unwrap());
        revoke(write.connection(), "k1", "u_1", NOW).await.unwrap();
        assert!(!has_digest(write.connection(), KeyDigest([1; 32])).await.unwrap());
        insert(&mut write, key("k2", None), KeyDigest([1; 32]));
        commit(write).await;
        let mut write = store.write().await.unwrap();
        insert(&mut write, key("k1", None), KeyDigest([3; 32]));
        assert!(write.take_numbers().await.is_err(), "an id is never given twice");
        store.close().await;
        std::fs::remove_dir_all(folder).unwrap();
    }
}
