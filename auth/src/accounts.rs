//! Accounts: made, banned, given roles, given another password. The HTTP API and the command line
//! both come through here.

use std::collections::BTreeSet;
use std::sync::Arc;

use durward_contract::{Bar, RETENTION_SLACK, Target, UnixSeconds};

use crate::audit::{self, Action, Actor};
use crate::bearer::Caller;
use crate::client_address::ClientFacts;
use crate::config::Registration;
use crate::passwords::{Password, Verified};
use crate::problem::{Problem, Reason};
use crate::random;
use crate::secret::Secret;
use crate::service::{Inner, detached};
use crate::sessions::IssuedTokens;
use crate::store::users::{self, PasswordHash, User};
use crate::store::{Connection, StoreError, Write, sessions};
use crate::usernames::Username;

/// Most roles of one user.
pub const MAX_ROLES: usize = 32;
/// Longest name of a role.
pub const MAX_ROLE_LENGTH: usize = 64;
/// Longest reason of a ban, in characters.
pub const MAX_BAN_REASON_CHARACTERS: usize = 500;
/// Largest page of users.
pub(crate) const MAX_PAGE: u32 = 200;

/// A user to be added by the operator.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// The name, in any spelling.
    pub username: String,
    /// The roles.
    pub roles: Vec<String>,
    /// The password; nothing has one made up.
    pub password: Option<Secret>,
}

/// A user that was added.
#[derive(Clone, Debug)]
pub struct AddedUser {
    /// The opaque id: the `sub` of the user's tokens.
    pub id: String,
    /// The canonical name.
    pub username: String,
    /// The roles.
    pub roles: Vec<String>,
    /// The password, where it was made up; it cannot be shown again.
    pub password: Option<Secret>,
}

/// How a user is named.
#[derive(Clone, Debug)]
pub(crate) enum UserKey {
    Id(String),
    Name(String),
}

/// What becomes of a user's roles.
#[derive(Clone, Debug)]
pub(crate) enum RoleChange {
    Set(Vec<String>),
    Adjust { add: Vec<String>, remove: Vec<String> },
}

impl UserKey {
    /// As an operator names users: by name or by id. No name has the form of an id.
    pub fn of_operator(text: String) -> Self {
        match random::is_user_id(&text) {
            true => Self::Id(text),
            false => Self::Name(text),
        }
    }

    pub async fn find(&self, connection: &mut Connection) -> Result<User, Problem> {
        let user = match self {
            Self::Id(id) if random::could_be_id(id) => users::by_id(connection, id).await?,
            Self::Id(_) => None,
            Self::Name(name) => match Username::canonical(name) {
                Ok(name) => users::by_username(connection, name.as_str()).await?,
                Err(_) => None,
            },
        };
        user.ok_or_else(|| Reason::NoSuchUser.into())
    }

    /// The user, locked: nothing of the user changes until the transaction ends.
    pub async fn lock(&self, write: &mut Write) -> Result<User, Problem> {
        let connection = write.connection();
        let user = match self {
            Self::Id(id) if random::could_be_id(id) => users::lock(connection, id).await?,
            Self::Id(_) => None,
            Self::Name(name) => match Username::canonical(name) {
                Ok(name) => users::lock_by_username(connection, name.as_str()).await?,
                Err(_) => None,
            },
        };
        user.ok_or_else(|| Reason::NoSuchUser.into())
    }
}

impl Inner {
    /// Makes an account for whoever asks, without roles.
    pub async fn register(
        self: &Arc<Self>,
        username: &str,
        password: &Secret,
        client: &ClientFacts,
    ) -> Result<User, Problem> {
        if self.config.registration == Registration::Closed {
            return Err(Reason::RegistrationClosed.into());
        }
        let username = Username::canonical(username)?;
        let password = self.chosen_password(password, &username)?;
        self.throttle
            .registration(client.address, self.clock.monotonic())
            .map_err(Problem::too_many_attempts)?;
        self.make_user(None, username, password, BTreeSet::new()).await
    }

    /// Adds a user, as an operator.
    pub async fn add_user(self: &Arc<Self>, actor: Actor, new: NewUser) -> Result<AddedUser, Problem> {
        let username = Username::canonical(&new.username)?;
        let roles = checked_roles(new.roles, MAX_ROLES)?;
        let made_up = new.password.is_none().then(|| Secret::new(random::password()));
        let password = match (&new.password, &made_up) {
            (Some(given), _) => self.chosen_password(given, &username)?,
            (None, Some(made_up)) => Password::given(made_up)?,
            (None, None) => return Err(Reason::Internal.into()),
        };
        let user = self.make_user(Some(actor), username, password, roles).await?;
        Ok(AddedUser {
            id: user.id,
            username: user.username,
            roles: user.roles.into_iter().collect(),
            password: made_up,
        })
    }

    async fn make_user(
        self: &Arc<Self>,
        actor: Option<Actor>,
        username: Username,
        password: Password,
        roles: BTreeSet<String>,
    ) -> Result<User, Problem> {
        let hash = self.passwords.hash(password).await?;
        let service = Arc::clone(self);
        detached(async move {
            let mut write = service.store.write().await?;
            let user = User {
                id: random::user_id(),
                username: username.as_str().to_owned(),
                epoch: 0,
                banned: false,
                banned_at: None,
                ban_reason: None,
                created_at: service.clock.now(),
                roles,
            };
            if !users::insert(write.connection(), &user, &hash).await? {
                return Err(Reason::UsernameTaken.into());
            }
            let (actor, action) = match actor {
                Some(actor) => (actor, Action::UserAdded),
                None => (Actor::User(user.id.clone()), Action::UserRegistered),
            };
            audit::record(&mut write, user.created_at, &actor, action, &user.id, "").await?;
            write.commit_without_news().await?;
            Ok(user)
        })
        .await
    }

    /// Bans a user: no login, no refresh, and every token from before is refused. Banning a banned
    /// user says the same again and raises nothing.
    pub async fn ban(
        self: &Arc<Self>,
        actor: Actor,
        key: UserKey,
        reason: Option<String>,
    ) -> Result<User, Problem> {
        let reason = checked_reason(reason)?;
        let service = Arc::clone(self);
        detached(async move {
            let mut write = service.store.write().await?;
            let now = service.clock.now();
            let user = service.lock_for(&mut write, &actor, &key).await?;
            users::ban(write.connection(), &user.id, reason.as_deref(), now).await?;
            if user.banned {
                service
                    .bar_tokens_below(&mut write, &user.id, user.epoch, now)
                    .await?;
            } else {
                service.bar_older_tokens(&mut write, &user.id, now).await?;
            }
            sessions::end_all(write.connection(), &user.id, "ban", now).await?;
            audit::record(
                &mut write,
                now,
                &actor,
                Action::Banned,
                &user.id,
                reason.as_deref().unwrap_or(""),
            )
            .await?;
            service.commit_with(write, user.id).await
        })
        .await
    }

    /// Lifts a ban. Tokens and sessions from before stay refused.
    pub async fn unban(self: &Arc<Self>, actor: Actor, key: UserKey) -> Result<User, Problem> {
        let service = Arc::clone(self);
        detached(async move {
            let mut write = service.store.write().await?;
            let now = service.clock.now();
            let user = service.lock_for(&mut write, &actor, &key).await?;
            users::unban(write.connection(), &user.id).await?;
            audit::record(&mut write, now, &actor, Action::Unbanned, &user.id, "").await?;
            service.commit_with(write, user.id).await
        })
        .await
    }

    /// Changes roles. Taking one away refuses every token from before, which carry it.
    pub async fn change_roles(
        self: &Arc<Self>,
        actor: Actor,
        key: UserKey,
        change: RoleChange,
    ) -> Result<User, Problem> {
        let service = Arc::clone(self);
        detached(async move {
            let mut write = service.store.write().await?;
            let now = service.clock.now();
            let user = service.lock_for(&mut write, &actor, &key).await?;
            let wanted = change.applied_to(&user.roles)?;
            for role in wanted.difference(&user.roles) {
                users::add_role(write.connection(), &user.id, role).await?;
            }
            let lost: Vec<&String> = user.roles.difference(&wanted).collect();
            for role in &lost {
                users::remove_role(write.connection(), &user.id, role).await?;
            }
            if !lost.is_empty() {
                service.bar_older_tokens(&mut write, &user.id, now).await?;
            }
            let detail = wanted.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
            audit::record(&mut write, now, &actor, Action::RolesChanged, &user.id, &detail).await?;
            service.commit_with(write, user.id).await
        })
        .await
    }

    /// Gives a user another password, ends every session, and opens a new one: whoever knew the old
    /// password is out, whatever tokens they hold.
    pub async fn change_password(
        self: &Arc<Self>,
        caller: Caller,
        current: &Secret,
        new: &Secret,
        client: ClientFacts,
    ) -> Result<IssuedTokens, Problem> {
        let actor = caller.actor();
        let user = caller.user;
        let username = Username::canonical(&user.username)?;
        let attempt = self
            .throttle
            .login(username.as_str(), client.address, self.clock.monotonic())
            .map_err(Problem::too_many_attempts)?;
        let verified = self.verify_password_of(&user.id, current).await;
        if !matches!(verified, Ok((_, Verified::Wrong))) {
            self.throttle.succeeded(attempt);
        }
        let (old_hash, Verified::Right | Verified::RightButWeak) = verified? else {
            return Err(Reason::InvalidCredentials.into());
        };
        let hash = self.passwords.hash(self.chosen_password(new, &username)?).await?;
        let service = Arc::clone(self);
        detached(async move {
            service
                .replace_password(actor, user.id, old_hash, hash, client)
                .await
        })
        .await
    }

    async fn verify_password_of(
        &self,
        user_id: &str,
        given: &Secret,
    ) -> Result<(Option<PasswordHash>, Verified), Problem> {
        let given = Password::given(given)?;
        let hash = users::password_by_id(&mut self.store.read().await?, user_id).await?;
        let verified = self.passwords.verify(given, hash.clone()).await?;
        Ok((hash, verified))
    }

    async fn replace_password(
        &self,
        actor: Actor,
        user_id: String,
        old: Option<PasswordHash>,
        new: PasswordHash,
        client: ClientFacts,
    ) -> Result<IssuedTokens, Problem> {
        let mut write = self.store.write().await?;
        let now = self.clock.now();
        let user = self.lock_for(&mut write, &actor, &UserKey::Id(user_id)).await?;
        if user.banned || users::password_by_id(write.connection(), &user.id).await? != old {
            return Err(Reason::InvalidCredentials.into());
        }
        users::set_password(write.connection(), &user.id, &new, now).await?;
        self.bar_older_tokens(&mut write, &user.id, now).await?;
        sessions::end_all(write.connection(), &user.id, "password change", now).await?;
        audit::record(&mut write, now, &actor, Action::PasswordChanged, &user.id, "").await?;
        let user = UserKey::Id(user.id).find(write.connection()).await?;
        let opened = self.open_session(&mut write, &user, client, now).await?;
        self.log.commit(&self.store, write).await?;
        self.issue(opened)
    }

    /// Users in the order of their names.
    pub async fn users(&self, after: &str, limit: u32) -> Result<Vec<User>, Problem> {
        // No name has a NUL in it, so what follows one changes nothing.
        let after = after.split('\0').next().unwrap_or_default();
        let mut read = self.store.read().await?;
        Ok(users::page(&mut read, after, limit.clamp(1, MAX_PAGE)).await?)
    }

    /// Raises the user's epoch, so that no token from before it is accepted.
    pub async fn bar_older_tokens(
        &self,
        write: &mut Write,
        user_id: &str,
        now: UnixSeconds,
    ) -> Result<(), StoreError> {
        let epoch = users::raise_epoch(write.connection(), user_id).await?;
        self.bar_tokens_below(write, user_id, epoch, now).await
    }

    async fn bar_tokens_below(
        &self,
        write: &mut Write,
        user_id: &str,
        epoch: u32,
        now: UnixSeconds,
    ) -> Result<(), StoreError> {
        // What was issued may expire later than now + ttl: the clock or the ttl may have been changed.
        let issued = sessions::latest_access_expiry(write.connection(), user_id).await?;
        let latest = issued.unwrap_or(now).max(now.plus(self.tokens.ttl()));
        let target = Target::User(user_id.to_owned());
        let forget_at = latest.plus(RETENTION_SLACK);
        self.log
            .append(write, target, Bar::EpochBelow(epoch), forget_at, now);
        Ok(())
    }

    /// Commits and returns the user as committed.
    async fn commit_with(&self, mut write: Write, user_id: String) -> Result<User, Problem> {
        let user = UserKey::Id(user_id).find(write.connection()).await?;
        self.log.commit(&self.store, write).await?;
        Ok(user)
    }

    fn chosen_password(&self, password: &Secret, username: &Username) -> Result<Password, Problem> {
        let context = [username.as_str(), self.config.audience.as_str(), "durward"];
        Ok(Password::chosen(password, &context)?)
    }
}

impl RoleChange {
    fn applied_to(self, roles: &BTreeSet<String>) -> Result<BTreeSet<String>, Problem> {
        match self {
            Self::Set(roles) => checked_roles(roles, MAX_ROLES),
            Self::Adjust { add, remove } => {
                let mut wanted = roles.clone();
                wanted.extend(add);
                for role in &remove {
                    wanted.remove(role);
                }
                checked_roles(wanted, MAX_ROLES)
            }
        }
    }
}

/// Roles end up in identity headers, joined by commas, so their alphabet is narrow.
pub(crate) fn checked_roles(
    roles: impl IntoIterator<Item = String>,
    most: usize,
) -> Result<BTreeSet<String>, Problem> {
    let mut checked = BTreeSet::new();
    for role in roles {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        if role.is_empty() || role.len() > MAX_ROLE_LENGTH || !role.bytes().all(plain) {
            return Err(Reason::InvalidRole.into());
        }
        checked.insert(role);
        if checked.len() > most {
            return Err(Reason::InvalidRole.into());
        }
    }
    Ok(checked)
}

pub(crate) fn checked_reason(reason: Option<String>) -> Result<Option<String>, Problem> {
    let bad = |text: &String| {
        text.chars().count() > MAX_BAN_REASON_CHARACTERS || text.chars().any(char::is_control)
    };
    if reason.as_ref().is_some_and(bad) {
        Err(Reason::InvalidBanReason.into())
    } else {
        Ok(reason)
    }
}
