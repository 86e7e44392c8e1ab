//! How a request would be decided, step by step, by the running policy, keys and revocations.

use std::path::Path;

use durward_contract::UnixSeconds;
use durward_policy::{
    ExplainCredential, Explaining, Explanation, Keys, NoRevocations, Policy, RawRequest, RequestFacts,
    Revocations,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header};

use crate::clock;
use crate::issuer_keys::IssuerKeys;
use crate::proxy::Shared;

/// A request to explain.
#[derive(Clone, Debug, Default)]
pub struct ExplainRequest {
    /// The method.
    pub method: String,
    /// An absolute URL, or a target that begins with `/`.
    pub url: String,
    /// Headers, in order.
    pub headers: Vec<(String, String)>,
    /// A bearer token.
    pub token: Option<String>,
    /// An API key.
    pub api_key: Option<String>,
    /// Claims to assume as proved, as a JSON object.
    pub claims: Option<String>,
    /// The time to decide as of; now if absent.
    pub at: Option<UnixSeconds>,
}

/// Explains by what is running. The error says what of the request makes no sense.
pub(crate) async fn explain(shared: &Shared, request: &ExplainRequest) -> Result<Explanation, String> {
    let generation = shared.current();
    let keys = &**generation.proofs.keys();
    match explain_by(&generation.policy, keys, &shared.known, request)? {
        Explaining::Done(explanation) => Ok(explanation),
        Explaining::Pending(pending) => {
            let answer = shared.known.ask(pending.keys()).await;
            Ok(pending.conclude(&answer))
        }
    }
}

/// Reads every key that is a file, as a start would. The error says which cannot be used, and why.
pub fn check_keys(policy: &Policy, base: &Path) -> Result<(), String> {
    IssuerKeys::new(policy, base).map(drop)
}

/// Explains by a configuration file alone: keys are read where they are files, no store is asked, and
/// nothing is taken to be revoked. `base` is the configuration file's folder.
pub fn explain_offline(
    policy: &Policy,
    base: &Path,
    request: &ExplainRequest,
) -> Result<Explanation, String> {
    let keys = IssuerKeys::new(policy, base)?;
    explain_by(policy, &keys, &NoRevocations, request).map(Explaining::unasked)
}

fn explain_by<'p>(
    policy: &'p Policy,
    keys: &dyn Keys,
    revocations: &impl Revocations,
    request: &ExplainRequest,
) -> Result<Explaining<'p>, String> {
    let method: Method = request
        .method
        .parse()
        .map_err(|_| format!("`{}` is not a method", request.method))?;
    let (target, host) = split_url(&request.url)?;
    let headers = headers(request, host)?;
    let raw = RawRequest {
        method: &method,
        target: target.as_bytes(),
        authority: None,
        version: Version::HTTP_11,
        headers: &headers,
    };
    let facts = match RequestFacts::judge(raw) {
        Ok(facts) => facts,
        Err(rejection) => return Ok(Explaining::Done(Explanation::of_unclean(&rejection))),
    };
    let credential = match &request.claims {
        Some(claims) => ExplainCredential::AssumedClaims(claims),
        None => ExplainCredential::FromRequest { keys },
    };
    let now = request.at.unwrap_or_else(|| clock::unix_seconds(clock::wall()));
    Ok(durward_policy::explain(
        policy,
        &facts,
        credential,
        revocations,
        now,
    ))
}

/// Target and authority of a URL. Only its beginning is taken off, so that what is explained is what
/// would be sent.
fn split_url(url: &str) -> Result<(String, Option<String>), String> {
    if url.starts_with('/') {
        return Ok((url.to_owned(), None));
    }
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme));
    let rest = rest.ok_or_else(|| format!("`{url}` is neither an http URL nor a path"))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    let parsed = authority
        .parse::<Uri>()
        .ok()
        .and_then(|uri| uri.authority().cloned());
    if parsed.is_none() {
        return Err(format!("`{authority}` is not a host"));
    }
    let target = if target.starts_with('/') {
        target.to_owned()
    } else {
        format!("/{target}")
    };
    Ok((target, Some(authority.to_owned())))
}

fn headers(request: &ExplainRequest, host: Option<String>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let name: HeaderName = name
            .parse()
            .map_err(|_| format!("`{name}` is not a header name"))?;
        let value: HeaderValue = value
            .parse()
            .map_err(|_| format!("the value of {name} is not a header value"))?;
        headers.append(name, value);
    }
    if !headers.contains_key(header::HOST) {
        let host = host.unwrap_or_else(|| "localhost".into());
        headers.insert(
            header::HOST,
            host.parse().map_err(|_| format!("`{host}` is not a host"))?,
        );
    }
    if let Some(token) = &request.token {
        let value = format!("Bearer {token}")
            .parse()
            .map_err(|_| "the token is not a header value")?;
        headers.append(header::AUTHORIZATION, value);
    }
    if let Some(key) = &request.api_key {
        let value = key.parse().map_err(|_| "the API key is not a header value")?;
        headers.append(HeaderName::from_static("x-api-key"), value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split_and_not_tidied() {
        for (url, target, host) in [
            ("/a/../b?x#y", "/a/../b?x#y", None),
            ("http://h:1/a%2Fb", "/a%2Fb", Some("h:1")),
            ("https://h", "/", Some("h")),
            ("https://h?x", "/?x", Some("h")),
        ] {
            assert_eq!(
                split_url(url).unwrap(),
                (target.to_owned(), host.map(str::to_owned)),
                "{url}"
            );
        }
        for bad in ["", "a/b", "ftp://h/", "http:///a", "http://a b/"] {
            assert!(split_url(bad).is_err(), "{bad}");
        }
    }
}
