//! Refresh tokens: their form, their states, and what becomes of one that is presented.
//!
//! A session's tokens are a family: each has one successor (RFC 9700 section 4.14.2). A token that
//! comes back after its successor was made is either a client that lost the answer or a thief. For
//! the length of the grace window, and until somebody uses the successor, it gets the *same*
//! successor; from then on it ends the session.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use durward_contract::UnixSeconds;

use crate::random;
use crate::secret::Secret;

/// What refresh tokens begin with, so that secret scanners know one when they see it.
const PREFIX: &str = "drt_";
/// Characters of 256 bits in base64url.
const BODY_LENGTH: usize = 43;
/// Keeps this use of the key apart from any other.
const DERIVATION: &[u8] = b"durward refresh token successor v1\0";

/// SHA-256 of a refresh token: all that is kept of it. The token has 256 bits of entropy, so a slow
/// hash would add nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TokenHash(pub [u8; 32]);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

/// A refresh token that has the form of one.
#[derive(Clone, Debug)]
pub(crate) struct RefreshToken(Secret);

impl RefreshToken {
    /// A new family's first token.
    pub fn random() -> Self {
        Self::from_bits(&random::bytes())
    }

    /// Reads a token; anything but the exact form is none.
    pub fn parse(text: &Secret) -> Option<Self> {
        let body = text.expose().strip_prefix(PREFIX)?;
        let bits = (body.len() == BODY_LENGTH).then(|| URL_SAFE_NO_PAD.decode(body).ok())??;
        (bits.len() == 32).then(|| Self(text.clone()))
    }

    /// The token's hash.
    pub fn hash(&self) -> TokenHash {
        let hash = digest::digest(&digest::SHA256, self.0.expose().as_bytes());
        TokenHash(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// The token itself.
    pub fn into_secret(self) -> Secret {
        self.0
    }

    fn from_bits(bits: &[u8; 32]) -> Self {
        Self(Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bits))))
    }
}

/// Derives successors. Its key is kept outside the database: who has only the database's content
/// cannot make a token, and who has a token cannot make the next one.
pub(crate) struct Successors(hmac::Key);

impl Successors {
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The one successor of `token` for this nonce.
    pub fn of(&self, token: &RefreshToken, nonce: &[u8; 32]) -> RefreshToken {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(DERIVATION);
        context.update(token.0.expose().as_bytes());
        context.update(nonce);
        let tag = context.sign();
        RefreshToken::from_bits(tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes"))
    }
}

impl fmt::Debug for Successors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Successors([redacted])")
    }
}

/// How a token was rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rotation {
    pub at: UnixSeconds,
    pub nonce: [u8; 32],
    pub successor: TokenHash,
}

/// The states of a token. `Valid` becomes `Consumed` by rotation, or `Revoked` with its session;
/// there is no way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenState {
    Valid,
    Consumed(Rotation),
    Revoked,
}

/// All that decides over a presented token, read in one transaction.
#[derive(Clone, Debug)]
pub(crate) struct Presented<'a> {
    pub state: &'a TokenState,
    pub expires_at: UnixSeconds,
    pub successor_unused: bool,
    pub session_revoked: bool,
    pub session_expires_at: UnixSeconds,
    pub user_banned: bool,
}

/// What becomes of a presented token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its first use: make the successor.
    Rotate,
    /// Used a moment ago, and the successor lies untouched: the same successor again.
    Repeat(Rotation),
    /// Used before: end the session and refuse its access tokens.
    Reuse,
    /// No.
    Refuse(Refusal),
}

/// Why a token is refused without consequences for its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Expired,
    SessionEnded,
    Banned,
}

/// Judges a presented token.
pub(crate) fn judge(presented: &Presented<'_>, grace: Duration, now: UnixSeconds) -> Verdict {
    if presented.user_banned {
        return Verdict::Refuse(Refusal::Banned);
    }
    if presented.session_revoked {
        return Verdict::Refuse(Refusal::SessionEnded);
    }
    if now >= presented.session_expires_at {
        return Verdict::Refuse(Refusal::Expired);
    }
    match presented.state {
        TokenState::Revoked => Verdict::Refuse(Refusal::SessionEnded),
        TokenState::Valid if now >= presented.expires_at => Verdict::Refuse(Refusal::Expired),
        TokenState::Valid => Verdict::Rotate,
        TokenState::Consumed(rotation) if presented.successor_unused && within(rotation.at, now, grace) => {
            Verdict::Repeat(rotation.clone())
        }
        TokenState::Consumed(_) => Verdict::Reuse,
    }
}

/// Whether less than `grace` lies between the instants. A clock that was set back by more than
/// `grace` does not hold the window open.
fn within(at: UnixSeconds, now: UnixSeconds, grace: Duration) -> bool {
    u128::from(at.0.abs_diff(now.0)) < u128::from(grace.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    fn rotation(at: i64) -> Rotation {
        Rotation {
            at: UnixSeconds(at),
            nonce: [7; 32],
            successor: TokenHash([9; 32]),
        }
    }

    fn presented(state: &TokenState) -> Presented<'_> {
        Presented {
            state,
            expires_at: UnixSeconds(2000),
            successor_unused: true,
            session_revoked: false,
            session_expires_at: UnixSeconds(3000),
            user_banned: false,
        }
    }

    #[test]
    fn a_token_rotates_once_and_repeats_only_within_the_window() {
        let consumed = TokenState::Consumed(rotation(1000));
        let repeat = Verdict::Repeat(rotation(1000));
        for (state, unused, grace, now, verdict) in [
            (&TokenState::Valid, true, GRACE, 1000, Verdict::Rotate),
            (&TokenState::Valid, true, GRACE, 1999, Verdict::Rotate),
            (
                &TokenState::Valid,
                true,
                GRACE,
                2000,
                Verdict::Refuse(Refusal::Expired),
            ),
            (
                &TokenState::Revoked,
                true,
                GRACE,
                1000,
                Verdict::Refuse(Refusal::SessionEnded),
            ),
            (&consumed, true, GRACE, 1000, repeat.clone()),
            (&consumed, true, GRACE, 1009, repeat.clone()),
            (&consumed, true, GRACE, 1010, Verdict::Reuse),
            (&consumed, false, GRACE, 1001, Verdict::Reuse),
            (&consumed, true, Duration::ZERO, 1000, Verdict::Reuse),
            (&consumed, true, GRACE, 995, repeat),
            (&consumed, true, GRACE, 500, Verdict::Reuse),
            (&consumed, true, GRACE, 2500, Verdict::Reuse),
            (&consumed, true, GRACE, 3000, Verdict::Refuse(Refusal::Expired)),
        ] {
            let presented = Presented {
                successor_unused: unused,
                ..presented(state)
            };
            assert_eq!(
                judge(&presented, grace, UnixSeconds(now)),
                verdict,
                "{state:?} at {now}"
            );
        }
    }

    #[test]
    fn a_ban_and_an_ended_session_come_before_everything() {
        let consumed = TokenState::Consumed(rotation(0));
        for state in [&TokenState::Valid, &TokenState::Revoked, &consumed] {
            let banned = Presented {
                user_banned: true,
                session_revoked: true,
                ..presented(state)
            };
            assert_eq!(
                judge(&banned, GRACE, UnixSeconds(1)),
                Verdict::Refuse(Refusal::Banned)
            );
            let ended = Presented {
                session_revoked: true,
                ..presented(state)
            };
            assert_eq!(
                judge(&ended, GRACE, UnixSeconds(1)),
                Verdict::Refuse(Refusal::SessionEnded)
            );
        }
    }

    #[test]
    fn the_successor_is_one_for_token_nonce_and_key_and_another_for_any_other() {
        let (token, other) = (RefreshToken::random(), RefreshToken::random());
        let successors = Successors::new(&[1; 32]);
        let hash = successors.of(&token, &[0; 32]).hash();
        assert_eq!(successors.of(&token, &[0; 32]).hash(), hash);
        assert_ne!(successors.of(&token, &[1; 32]).hash(), hash);
        assert_ne!(successors.of(&other, &[0; 32]).hash(), hash);
        assert_ne!(Successors::new(&[2; 32]).of(&token, &[0; 32]).hash(), hash);
    }

    #[test]
    fn only_the_exact_form_is_a_refresh_token() {
        let good = RefreshToken::random().into_secret();
        assert!(RefreshToken::parse(&good).is_some());
        let text = good.expose();
        for bad in [
            "",
            "drt_",
            &text[4..],
            &text[..46],
            &format!("{text}A"),
            &format!("DRT_{}", &text[4..]),
            &format!("{}=", &text[..46]),
            &format!("{}+", &text[..46]),
            &format!("{}1", &text[..46]),
            "' OR 1=1 --",
        ] {
            assert!(RefreshToken::parse(&Secret::new(bad)).is_none(), "{bad}");
        }
    }
}
