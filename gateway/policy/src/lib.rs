//! The access decision, pure: no runtime, no store, no clock, no I/O. The same inputs give the same
//! decision, so that it can be replayed, explained and fuzzed.
//!
//! [`decide`] is the function; [`Policy::compile`] makes the data that it works on from the
//! configuration file. The types carry the proof: `Credential` -> [`VerifiedToken`] or [`GrantedKey`]
//! -> `LivePrincipal` -> [`Permit`] -> [`IdentityHeaders`], each with private fields and made in one
//! place.
//!
//! What the shell around it brings: the request's header ([`RequestFacts`]), the keys ([`Keys`]) and
//! perhaps a cache of proofs ([`Proofs`]), the revocations ([`Revocations`]) and the time.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod api_key;
mod base64url;
mod byte_scan;
mod claim_rule;
mod client_certificate;
mod cors;
mod credential;
mod decide;
mod explain;
mod forward_limits;
mod forwarded_request;
mod host;
mod identity_headers;
mod issuer;
pub mod json;
mod key_set;
mod lookup;
mod path;
mod policy;
mod principal;
mod proxy_names;
mod quota;
mod rate_limit;
mod rejection;
mod request_facts;
mod response_headers;
mod revocation;
mod revocation_store;
mod rewrite;
mod route;
mod route_table;
mod trace;
mod verify;

pub use api_key::{
    API_KEY_ID_BYTES, API_KEY_LENGTH, API_KEY_SECRET_BYTES, ApiKey, ApiKeyFormat, GrantError, GrantStanding,
    GrantedKey, KeyDigest, MAX_SCOPE_BYTES, MAX_SCOPES, MAX_SERVICE_BYTES, is_scope, is_service_name,
};
pub use byte_scan::is_plain;
pub use claim_rule::{Params, Requirement};
pub use client_certificate::{
    CertificateName, ClientCertificate, MAX_CERTIFICATE_NAME_BYTES, MAX_CERTIFICATE_NAMES,
};
pub use cors::{Cors, Field, Preflight, preflight};
pub use credential::{Credential, CredentialKinds};
pub use decide::{Decision, Pending, Permit, Proofs, Refusal, Routed, decide};
pub use explain::{
    ExplainCredential, ExplainedStep, Explaining, Explanation, PendingExplanation, Verdict, explain,
};
pub use forward_limits::{ForwardLimits, Limit};
pub use forwarded_request::{AskingProxy, ForwardedRequest};
pub use identity_headers::{
    HeaderSink, IdentityHeaders, ServiceHeaders, StripSet, canonical, identity_header_name,
};
pub use issuer::{
    AcceptedIssuers, Algorithm, Issuer, IssuerId, Issuers, KeySource, KeyType, OwnIssuer, TokenType,
};
pub use key_set::{KeySet, KeySetError, MAX_KEY_SET_BYTES};
pub use lookup::{
    DEFAULT_LOOKUP_DEADLINE, DEFAULT_LOOKUP_RECHECK, Lookup, LookupAnswer, LookupKeys, MAX_KEY_VALUE_BYTES,
    MAX_LOOKUP_KEYS, MAX_TEMPLATE_BYTES, MAX_TEMPLATE_CLAIMS,
};
pub use policy::{Policy, PolicySections, RevocationsMode, publishes_revocations};
pub use principal::Principal;
pub use proxy_names::ProxyName;
pub use quota::{MAX_QUOTA_WINDOW, MAX_RATE, Quota, Rate, Spent, Taken, whole_seconds};
pub use rate_limit::{
    LimitBy, MAX_RATE_LIMITS, MAX_RATE_LIMITS_OF_ROUTE, RateLimit, RateLimitId, RouteRateLimits, SharedLimit,
    WhenStoreFails,
};
pub use rejection::{Challenge, Reason, Rejection};
pub use request_facts::{
    MAX_HEADER_BYTES, MAX_HEADER_FIELDS, MAX_TARGET_BYTES, MethodSet, RawRequest, RequestFacts,
};
pub use response_headers::ResponseHeaders;
pub use revocation::{
    Cause, DigestKey, NoRevocations, RevocationDigest, RevocationDigests, Revocations, Standing, barred_by,
    bites,
};
pub use rewrite::Rewrite;
pub use route::{
    Access, MAX_PARAMS, MAX_PATTERN_BYTES, MAX_PATTERN_SEGMENTS, MAX_ROUTES, Route, RouteContext, RouteId,
    UpstreamId, WhenUnknown,
};
pub use route_table::{RouteMatch, RouteParams, RouteTable};
pub use trace::{NoTrace, Outcome, Phase, Step, Trace};
pub use verify::{Keys, MAX_ID_BYTES, MAX_TOKEN_BYTES, ProofError, VerifiedToken, prove};
