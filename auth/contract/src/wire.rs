//! News as text: what Redis keeps and carries. A JSON array an entry, its first member the kind.
//!
//! Strict in both directions: an entry that an old reader does not understand must not be taken for
//! another one, so a member more or less, or of another type, is an error.

use serde::{Deserialize, Serialize};

use crate::{Bar, Grant, News, RevocationEntry, Sequence, Target, UnixSeconds};

/// The longest entry that is read, in bytes.
pub const MAX_NEWS_BYTES: usize = 64 << 10;

/// Why bytes are no news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireError(&'static str);

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for WireError {}

/// Marks a revocation.
const REVOCATION: &str = "r";
/// Marks a grant.
const GRANT: &str = "g";

/// kind, sequence, issuer, target's kind and id, bar's kind and value, `forget_at`.
type RevocationRow<'a> = (
    &'a str,
    u64,
    Text<'a>,
    &'a str,
    Text<'a>,
    &'a str,
    Option<i64>,
    Option<i64>,
);
/// kind, sequence, issuer, key, digest in hex, service, scopes, `expires_at`.
type GrantRow<'a> = (
    &'a str,
    u64,
    Text<'a>,
    Text<'a>,
    &'a str,
    Text<'a>,
    Vec<Text<'a>>,
    Option<i64>,
);

/// Text that is borrowed where it has no escapes.
#[derive(Serialize, Deserialize)]
struct Text<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.into())
    }
}

/// The text of an entry.
pub fn encode(news: &News) -> String {
    let text = match news {
        News::Revocation(entry) => serde_json::to_string(&revocation_row(entry)),
        News::Grant(grant) => serde_json::to_string(&grant_row(grant, &hex(&grant.digest))),
    };
    // Arrays of text and numbers: nothing in them can fail to be written.
    text.unwrap_or_default()
}

/// Reads an entry.
pub fn decode(bytes: &[u8]) -> Result<News, WireError> {
    if bytes.len() > MAX_NEWS_BYTES {
        return Err(WireError("the entry is too long"));
    }
    if bytes.starts_with(b"[\"r\",") {
        let row = serde_json::from_slice(bytes).map_err(|_| WireError("not a revocation"))?;
        revocation(row).map(News::Revocation)
    } else if bytes.starts_with(b"[\"g\",") {
        let row = serde_json::from_slice(bytes).map_err(|_| WireError("not a grant"))?;
        grant(row).map(News::Grant)
    } else {
        Err(WireError("an unknown kind of entry"))
    }
}

/// What a newer entry takes the place of: entries of one slot say the same with other thresholds.
/// No two different things share a slot, whatever their ids contain.
pub fn slot(news: &News) -> String {
    match news {
        News::Revocation(entry) => {
            let (kind, id) = target_words(&entry.target);
            let (bar, _) = bar_words(entry.bar);
            format!("r:{kind}:{bar}:{}:{}:{id}", entry.issuer.len(), entry.issuer)
        }
        News::Grant(grant) => format!("g:{}:{}:{}", grant.issuer.len(), grant.issuer, grant.key),
    }
}

/// Whether an entry takes back the grant of this slot, and which.
pub fn ended_grant(news: &News) -> Option<String> {
    match news {
        News::Revocation(entry) => match &entry.target {
            Target::ApiKey(key) => Some(format!("g:{}:{}:{key}", entry.issuer.len(), entry.issuer)),
            _ => None,
        },
        News::Grant(_) => None,
    }
}

fn revocation_row(entry: &RevocationEntry) -> RevocationRow<'_> {
    let (kind, id) = target_words(&entry.target);
    let (bar, value) = bar_words(entry.bar);
    (
        REVOCATION,
        entry.sequence.0,
        entry.issuer.as_str().into(),
        kind,
        id.into(),
        bar,
        value,
        entry.forget_at.map(|at| at.0),
    )
}

fn grant_row<'a>(grant: &'a Grant, digest: &'a str) -> GrantRow<'a> {
    (
        GRANT,
        grant.sequence.0,
        grant.issuer.as_str().into(),
        grant.key.as_str().into(),
        digest,
        grant.service.as_str().into(),
        grant.scopes.iter().map(|scope| scope.as_str().into()).collect(),
        grant.expires_at.map(|at| at.0),
    )
}

fn revocation(row: RevocationRow<'_>) -> Result<RevocationEntry, WireError> {
    let (_, sequence, issuer, kind, Text(id), bar, value, forget_at) = row;
    Ok(RevocationEntry {
        sequence: Sequence(sequence),
        issuer: issuer.0.into_owned(),
        target: target(kind, id.into_owned())?,
        bar: match (bar, value) {
            ("always", None) => Bar::Always,
            ("epoch_below", Some(epoch)) => {
                Bar::EpochBelow(u32::try_from(epoch).map_err(|_| WireError("an epoch out of range"))?)
            }
            ("issued_at_or_before", Some(at)) => Bar::IssuedAtOrBefore(UnixSeconds(at)),
            _ => return Err(WireError("an unknown bar")),
        },
        forget_at: forget_at.map(UnixSeconds),
    })
}

fn grant(row: GrantRow<'_>) -> Result<Grant, WireError> {
    let (_, sequence, issuer, key, digest, service, scopes, expires_at) = row;
    Ok(Grant {
        sequence: Sequence(sequence),
        issuer: issuer.0.into_owned(),
        key: key.0.into_owned(),
        digest: unhex(digest).ok_or(WireError("a digest that is none"))?,
        service: service.0.into_owned(),
        scopes: scopes.into_iter().map(|scope| scope.0.into_owned()).collect(),
        expires_at: expires_at.map(UnixSeconds),
    })
}

/// The words for a target: its kind and its id.
pub fn target_words(target: &Target) -> (&'static str, &str) {
    match target {
        Target::Token(id) => ("token", id),
        Target::Session(id) => ("session", id),
        Target::User(id) => ("user", id),
        Target::Client(id) => ("client", id),
        Target::SigningKey(id) => ("signing_key", id),
        Target::ApiKey(id) => ("api_key", id),
        Target::Everyone => ("everyone", ""),
    }
}

/// The target that these words are for.
pub fn target(kind: &str, id: String) -> Result<Target, WireError> {
    Ok(match kind {
        "token" => Target::Token(id),
        "session" => Target::Session(id),
        "user" => Target::User(id),
        "client" => Target::Client(id),
        "signing_key" => Target::SigningKey(id),
        "api_key" => Target::ApiKey(id),
        "everyone" if id.is_empty() => Target::Everyone,
        _ => return Err(WireError("an unknown target")),
    })
}

/// The words for a bar: its kind and its value.
pub fn bar_words(bar: Bar) -> (&'static str, Option<i64>) {
    match bar {
        Bar::Always => ("always", None),
        Bar::EpochBelow(epoch) => ("epoch_below", Some(i64::from(epoch))),
        Bar::IssuedAtOrBefore(instant) => ("issued_at_or_before", Some(instant.0)),
    }
}

fn hex(digest: &[u8; 32]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    digest
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut digest = [0; 32];
    let pairs = text.as_bytes().chunks_exact(2);
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(pairs) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(target: Target, bar: Bar, forget_at: Option<i64>) -> News {
        News::Revocation(RevocationEntry {
            sequence: Sequence(7),
            issuer: "https://a.example".into(),
            target,
            bar,
            forget_at: forget_at.map(UnixSeconds),
        })
    }

    fn grant(key: &str) -> News {
        News::Grant(Grant {
            sequence: Sequence(u64::MAX),
            issuer: "i\n\"".into(),
            key: key.into(),
            digest: std::array::from_fn(|index| (index * 9) as u8),
            service: "billing".into(),
            scopes: vec!["read".into(), "wr\"ite".into()],
            expires_at: None,
        })
    }

    fn all() -> Vec<News> {
        let id = || "x:1 \u{e9}\"\\".to_owned();
        vec![
            entry(Target::Token(id()), Bar::Always, Some(i64::MAX)),
            entry(Target::Session(id()), Bar::EpochBelow(0), None),
            entry(Target::User(id()), Bar::EpochBelow(u32::MAX), Some(-1)),
            entry(
                Target::Client(id()),
                Bar::IssuedAtOrBefore(UnixSeconds(i64::MIN)),
                None,
            ),
            entry(Target::SigningKey(id()), Bar::Always, None),
            entry(Target::ApiKey(id()), Bar::Always, None),
            entry(Target::Everyone, Bar::Always, None),
            grant("k1"),
        ]
    }

    #[test]
    fn what_is_written_is_read_again() {
        for news in all() {
            let text = encode(&news);
            assert_eq!(decode(text.as_bytes()), Ok(news), "{text}");
        }
    }

    #[test]
    fn nothing_but_what_is_written_is_read() {
        for text in [
            "",
            "[]",
            "null",
            "[\"x\",1]",
            "[\"r\",1,\"i\",\"user\",\"u\",\"always\",null]",
            "[\"r\",1,\"i\",\"user\",\"u\",\"always\",null,null,1]",
            "[\"r\",1,\"i\",\"user\",\"u\",\"always\",1,null]",
            "[\"r\",1,\"i\",\"user\",\"u\",\"never\",null,null]",
            "[\"r\",1,\"i\",\"usr\",\"u\",\"always\",null,null]",
            "[\"r\",1,\"i\",\"everyone\",\"u\",\"always\",null,null]",
            "[\"r\",-1,\"i\",\"user\",\"u\",\"always\",null,null]",
            "[\"r\",1,\"i\",\"user\",\"u\",\"epoch_below\",-1,null]",
            "[\"r\",1,\"i\",\"user\",\"u\",\"epoch_below\",4294967296,null]",
            "[\"r\",1,\"i\",\"user\",\"u\",\"always\",null,null] x",
            "[\"g\",1,\"i\",\"k\",\"00\",\"s\",[],null]",
        ] {
            assert!(decode(text.as_bytes()).is_err(), "{text}");
        }
        assert!(decode(&vec![b'['; MAX_NEWS_BYTES + 1]).is_err());
    }

    #[test]
    fn no_two_things_share_a_slot() {
        let mut slots: Vec<_> = all().iter().map(slot).collect();
        let mut elsewhere = entry(Target::User("b:c".into()), Bar::Always, None);
        slots.push(slot(&elsewhere));
        if let News::Revocation(entry) = &mut elsewhere {
            entry.issuer.push_str(":b");
            entry.target = Target::User("c".into());
        }
        slots.push(slot(&elsewhere));
        let count = slots.len();
        slots.sort();
        slots.dedup();
        assert_eq!(slots.len(), count);
    }

    #[test]
    fn the_end_of_an_api_key_names_its_grant() {
        let mut end = entry(Target::ApiKey("k1".into()), Bar::Always, None);
        if let News::Revocation(entry) = &mut end {
            entry.issuer = "i\n\"".into();
        }
        assert_eq!(ended_grant(&end), Some(slot(&grant("k1"))));
        assert_eq!(ended_grant(&entry(Target::Everyone, Bar::Always, None)), None);
    }
}
