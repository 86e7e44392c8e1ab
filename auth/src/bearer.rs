//! Who calls: the bearer token is proved by the gateway's own code (`durward_policy::prove`), and
//! then held against the database: session, ban and epoch as they are now.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use durward_config::{Diagnostics, Document, Place};
use durward_contract::RevocationEntry;
use durward_policy::{
    Algorithm, Credential, CredentialKinds, DigestKey, IssuerId, KeySet, Keys, OwnIssuer, Policy,
    PolicySections, RawRequest, Reason, Rejection, RequestFacts, VerifiedToken, barred_by, prove,
};
use http::request::Parts;
use parking_lot::RwLock;

use crate::accounts::UserKey;
use crate::audit::Actor;
use crate::config::{AuthConfig, SigningAlgorithm};
use crate::problem::Problem;
use crate::problem::Reason as OwnReason;
use crate::random;
use crate::service::{AuthService, Inner};
use crate::store::revocations::{self, Concerned};
use crate::store::sessions::{self, Session};
use crate::store::users::{self, User};
use crate::store::{Connection, Write};

/// The role that may use the admin API.
pub const ADMIN_ROLE: &str = "admin";

/// A user who has proved to be one, with the session that the token belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub user: User,
    pub session: Session,
    token: Arc<VerifiedToken>,
}

/// What a caller acts by. It is judged again in every transaction that acts on it: between the first
/// judgement and that lie a body that is waited for and a turn to write.
#[derive(Clone, Debug)]
pub(crate) struct ActsBy {
    token: Arc<VerifiedToken>,
    /// Acts by the role `admin`, which must then still be there.
    as_admin: bool,
}

/// A caller with the role `admin`.
#[derive(Clone, Debug)]
pub(crate) struct Admin(pub Caller);

impl Caller {
    /// Acts on what is the caller's own.
    pub fn actor(&self) -> Actor {
        self.acting(false)
    }

    fn acting(&self, as_admin: bool) -> Actor {
        let token = Arc::clone(&self.token);
        Actor::Caller(self.user.id.clone(), ActsBy { token, as_admin })
    }
}

impl Admin {
    /// Acts by the role `admin`.
    pub fn actor(&self) -> Actor {
        self.0.acting(true)
    }
}

impl FromRequestParts<AuthService> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &AuthService) -> Result<Self, Problem> {
        service.inner.caller(parts).await
    }
}

impl FromRequestParts<AuthService> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &AuthService) -> Result<Self, Problem> {
        let caller = service.inner.caller(parts).await?;
        check_admin(&caller.user)?;
        Ok(Self(caller))
    }
}

/// Proves the service's own tokens.
pub(crate) struct OwnTokens {
    policy: Policy,
    keys: OwnKeys,
}

struct OwnKeys {
    issuer: IssuerId,
    set: RwLock<Arc<KeySet>>,
}

impl Keys for OwnKeys {
    fn key_set(&self, issuer: IssuerId) -> Option<Arc<KeySet>> {
        (issuer == self.issuer).then(|| Arc::clone(&self.set.read()))
    }
}

/// A policy with nothing but the own issuer. `prove` asks for no route, but a policy without one
/// cannot be made.
const POLICY: &str = "
issuers: [{ use: auth }]
revocations: none
routes: [{ path: /**, upstream: auth }]
";

impl OwnTokens {
    /// The error says what the policy crate has against the configuration.
    pub fn new(config: &AuthConfig, jwks: &[u8]) -> Result<Self, String> {
        let document = Document::parse("own tokens", POLICY).map_err(|errors| errors.to_string())?;
        let mut diagnostics = Diagnostics::default();
        let mut section = document
            .root()
            .section("own tokens", &mut diagnostics)
            .ok_or("no mapping")?;
        let sections = PolicySections {
            issuers: section.optional("issuers"),
            identity_headers: None,
            service_headers: None,
            strip: None,
            routes: section.optional("routes"),
            revocations: section.optional("revocations"),
            rate_limits: None,
            upstream_names: &[("auth".to_owned(), Place::default())],
            own_issuer: Some(OwnIssuer {
                key_announce: config.signing_key_announce,
                issuer: config.issuer.clone(),
                audience: config.audience.clone(),
                in_process: true,
                algorithm: match config.signing_algorithm {
                    SigningAlgorithm::Es256 => Algorithm::ES256,
                    SigningAlgorithm::EdDsa => Algorithm::EdDSA,
                    SigningAlgorithm::Rs256 => Algorithm::RS256,
                },
            }),
            auth_in_process: true,
            file_place: Place::default(),
        };
        let policy = Policy::compile(sections, DigestKey(random::bytes()), &mut diagnostics);
        let policy = policy.ok_or_else(|| diagnostics.to_string())?;
        let issuer = policy
            .issuers()
            .by_issuer(&config.issuer)
            .ok_or("the own issuer is missing")?;
        let set = KeySet::from_jwks(jwks, issuer, 0).map_err(|error| error.to_string())?;
        let keys = OwnKeys {
            issuer: issuer.id,
            set: RwLock::new(Arc::new(set)),
        };
        Ok(Self { policy, keys })
    }

    /// Reads a key set for [`Self::replace_keys`].
    pub fn read_keys(&self, jwks: &[u8]) -> Result<KeySet, String> {
        let issuer = self
            .policy
            .issuers()
            .iter()
            .find(|issuer| issuer.id == self.keys.issuer);
        let issuer = issuer.ok_or("the own issuer is missing")?;
        KeySet::from_jwks(jwks, issuer, 0).map_err(|error| error.to_string())
    }

    /// Proves with these keys alone from now on.
    pub fn replace_keys(&self, keys: KeySet) {
        *self.keys.set.write() = Arc::new(keys);
    }

    /// What an entry of the log bars a token by.
    fn barred(&self, token: &VerifiedToken, entries: &[RevocationEntry]) -> bool {
        entries
            .iter()
            .any(|entry| barred_by(&self.policy, token, entry).is_some())
    }

    fn prove(&self, token: &str) -> Result<VerifiedToken, Rejection> {
        prove(&self.policy, token, &self.keys).map_err(|error| error.rejection)
    }
}

impl fmt::Debug for OwnTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnTokens(..)")
    }
}

impl Inner {
    async fn caller(self: &Arc<Self>, parts: &Parts) -> Result<Caller, Problem> {
        let mut proved = self.proved_token(parts);
        if matches!(&proved, Err(problem) if problem.code() == Reason::UnknownKey.code()) {
            // Another replica may have signed it with a key that was changed a moment ago.
            self.read_keys_when_asked().await;
            proved = self.proved_token(parts);
        }
        let token = Arc::new(proved?);
        let mut read = self.store.snapshot().await?;
        let (user, session) = self.standing(&mut read, &token).await?;
        Ok(Caller { user, session, token })
    }

    /// Locks the actor, where that is a user, and judges the actor again. To be called before the
    /// transaction locks, reads or changes anything else.
    pub async fn judge_actor(&self, write: &mut Write, actor: &Actor) -> Result<(), Problem> {
        self.judge_actor_among(write, actor, BTreeSet::new()).await
    }

    /// The same with other users, who are locked with the actor, in the order of their ids.
    pub async fn judge_actor_among(
        &self,
        write: &mut Write,
        actor: &Actor,
        mut others: BTreeSet<String>,
    ) -> Result<(), Problem> {
        if let Actor::Caller(id, _) = actor {
            others.insert(id.clone());
        }
        users::lock_several(write.connection(), &others).await?;
        self.still_stands(write.connection(), actor).await
    }

    /// Locks the user that `key` names, and the actor, and judges the actor again.
    pub async fn lock_for(&self, write: &mut Write, actor: &Actor, key: &UserKey) -> Result<User, Problem> {
        // Callers name users by id; a name is the operator's, who is no row.
        let target = match key {
            UserKey::Id(id) if random::could_be_id(id) => BTreeSet::from([id.clone()]),
            UserKey::Id(_) | UserKey::Name(_) => BTreeSet::new(),
        };
        self.judge_actor_among(write, actor, target).await?;
        key.lock(write).await
    }

    /// Whether the actor may still act. Nothing that ends a session or a role, or raises an epoch, can
    /// come between this and the commit of a transaction that has locked the actor.
    pub async fn still_stands(&self, connection: &mut Connection, actor: &Actor) -> Result<(), Problem> {
        let Actor::Caller(_, by) = actor else {
            return Ok(());
        };
        let (user, _) = self.standing(connection, &by.token).await?;
        match by.as_admin {
            true => check_admin(&user),
            false => Ok(()),
        }
    }

    /// Whom a token stands for, as the database has it now: the log bars it by nothing, its session
    /// goes on, its user is not banned, and its epoch has not passed.
    async fn standing(
        &self,
        connection: &mut Connection,
        token: &VerifiedToken,
    ) -> Result<(User, Session), Problem> {
        let session = token.session_id().unwrap_or_default();
        let user = users::by_id(connection, token.subject()).await?;
        let session = sessions::by_id(connection, session).await?;
        let concerned = Concerned {
            issuer: &self.config.issuer,
            token: token.token_id().unwrap_or_default(),
            session: token.session_id().unwrap_or_default(),
            user: token.subject(),
            client: token.client_id().unwrap_or_default(),
        };
        let entries = revocations::concerning(connection, concerned).await?;
        if self.own_tokens.barred(token, &entries) {
            return Err(revoked("an entry of the revocation log"));
        }
        let (Some(user), Some(session)) = (user, session) else {
            return Err(revoked("its user or session is gone"));
        };
        if session.user_id != user.id || !session.is_live(self.clock.now()) {
            return Err(revoked("its session has ended"));
        }
        if user.banned || token.epoch().is_none_or(|epoch| epoch < user.epoch) {
            return Err(revoked("its user is banned, or its epoch has passed"));
        }
        Ok((user, session))
    }

    fn proved_token(&self, parts: &Parts) -> Result<VerifiedToken, Problem> {
        let target = parts.uri.to_string();
        let facts = RequestFacts::judge(RawRequest {
            method: &parts.method,
            target: target.as_bytes(),
            authority: None,
            version: parts.version,
            headers: &parts.headers,
        })?;
        let Some(Credential::Bearer(token)) = Credential::find(&facts, CredentialKinds::BEARER)? else {
            return Err(Rejection::new(Reason::NoCredential, "no credential").into());
        };
        let token = self.own_tokens.prove(token)?;
        // Its own clock issued it, so there is no leeway for `exp`.
        let now = self.clock.now();
        if now >= token.expires_at() {
            return Err(Rejection::new(Reason::TokenExpired, "exp has passed").into());
        }
        if token.issued_at() > now.plus(durward_contract::MAX_LEEWAY) {
            return Err(Rejection::new(Reason::TokenNotYetValid, "iat lies ahead").into());
        }
        Ok(token)
    }
}

fn check_admin(user: &User) -> Result<(), Problem> {
    if user.roles.contains(ADMIN_ROLE) {
        Ok(())
    } else {
        Err(OwnReason::AdminRequired.into())
    }
}

fn revoked(cause: &'static str) -> Problem {
    Rejection::new(Reason::Revoked, cause).into()
}
