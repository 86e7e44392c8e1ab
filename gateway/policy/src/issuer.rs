//! Whose tokens are accepted, and under which terms. All of it is data: the shell reads the keys.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use durward_config::{Diagnostics, Node, Place, SecretRef};

mod algorithm;
mod compile;
mod key_source;

pub use algorithm::{Algorithm, KeyType};

/// The name by which the file speaks of the own auth service.
pub const OWN_ISSUER_NAME: &str = "auth";

/// The most issuers that one gateway accepts.
pub const MAX_ISSUERS: usize = 64;

/// An issuer's place in [`Issuers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IssuerId(pub(crate) u16);

impl IssuerId {
    /// Its index, from 0, in the order of the file.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// One issuer and the terms under which its tokens are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// Its place.
    pub id: IssuerId,
    /// Where the file speaks of it.
    pub place: Place,
    /// `iss`, compared byte for byte (RFC 9068 section 4).
    pub issuer: String,
    /// One of these must be in `aud` (RFC 8725 section 3.9).
    pub audience: Vec<String>,
    /// The algorithms that its keys may be for; an allow-list (RFC 8725 section 3.1).
    pub algorithms: Vec<Algorithm>,
    /// The `typ` that its tokens must have (RFC 8725 section 3.11).
    pub token_types: Vec<TokenType>,
    /// Claims that must be there beyond iss, sub, aud, exp and iat.
    pub required_claims: Vec<String>,
    /// By how much its clock may be off; at most [`durward_contract::MAX_LEEWAY`].
    pub leeway: Duration,
    /// The longest `exp - iat` that is accepted.
    pub max_lifetime: Duration,
    /// What precedes each of its values in an identity header, where several issuers share one.
    pub identity_prefix: Option<String>,
    /// Whether it is the own auth service, whose tokens carry jti, client_id, sid and epoch.
    pub own: bool,
    /// Where its keys are.
    pub keys: KeySource,
}

impl Issuer {
    /// How the file and people speak of it: `auth` or the issuer itself.
    pub fn name(&self) -> &str {
        if self.own { OWN_ISSUER_NAME } else { &self.issuer }
    }
}

/// The kinds of token that may be accepted as access tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenType {
    /// `at+jwt` (RFC 9068 section 2.1).
    AccessToken,
    /// `JWT`: no effective typing (RFC 8725 section 3.11), for issuers that know no better.
    Jwt,
}

impl TokenType {
    /// Whether a header's `typ` says this type: case-insensitively, with or without `application/`
    /// (RFC 7515 section 4.1.9).
    pub fn is_said_by(self, typ: &str) -> bool {
        const PREFIX: &str = "application/";
        let said = match typ.get(..PREFIX.len()) {
            Some(start) if start.eq_ignore_ascii_case(PREFIX) => &typ[PREFIX.len()..],
            _ => typ,
        };
        said.eq_ignore_ascii_case(self.name())
    }

    /// Its name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AccessToken => durward_contract::ACCESS_TOKEN_TYPE,
            Self::Jwt => "JWT",
        }
    }
}

/// Where an issuer's keys are. The shell reads them and makes a [`crate::KeySet`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The own auth service hands its JWKS over within the process.
    Own,
    /// A JWKS at a URL, read again in the background.
    JwksUrl {
        /// `https:`, or `http:` where the operator trusts the way.
        url: String,
        /// How often it is read.
        refresh: Duration,
        /// The least time between two reads, however many unknown `kid`s arrive.
        cooldown: Duration,
        /// How long keys count that could not be read again.
        max_stale: Duration,
    },
    /// A JWKS in a file; a relative path is relative to the configuration file.
    JwksFile(PathBuf),
    /// One public key in PEM form.
    Pem {
        /// Its file; a relative path is relative to the configuration file.
        path: PathBuf,
        /// The one algorithm that it is for.
        algorithm: Algorithm,
    },
    /// A secret shared with the issuer.
    Secret {
        /// Where it is kept.
        secret: SecretRef,
        /// The one algorithm that it is for.
        algorithm: Algorithm,
    },
}

/// What the configuration's `auth` section says of the own auth service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnIssuer {
    /// Its `iss`.
    pub issuer: String,
    /// Its `aud`.
    pub audience: String,
    /// What it signs with.
    pub algorithm: Algorithm,
    /// How long it publishes a new key before it signs with it.
    pub key_announce: Duration,
    /// Whether it runs in this process and hands its keys over; elsewhere they are read from where
    /// the issuer's `jwks` says.
    pub in_process: bool,
}

/// Every issuer of the file.
#[derive(Clone, Debug, Default)]
pub struct Issuers {
    list: Vec<Issuer>,
}

impl Issuers {
    /// Compiles `issuers:`.
    pub fn compile(
        node: Option<&Node>,
        own: Option<&OwnIssuer>,
        file_place: Place,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        compile::issuers(node, own, file_place, diagnostics)
    }

    /// The issuer at a place.
    pub fn get(&self, id: IssuerId) -> Option<&Issuer> {
        self.list.get(id.index())
    }

    /// The issuer that a token names.
    pub fn by_issuer(&self, issuer: &str) -> Option<&Issuer> {
        self.list.iter().find(|candidate| candidate.issuer == issuer)
    }

    /// The issuer that the file names: `auth`, or an issuer.
    pub fn by_name(&self, name: &str) -> Option<&Issuer> {
        self.list.iter().find(|candidate| candidate.name() == name)
    }

    /// Each of them, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Issuer> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Compiles a route's `issuers:`. With one issuer configured it may be left out; with several a
    /// route that asks for a credential has to say whose (a user of one is no user of another).
    pub fn accepted(
        &self,
        node: Option<&Node>,
        route_place: Place,
        diagnostics: &mut Diagnostics,
    ) -> AcceptedIssuers {
        match node {
            Some(node) => self.named(node, diagnostics),
            None => {
                if self.list.len() > 1 {
                    let names: Vec<_> = self.iter().map(Issuer::name).collect();
                    diagnostics.error(
                        route_place,
                        "several issuers are configured and the route does not say whose tokens it accepts",
                        format!("write `issuers: [...]` with some of: {}", names.join(", ")),
                    );
                }
                AcceptedIssuers(self.iter().map(|issuer| issuer.id).collect())
            }
        }
    }

    /// Demands what keeps the users of several issuers apart in one identity header.
    pub(crate) fn check_prefixes(&self, diagnostics: &mut Diagnostics) {
        compile::check_prefixes(self, diagnostics);
    }

    fn named(&self, node: &Node, diagnostics: &mut Diagnostics) -> AcceptedIssuers {
        let mut accepted = BTreeSet::new();
        let texts = node.texts("an issuer", diagnostics);
        if node.one_or_many().is_empty() {
            diagnostics.error(node.place, "`issuers` is empty", "name at least one issuer");
        }
        for (name, item) in texts {
            match self.by_name(name) {
                Some(issuer) if !accepted.insert(issuer.id) => {
                    diagnostics.error(
                        item.place,
                        format!("issuer `{name}` is named twice"),
                        "name it once",
                    );
                }
                Some(_) => {}
                None => {
                    let names: Vec<_> = self.iter().map(Issuer::name).collect();
                    let advice = format!("write one of: {}", names.join(", "));
                    diagnostics.error(item.place, format!("no issuer is called `{name}`"), advice);
                }
            }
        }
        AcceptedIssuers(accepted.into_iter().collect())
    }
}

/// The issuers whose tokens a route accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AcceptedIssuers(Box<[IssuerId]>);

impl AcceptedIssuers {
    /// Whether it is one of them.
    pub fn contains(&self, id: IssuerId) -> bool {
        self.0.contains(&id)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = IssuerId> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::TokenType;

    #[test]
    fn a_type_is_a_media_type_with_or_without_application() {
        for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt"] {
            assert!(TokenType::AccessToken.is_said_by(typ), "{typ}");
            assert!(!TokenType::Jwt.is_said_by(typ), "{typ}");
        }
        for typ in [
            "",
            "JWT",
            "at+jwt ",
            "at-jwt",
            "application/",
            "application/application/at+jwt",
            "text/at+jwt",
            "applicati\u{f6}n/at+jwt",
        ] {
            assert!(!TokenType::AccessToken.is_said_by(typ), "{typ}");
        }
    }
}
