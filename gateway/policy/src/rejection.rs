//! Why a request is refused: one closed vocabulary, one table to the wire.
//!
//! The code of a [`Reason`] is the same in the response body, the access log, the metrics and
//! `docs/REASONS.md`. A [`Rejection`] adds the cause, which only the log may see.

use std::borrow::Cow;
use std::fmt;

use http::StatusCode;

use crate::quota::Spent;

/// Declares the vocabulary once: the enum, its list and its codes cannot differ.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal,)+) => {
        /// Why a request is refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason, in the order of a request's way.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word for it in bodies, logs, metrics and docs.
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)+
                }
            }
        }
    };
}

reasons! {
    /// The request target is not one (RFC 9112 section 3.2).
    BadTarget = "bad_target",
    /// Host is missing, doubled, malformed or contradicts the target (RFC 9112 section 3.2).
    BadHost = "bad_host",
    /// The host is one that is not served on this connection (RFC 9110 section 15.5.20).
    Misdirected = "misdirected",
    /// The method is not a method name, or one that a proxy for origin servers does not carry.
    BadMethod = "bad_method",
    /// The HTTP version is not spoken here.
    BadVersion = "bad_version",
    /// Content-Length and Transfer-Encoding do not frame the body beyond doubt (RFC 9112 section 6).
    BadFraming = "bad_framing",
    /// The transfer coding is not known (RFC 9112 section 6.1).
    UnknownTransferCoding = "unknown_transfer_coding",
    /// A header field's name or value holds what it must not (RFC 9110 section 5).
    BadHeader = "bad_header",
    /// The header section is too large (RFC 6585 section 5).
    HeaderTooLarge = "header_too_large",
    /// The request target is too long (RFC 9110 section 15.5.15).
    UriTooLong = "uri_too_long",
    /// The request body is too large (RFC 9110 section 15.5.14).
    BodyTooLarge = "body_too_large",
    /// An expectation other than `100-continue` (RFC 9110 section 10.1.1).
    ExpectationFailed = "expectation_failed",
    /// The header section did not arrive in time.
    HeaderTimeout = "header_timeout",
    /// The body did not arrive in time.
    BodyTimeout = "body_timeout",
    /// No route matches: no route, no access.
    NoRoute = "no_route",
    /// The route that matches does not list the method.
    MethodNotAllowed = "method_not_allowed",
    /// Readings of the path select different routes or give a rule different parameters.
    AmbiguousPath = "ambiguous_path",
    /// The route asks for a credential and the request has none.
    NoCredential = "no_credential",
    /// The request has more than one credential (RFC 6750 section 2).
    SeveralCredentials = "several_credentials",
    /// The credential is not of the form that its scheme has (RFC 6750 section 2.1).
    MalformedCredential = "malformed_credential",
    /// The scheme of the Authorization header is not accepted.
    UnsupportedScheme = "unsupported_scheme",
    /// The route does not accept credentials of this kind.
    CredentialNotAccepted = "credential_not_accepted",
    /// The API key is not of the form that keys have, or its checksum is wrong.
    ApiKeyMalformed = "api_key_malformed",
    /// Nobody holds this API key: it was never given, or its grant has ended.
    ApiKeyUnknown = "api_key_unknown",
    /// The API key's time has passed.
    ApiKeyExpired = "api_key_expired",
    /// Nobody was granted a name of the client certificate, or its grant has ended.
    CertificateUnknown = "certificate_unknown",
    /// The client certificate's time has passed since the connection was opened.
    CertificateExpired = "certificate_expired",
    /// The credential is in the query (RFC 9700 section 4.3.2).
    CredentialInQuery = "credential_in_query",
    /// Too many credentials from this client's address have failed lately.
    TooManyFailures = "too_many_failures",
    /// The token is larger than any that is accepted.
    TokenTooLarge = "token_too_large",
    /// The token is not a JWS in compact form with a JSON header and JSON claims.
    TokenMalformed = "token_malformed",
    /// The token's `typ` is absent or another kind of token's (RFC 8725 section 3.11).
    TokenType = "token_type",
    /// The token's header asks for what is not understood or not trusted (`crit`, `b64`, `jku`, ...).
    TokenHeader = "token_header",
    /// The token's `alg` is not the one that its key is for (RFC 8725 section 3.1).
    TokenAlgorithm = "token_algorithm",
    /// The token's issuer is not configured.
    UnknownIssuer = "unknown_issuer",
    /// The issuer has no key of the token's `kid`.
    UnknownKey = "unknown_key",
    /// The issuer's keys have not been read yet.
    KeysUnavailable = "keys_unavailable",
    /// The signature is not the key's over these bytes.
    BadSignature = "bad_signature",
    /// A claim that the issuer's tokens must have is absent.
    ClaimMissing = "claim_missing",
    /// A claim has the wrong type or an impossible value.
    ClaimInvalid = "claim_invalid",
    /// The token is not meant for this audience (RFC 8725 section 3.9).
    WrongAudience = "wrong_audience",
    /// The token claims to live longer than the issuer's tokens may.
    TokenLifetime = "token_lifetime",
    /// The token's issuer is not one that the route accepts.
    IssuerNotAccepted = "issuer_not_accepted",
    /// The token's time has passed.
    TokenExpired = "token_expired",
    /// The token's time has not come: `nbf` or `iat` lies ahead.
    TokenNotYetValid = "token_not_yet_valid",
    /// The token, its session, its user or its client has been revoked.
    Revoked = "revoked",
    /// Whether it is revoked is not known, and the route refuses then.
    RevocationUnknown = "revocation_unknown",
    /// The token's `scope` does not hold what the route requires (RFC 6750 section 3.1).
    InsufficientScope = "insufficient_scope",
    /// The token's claims are not those that the route requires.
    RuleRefused = "rule_refused",
    /// A claim cannot be said in the identity header that it is configured for.
    IdentityUnusable = "identity_unusable",
    /// The client has used up a rate limit of the route.
    RateLimited = "rate_limited",
    /// The rate limits that gateways share cannot be asked for, and this one refuses then.
    RateLimitUnknown = "rate_limit_unknown",
    /// The gateway is shutting down.
    Draining = "draining",
    /// A limit of the gateway is reached.
    Overloaded = "overloaded",
    /// No server of the upstream can be reached.
    UpstreamUnavailable = "upstream_unavailable",
    /// No server of the upstream accepted a connection in time.
    UpstreamConnectTimeout = "upstream_connect_timeout",
    /// The upstream's response did not begin in time.
    UpstreamFirstByteTimeout = "upstream_first_byte_timeout",
    /// The upstream fell silent: it neither sent nor took a piece in time.
    UpstreamTimeout = "upstream_timeout",
    /// The upstream's response did not end in time.
    UpstreamTotalTimeout = "upstream_total_timeout",
    /// No TLS came about with the upstream: its certificate is not accepted, or the gateway's is not.
    UpstreamTls = "upstream_tls",
    /// The upstream's answer is not HTTP.
    UpstreamInvalid = "upstream_invalid",
    /// A fault of the gateway's own.
    Internal = "internal",
}

impl Reason {
    /// The status of the response.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadTarget
            | Self::BadHost
            | Self::BadFraming
            | Self::BadHeader
            | Self::AmbiguousPath
            | Self::SeveralCredentials => StatusCode::BAD_REQUEST,
            Self::NoCredential
            | Self::MalformedCredential
            | Self::UnsupportedScheme
            | Self::ApiKeyMalformed
            | Self::ApiKeyUnknown
            | Self::ApiKeyExpired
            | Self::CertificateUnknown
            | Self::CertificateExpired
            | Self::CredentialInQuery
            | Self::TokenTooLarge
            | Self::TokenMalformed
            | Self::TokenType
            | Self::TokenHeader
            | Self::TokenAlgorithm
            | Self::UnknownIssuer
            | Self::UnknownKey
            | Self::BadSignature
            | Self::ClaimMissing
            | Self::ClaimInvalid
            | Self::WrongAudience
            | Self::TokenLifetime
            | Self::IssuerNotAccepted
            | Self::TokenExpired
            | Self::TokenNotYetValid
            | Self::Revoked => StatusCode::UNAUTHORIZED,
            Self::CredentialNotAccepted
            | Self::InsufficientScope
            | Self::RuleRefused
            | Self::IdentityUnusable => StatusCode::FORBIDDEN,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeaderTimeout | Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooManyFailures | Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::BadMethod | Self::UnknownTransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::UpstreamInvalid | Self::UpstreamTls => StatusCode::BAD_GATEWAY,
            Self::KeysUnavailable
            | Self::RevocationUnknown
            | Self::RateLimitUnknown
            | Self::Draining
            | Self::Overloaded
            | Self::UpstreamUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamConnectTimeout
            | Self::UpstreamFirstByteTimeout
            | Self::UpstreamTimeout
            | Self::UpstreamTotalTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::BadVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        }
    }

    /// The challenge that goes with it (RFC 6750 section 3). Every 401 has one (RFC 9110 section
    /// 15.5.2); where no credential of a kind that is known here was sent it names no error.
    pub const fn challenge(self) -> Option<Challenge> {
        match self {
            // RFC 6750 has no error for a key that is no bearer token.
            Self::NoCredential
            | Self::UnsupportedScheme
            | Self::ApiKeyMalformed
            | Self::ApiKeyUnknown
            | Self::ApiKeyExpired
            | Self::CertificateUnknown
            | Self::CertificateExpired
            | Self::CredentialInQuery => Some(Challenge::Bare),
            Self::SeveralCredentials => Some(Challenge::InvalidRequest),
            Self::MalformedCredential
            | Self::TokenTooLarge
            | Self::TokenMalformed
            | Self::TokenType
            | Self::TokenHeader
            | Self::TokenAlgorithm
            | Self::UnknownIssuer
            | Self::UnknownKey
            | Self::BadSignature
            | Self::ClaimMissing
            | Self::ClaimInvalid
            | Self::WrongAudience
            | Self::TokenLifetime
            | Self::IssuerNotAccepted
            | Self::TokenExpired
            | Self::TokenNotYetValid
            | Self::Revoked => Some(Challenge::InvalidToken),
            Self::InsufficientScope | Self::RuleRefused => Some(Challenge::InsufficientScope),
            Self::BadTarget
            | Self::BadHost
            | Self::Misdirected
            | Self::BadMethod
            | Self::BadVersion
            | Self::BadFraming
            | Self::UnknownTransferCoding
            | Self::BadHeader
            | Self::HeaderTooLarge
            | Self::UriTooLong
            | Self::BodyTooLarge
            | Self::ExpectationFailed
            | Self::HeaderTimeout
            | Self::BodyTimeout
            | Self::NoRoute
            | Self::MethodNotAllowed
            | Self::AmbiguousPath
            | Self::CredentialNotAccepted
            | Self::TooManyFailures
            | Self::KeysUnavailable
            | Self::RevocationUnknown
            | Self::IdentityUnusable
            | Self::RateLimited
            | Self::RateLimitUnknown
            | Self::Draining
            | Self::Overloaded
            | Self::UpstreamUnavailable
            | Self::UpstreamConnectTimeout
            | Self::UpstreamFirstByteTimeout
            | Self::UpstreamTimeout
            | Self::UpstreamTotalTimeout
            | Self::UpstreamTls
            | Self::UpstreamInvalid
            | Self::Internal => None,
        }
    }

    /// A sentence for the client. For a bad token it says no more than that: which check failed is
    /// the reason code's to say, and everything beyond is for the log.
    pub const fn title(self) -> &'static str {
        match self {
            Self::BadTarget => "The request target is not valid",
            Self::BadHost => "The Host of the request is missing or not valid",
            Self::Misdirected => "The host is not served on this connection",
            Self::BadMethod => "The method is not supported",
            Self::BadVersion => "The HTTP version is not supported",
            Self::BadFraming => "The length of the request body is not beyond doubt",
            Self::UnknownTransferCoding => "The transfer coding is not supported",
            Self::BadHeader => "A header field is not valid",
            Self::HeaderTooLarge => "The header section is too large",
            Self::UriTooLong => "The request target is too long",
            Self::BodyTooLarge => "The request body is too large",
            Self::ExpectationFailed => "The expectation is not supported",
            Self::HeaderTimeout => "The header section did not arrive in time",
            Self::BodyTimeout => "The request body did not arrive in time",
            Self::NoRoute => "Nothing is served here",
            Self::MethodNotAllowed => "The method is not allowed here",
            Self::AmbiguousPath => "The path can be read in more than one way",
            Self::NoCredential => "A credential is required",
            Self::SeveralCredentials => "The request has more than one credential",
            Self::MalformedCredential => "The credential is malformed",
            Self::UnsupportedScheme => "The authentication scheme is not supported",
            Self::CredentialNotAccepted => "A credential of this kind is not accepted here",
            Self::ApiKeyMalformed | Self::ApiKeyUnknown => "The API key is not accepted",
            Self::ApiKeyExpired => "The API key has expired",
            Self::CertificateUnknown => "The client certificate is not accepted",
            Self::CertificateExpired => "The client certificate has expired",
            Self::CredentialInQuery => "A credential in the query is not accepted",
            Self::TooManyFailures => "Too many credentials from this address have failed",
            Self::TokenTooLarge
            | Self::TokenMalformed
            | Self::TokenType
            | Self::TokenHeader
            | Self::TokenAlgorithm
            | Self::UnknownIssuer
            | Self::UnknownKey
            | Self::BadSignature
            | Self::ClaimMissing
            | Self::ClaimInvalid
            | Self::WrongAudience
            | Self::TokenLifetime
            | Self::IssuerNotAccepted => "The token is not accepted",
            Self::TokenExpired => "The token has expired",
            Self::TokenNotYetValid => "The token is not valid yet",
            Self::Revoked => "The credential has been revoked",
            Self::KeysUnavailable | Self::RevocationUnknown => "The credential cannot be checked at present",
            Self::InsufficientScope | Self::RuleRefused => "The credential does not permit this",
            Self::IdentityUnusable => "The identity cannot be passed on",
            Self::RateLimited => "Too many requests",
            Self::RateLimitUnknown => "The rate limit cannot be checked at present",
            Self::Draining => "The gateway is shutting down",
            Self::Overloaded => "The gateway is overloaded",
            Self::UpstreamUnavailable => "The upstream is not available",
            Self::UpstreamConnectTimeout
            | Self::UpstreamFirstByteTimeout
            | Self::UpstreamTimeout
            | Self::UpstreamTotalTimeout => "The upstream did not answer in time",
            Self::UpstreamTls => "The upstream cannot be trusted",
            Self::UpstreamInvalid => "The upstream's answer is not valid",
            Self::Internal => "The gateway has failed",
        }
    }

    /// Whether such a credential is one that nobody was given: a guess, a forgery, or another party's.
    /// These are what the limit on failures counts. One whose time has passed, that was revoked or that
    /// does not suffice was somebody's, and is none.
    pub const fn is_failed_credential(self) -> bool {
        matches!(
            self,
            Self::MalformedCredential
                | Self::ApiKeyMalformed
                | Self::ApiKeyUnknown
                | Self::TokenTooLarge
                | Self::TokenMalformed
                | Self::TokenType
                | Self::TokenHeader
                | Self::TokenAlgorithm
                | Self::UnknownIssuer
                | Self::UnknownKey
                | Self::BadSignature
                | Self::ClaimMissing
                | Self::ClaimInvalid
                | Self::WrongAudience
                | Self::TokenLifetime
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// The WWW-Authenticate header of a refusal (RFC 6750 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Challenge {
    /// No error: nothing was sent that could be in error.
    Bare,
    /// The request is malformed.
    InvalidRequest,
    /// The token is expired, revoked, malformed or invalid.
    InvalidToken,
    /// The token does not carry the privilege.
    InsufficientScope,
}

impl Challenge {
    /// The error code of RFC 6750 section 3.1, or nothing.
    pub const fn error(self) -> Option<&'static str> {
        match self {
            Self::Bare => None,
            Self::InvalidRequest => Some("invalid_request"),
            Self::InvalidToken => Some("invalid_token"),
            Self::InsufficientScope => Some("insufficient_scope"),
        }
    }

    /// The header's value. Section 3 asks for at least one parameter, hence the realm.
    pub const fn header_value(self) -> &'static str {
        match self {
            Self::Bare => r#"Bearer realm="durward""#,
            Self::InvalidRequest => r#"Bearer realm="durward", error="invalid_request""#,
            Self::InvalidToken => r#"Bearer realm="durward", error="invalid_token""#,
            Self::InsufficientScope => r#"Bearer realm="durward", error="insufficient_scope""#,
        }
    }
}

/// A refusal: the reason, which the client learns, and the cause, which only the log does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The row of the table.
    pub reason: Reason,
    /// What exactly was wrong, for the log. Never holds token bytes, and never goes to the client.
    pub cause: Cow<'static, str>,
    /// The methods that the Allow header lists: for a 405 only (RFC 9110 section 15.5.6).
    pub allow: Option<String>,
    /// After how many seconds to try again: for a 429 only (RFC 6585 section 4).
    pub retry_after: Option<u32>,
}

impl Rejection {
    /// A refusal with its cause.
    pub fn new(reason: Reason, cause: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reason,
            cause: cause.into(),
            allow: None,
            retry_after: None,
        }
    }

    /// The refusal of a method, with the list that the Allow header carries.
    pub fn method_not_allowed(allow: impl Into<String>) -> Self {
        Self {
            reason: Reason::MethodNotAllowed,
            cause: Cow::Borrowed("the route does not list the method"),
            allow: Some(allow.into()),
            retry_after: None,
        }
    }

    /// The refusal of a client that has spent a quota.
    pub fn spent(reason: Reason, cause: impl Into<Cow<'static, str>>, spent: Spent) -> Self {
        Self {
            retry_after: Some(spent.retry_after()),
            ..Self::new(reason, cause)
        }
    }

    /// The content type of [`Rejection::problem`] (RFC 9457 section 3).
    pub const PROBLEM_TYPE: &'static str = "application/problem+json";

    /// The response body: problem details (RFC 9457) with the reason as an extension member. The
    /// cause is not in it.
    pub fn problem(&self) -> String {
        let status = self.reason.status();
        format!(
            r#"{{"type":"about:blank","title":"{}","status":{},"detail":"{}.","reason":"{}"}}"#,
            status.canonical_reason().unwrap_or("Error"),
            status.as_u16(),
            self.reason.title(),
            self.reason.code(),
        )
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.cause)
    }
}

impl std::error::Error for Rejection {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_words_and_unique() {
        let codes: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for code in codes {
            assert!(
                code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{code}"
            );
        }
    }

    #[test]
    fn every_401_has_a_challenge_and_errors_go_with_their_status() {
        for reason in Reason::ALL {
            let (status, challenge) = (reason.status(), reason.challenge());
            assert!(status.is_client_error() || status.is_server_error(), "{reason}");
            assert!(
                status != StatusCode::UNAUTHORIZED || challenge.is_some(),
                "{reason}"
            );
            let expected = match challenge.and_then(Challenge::error) {
                None => continue,
                Some("invalid_request") => StatusCode::BAD_REQUEST,
                Some("invalid_token") => StatusCode::UNAUTHORIZED,
                Some("insufficient_scope") => StatusCode::FORBIDDEN,
                Some(other) => panic!("{other} is no error of RFC 6750"),
            };
            assert_eq!(status, expected, "{reason}");
        }
    }

    #[test]
    fn only_a_credential_that_was_looked_at_has_failed() {
        for reason in Reason::ALL.iter().filter(|reason| reason.is_failed_credential()) {
            assert_eq!(reason.status(), StatusCode::UNAUTHORIZED, "{reason}");
        }
        for reason in [
            Reason::NoCredential,
            Reason::TooManyFailures,
            Reason::TokenExpired,
            Reason::Revoked,
            Reason::KeysUnavailable,
        ] {
            assert!(!reason.is_failed_credential(), "{reason}");
        }
    }

    #[test]
    fn the_body_is_json_with_the_reason_and_without_the_cause() {
        for reason in Reason::ALL {
            let body = Rejection::new(*reason, "SECRET").problem();
            let value: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(value["reason"], reason.code());
            assert_eq!(value["status"], reason.status().as_u16());
            assert!(!body.contains("SECRET"), "{body}");
        }
    }
}
