//! Sessions: opened by a login, carried on by refreshes, ended.

use std::sync::Arc;

use durward_contract::{AccessTokenClaims, Bar, RETENTION_SLACK, Target, UnixSeconds};

use crate::accounts::UserKey;
use crate::audit::{self, Action, Actor};
use crate::client_address::ClientFacts;
use crate::passwords::{Password, Verified};
use crate::problem::{Problem, Reason};
use crate::random;
use crate::refresh_family::{self, Presented, RefreshToken, Refusal, Rotation, TokenHash, Verdict};
use crate::secret::Secret;
use crate::service::{Inner, detached};
use crate::store::Write;
use crate::store::refresh_tokens::{self, StoredToken};
use crate::store::sessions::{self, Session};
use crate::store::users::{self, PasswordHash, User};
use crate::tokens::{FIRST_PARTY, Grant};
use crate::usernames::Username;

/// Live sessions of one user; one more ends the one that was used longest ago.
pub const MAX_LIVE_SESSIONS: usize = 50;
/// Sessions that a list shows, the newest.
pub(crate) const MAX_LISTED_SESSIONS: u32 = 500;

/// The answer to a login and to a refresh (RFC 6749 section 5.1).
#[derive(Debug)]
pub(crate) struct IssuedTokens {
    pub access_token: Secret,
    pub refresh_token: Secret,
    /// Seconds.
    pub expires_in: i64,
}

/// Tokens that a transaction has made and that exist once it is committed.
#[derive(Debug)]
pub(crate) struct Opened {
    claims: AccessTokenClaims,
    refresh_token: RefreshToken,
}

impl Inner {
    /// Opens a session for who knows the password. Unknown user, wrong password and banned user get
    /// the same answer after the same work, until the password is right.
    pub async fn login(
        self: &Arc<Self>,
        username: &str,
        password: &Secret,
        client: ClientFacts,
    ) -> Result<IssuedTokens, Problem> {
        let password = Password::given(password)?;
        // A name that cannot be one is an account that does not exist.
        let username = Username::canonical(username).ok();
        let account = username.as_ref().map_or("", Username::as_str);
        let attempt = self
            .throttle
            .login(account, client.address, self.clock.monotonic())
            .map_err(Problem::too_many_attempts)?;
        let stored = match users::password_of(&mut self.store.read().await?, account).await {
            Ok(stored) => stored,
            Err(error) => {
                self.throttle.succeeded(attempt);
                return Err(error.into());
            }
        };
        let verified = self
            .passwords
            .verify(password.clone(), stored.as_ref().map(|(_, hash)| hash.clone()))
            .await;
        let (Ok(Verified::Right | Verified::RightButWeak), Some((id, hash))) = (&verified, stored) else {
            if verified.is_err() {
                self.throttle.succeeded(attempt);
            }
            return Err(verified
                .err()
                .unwrap_or_else(|| Reason::InvalidCredentials.into()));
        };
        self.throttle.succeeded(attempt);
        self.throttle
            .session(account, self.clock.monotonic())
            .map_err(Problem::too_many_attempts)?;
        let better = match verified {
            // Where there is no room for it, the next login does it.
            Ok(Verified::RightButWeak) => self.passwords.hash(password).await.ok(),
            _ => None,
        };
        let service = Arc::clone(self);
        detached(async move { service.admit(id, hash, better, client).await }).await
    }

    async fn admit(
        &self,
        user_id: String,
        verified: PasswordHash,
        better: Option<PasswordHash>,
        client: ClientFacts,
    ) -> Result<IssuedTokens, Problem> {
        let mut write = self.store.write().await?;
        let user = users::lock(write.connection(), &user_id).await?;
        let user = user.ok_or(Reason::InvalidCredentials)?;
        // Read once the user is locked: a token that was waited for is not from before the wait.
        let now = self.clock.now();
        // The password that was verified may have been changed since, and the user banned.
        let current = users::password_by_id(write.connection(), &user.id).await?;
        if current.as_ref() != Some(&verified) {
            return Err(Reason::InvalidCredentials.into());
        }
        if user.banned {
            return Err(Reason::Banned.into());
        }
        if let Some(better) = better {
            users::rehash(write.connection(), &user.id, &better).await?;
        }
        let opened = self.open_session(&mut write, &user, client, now).await?;
        self.log.commit(&self.store, write).await?;
        self.issue(opened)
    }

    /// Opens a session in a transaction that has locked the user.
    pub async fn open_session(
        &self,
        write: &mut Write,
        user: &User,
        client: ClientFacts,
        now: UnixSeconds,
    ) -> Result<Opened, Problem> {
        let live = sessions::live_of_user(write.connection(), &user.id, now).await?;
        for oldest in live
            .iter()
            .take((live.len() + 1).saturating_sub(MAX_LIVE_SESSIONS))
        {
            self.end_in(write, oldest, "too many sessions", now).await?;
        }
        let expires_at = now.plus(self.config.session_ttl);
        let session = Session {
            id: random::session_id(),
            user_id: user.id.clone(),
            client_id: FIRST_PARTY.to_owned(),
            client_address: client.address.to_string(),
            user_agent: client.user_agent,
            created_at: now,
            last_used_at: now,
            expires_at,
            access_expires_at: now,
            revoked: false,
            blacklisted: false,
        };
        sessions::insert(write.connection(), &session).await?;
        self.grant(write, user, &session, RefreshToken::random(), None, now)
            .await
    }

    /// Rotates a refresh token (RFC 9700 section 4.14.2). What decides is read in the transaction
    /// that rotates, so no refresh that races a ban can win.
    pub async fn refresh(self: &Arc<Self>, token: &Secret) -> Result<IssuedTokens, Problem> {
        let token = RefreshToken::parse(token).ok_or(Reason::RefreshTokenUnknown)?;
        // Unknown tokens are turned away before they would wait for their turn to write.
        let session = refresh_tokens::session_of(&mut self.store.read().await?, &token.hash()).await?;
        let session = session.ok_or(Reason::RefreshTokenUnknown)?;
        self.throttle
            .refresh(&session, self.clock.monotonic())
            .map_err(Problem::too_many_attempts)?;
        let service = Arc::clone(self);
        detached(async move { service.rotate(token).await }).await
    }

    async fn rotate(&self, token: RefreshToken) -> Result<IssuedTokens, Problem> {
        let mut write = self.store.write().await?;
        let now = self.clock.now();
        let Family {
            stored,
            session,
            user,
        } = self.family_of(&mut write, &token.hash()).await?;
        let presented = Presented {
            state: &stored.state,
            expires_at: stored.expires_at,
            successor_unused: stored.successor_unused,
            session_revoked: session.revoked,
            session_expires_at: session.expires_at,
            user_banned: user.banned,
        };
        let opened = match refresh_family::judge(&presented, self.config.refresh_grace, now) {
            Verdict::Rotate => self.succeed(&mut write, &user, &session, &token, now).await?,
            Verdict::Repeat(rotation) => {
                let successor = self.successors.of(&token, &rotation.nonce);
                if successor.hash() != rotation.successor {
                    return Err(Problem::internal(
                        "deriving a successor",
                        &"the key of refresh tokens has changed",
                    ));
                }
                self.claim(&mut write, &user, &session, successor, now).await?
            }
            Verdict::Reuse => return self.end_reused(write, &session, now).await,
            Verdict::Refuse(refusal) => return Err(reason_of(refusal).into()),
        };
        self.log.commit(&self.store, write).await?;
        self.issue(opened)
    }

    async fn family_of(&self, write: &mut Write, hash: &TokenHash) -> Result<Family, Problem> {
        let connection = write.connection();
        let owner = refresh_tokens::user_of(connection, hash)
            .await?
            .ok_or(Reason::RefreshTokenUnknown)?;
        let user = users::lock(connection, &owner)
            .await?
            .ok_or(Reason::RefreshTokenUnknown)?;
        let stored = refresh_tokens::find(connection, hash)
            .await?
            .ok_or(Reason::RefreshTokenUnknown)?;
        let session = sessions::by_id(connection, &stored.session_id)
            .await?
            .ok_or(Reason::RefreshTokenUnknown)?;
        Ok(Family {
            stored,
            session,
            user,
        })
    }

    async fn succeed(
        &self,
        write: &mut Write,
        user: &User,
        session: &Session,
        token: &RefreshToken,
        now: UnixSeconds,
    ) -> Result<Opened, Problem> {
        let nonce = random::bytes();
        let successor = self.successors.of(token, &nonce);
        let rotation = Rotation {
            at: now,
            nonce,
            successor: successor.hash(),
        };
        refresh_tokens::consume(write.connection(), &token.hash(), &rotation).await?;
        self.grant(write, user, session, successor, Some(token.hash()), now)
            .await
    }

    /// Stores a refresh token as the family's newest, and makes the claims that go with it.
    async fn grant(
        &self,
        write: &mut Write,
        user: &User,
        session: &Session,
        token: RefreshToken,
        parent: Option<TokenHash>,
        now: UnixSeconds,
    ) -> Result<Opened, Problem> {
        let expires_at = now.plus(self.config.refresh_token_ttl).min(session.expires_at);
        let hash = token.hash();
        refresh_tokens::insert(
            write.connection(),
            &hash,
            &session.id,
            parent.as_ref(),
            now,
            expires_at,
        )
        .await?;
        self.claim(write, user, session, token, now).await
    }

    /// Makes an access token's claims, with the epoch and roles that this transaction reads.
    async fn claim(
        &self,
        write: &mut Write,
        user: &User,
        session: &Session,
        refresh_token: RefreshToken,
        now: UnixSeconds,
    ) -> Result<Opened, Problem> {
        let grant = Grant {
            user_id: user.id.clone(),
            epoch: user.epoch,
            roles: user.roles.iter().cloned().collect(),
            client_id: session.client_id.clone(),
            session_id: session.id.clone(),
            session_expires_at: session.expires_at,
        };
        self.check_signing_key(write.connection()).await?;
        let claims = self.tokens.claims(grant, now);
        sessions::used(write.connection(), &session.id, now, claims.exp).await?;
        Ok(Opened {
            claims,
            refresh_token,
        })
    }

    /// Signs what a committed transaction has made.
    pub fn issue(&self, opened: Opened) -> Result<IssuedTokens, Problem> {
        let signed = self.tokens.sign(&opened.claims);
        Ok(IssuedTokens {
            access_token: signed.map_err(|error| Problem::internal("signing a token", &error))?,
            refresh_token: opened.refresh_token.into_secret(),
            expires_in: opened.claims.exp.0 - opened.claims.iat.0,
        })
    }

    /// A token came back: its session and all its tokens die, whoever of the two holders is right.
    async fn end_reused(
        &self,
        mut write: Write,
        session: &Session,
        now: UnixSeconds,
    ) -> Result<IssuedTokens, Problem> {
        self.end_in(&mut write, session, "refresh token reuse", now)
            .await?;
        let (user, id) = (&session.user_id, &session.id);
        audit::record(
            &mut write,
            now,
            &Actor::Service,
            Action::RefreshTokenReused,
            user,
            id,
        )
        .await?;
        self.log.commit(&self.store, write).await?;
        self.metrics.reuse_detections.inc();
        Err(Reason::RefreshTokenReused.into())
    }

    async fn end_in(
        &self,
        write: &mut Write,
        session: &Session,
        why: &str,
        now: UnixSeconds,
    ) -> Result<(), Problem> {
        sessions::end(write.connection(), &session.id, why, now).await?;
        let forget_at = session.access_expires_at.max(now).plus(RETENTION_SLACK);
        let target = Target::Session(session.id.clone());
        self.log.append(write, target, Bar::Always, forget_at, now);
        Ok(())
    }

    /// Ends the session that a refresh token belongs to. A token that nobody knows ends nothing and
    /// is no error (RFC 7009 section 2.2).
    pub async fn logout(self: &Arc<Self>, token: &Secret) -> Result<(), Problem> {
        let Some(token) = RefreshToken::parse(token) else {
            return Ok(());
        };
        let found = refresh_tokens::session_of(&mut self.store.read().await?, &token.hash()).await?;
        let Some(id) = found else { return Ok(()) };
        let session = sessions::by_id(&mut self.store.read().await?, &id).await?;
        let Some(session) = session else { return Ok(()) };
        let key = UserKey::Id(session.user_id.clone());
        self.end_session(Actor::User(session.user_id), key, id, "logout")
            .await
    }

    /// Ends one session of a user. Ending it again changes nothing.
    pub async fn end_session(
        self: &Arc<Self>,
        actor: Actor,
        key: UserKey,
        id: String,
        why: &'static str,
    ) -> Result<(), Problem> {
        let service = Arc::clone(self);
        detached(async move {
            let mut write = service.store.write().await?;
            let now = service.clock.now();
            let user = service.lock_for(&mut write, &actor, &key).await?;
            if !random::could_be_id(&id) {
                return Err(Reason::NoSuchSession.into());
            }
            let session = sessions::by_id(write.connection(), &id).await?;
            let session = session
                .filter(|session| session.user_id == user.id)
                .ok_or(Reason::NoSuchSession)?;
            if session.revoked {
                return Ok(());
            }
            service.end_in(&mut write, &session, why, now).await?;
            if actor.is_another_than(&user.id) {
                audit::record(&mut write, now, &actor, Action::SessionEnded, &user.id, &id).await?;
            }
            Ok(service.log.commit(&service.store, write).await?)
        })
        .await
    }

    /// Ends all sessions of a user and refuses every token from before; returns how many there were.
    pub async fn end_all_sessions(
        self: &Arc<Self>,
        actor: Actor,
        key: UserKey,
        why: &'static str,
    ) -> Result<u64, Problem> {
        let service = Arc::clone(self);
        detached(async move {
            let mut write = service.store.write().await?;
            let now = service.clock.now();
            let user = service.lock_for(&mut write, &actor, &key).await?;
            service.bar_older_tokens(&mut write, &user.id, now).await?;
            let ended = sessions::end_all(write.connection(), &user.id, why, now).await?;
            if actor.is_another_than(&user.id) {
                audit::record(&mut write, now, &actor, Action::AllSessionsEnded, &user.id, why).await?;
            }
            service.log.commit(&service.store, write).await?;
            Ok(ended)
        })
        .await
    }

    /// The newest sessions of a user, ended ones among them.
    pub async fn sessions_of(&self, key: &UserKey) -> Result<Vec<Session>, Problem> {
        let mut read = self.store.read().await?;
        let user = key.find(&mut read).await?;
        Ok(sessions::of_user(&mut read, &user.id, MAX_LISTED_SESSIONS).await?)
    }

    /// The live sessions of a user.
    pub async fn live_sessions_of(&self, user_id: &str) -> Result<Vec<Session>, Problem> {
        let mut read = self.store.read().await?;
        Ok(sessions::live_of_user(&mut read, user_id, self.clock.now()).await?)
    }
}

struct Family {
    stored: StoredToken,
    session: Session,
    user: User,
}

fn reason_of(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::Expired => Reason::RefreshTokenExpired,
        Refusal::SessionEnded => Reason::SessionEnded,
        Refusal::Banned => Reason::UserBanned,
    }
}
