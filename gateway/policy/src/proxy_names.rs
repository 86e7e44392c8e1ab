//! Names of headers that only a proxy may say: to a backend they mean what its own proxy says of a
//! request, so that a client who sends one speaks in that proxy's name.
//!
//! The one list of them. The edge takes all of them away; an answer to an asking proxy cannot, and
//! refuses the ones that would do harm.

use ProxyName::{Identity, Instead, Origin};

use crate::identity_headers::fold;

/// What a backend could learn from a header that only a proxy may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyName {
    /// Where a request comes from, or something else that passes between proxies.
    Origin,
    /// Who asks.
    Identity,
    /// Another target or method than the request's own, to act on instead.
    Instead,
}

/// In canonical spelling; one that ends with a hyphen is the beginning of names. Grouped by initial;
/// of two that fit, the first counts.
const KNOWN: [(&str, ProxyName); 46] = [
    ("cf-connecting-ip", Origin),
    ("cf-connecting-ipv6", Origin),
    ("client-ip", Origin),
    ("fastly-client-ip", Origin),
    ("forwarded", Origin),
    ("front-end-https", Origin),
    // CGI takes it for where to send requests of its own ("httpoxy", CVE-2016-5385).
    ("proxy", Origin),
    ("remote-email", Identity),
    ("remote-groups", Identity),
    ("remote-name", Identity),
    ("remote-user", Identity),
    ("ssl-client-", Identity),
    ("true-client-ip", Origin),
    ("wl-proxy-client-ip", Origin),
    ("x-accel-", Origin),
    ("x-auth-request-", Identity),
    ("x-authenticated-", Identity),
    ("x-client-cert", Identity),
    ("x-client-ip", Origin),
    ("x-cluster-client-ip", Origin),
    ("x-durward-", Origin),
    ("x-envoy-", Origin),
    ("x-forwarded", Origin),
    ("x-forwarded-access-token", Identity),
    ("x-forwarded-email", Identity),
    ("x-forwarded-groups", Identity),
    ("x-forwarded-preferred-username", Identity),
    ("x-forwarded-user", Identity),
    ("x-forwarded-", Origin),
    ("x-host", Origin),
    ("x-http-host-override", Origin),
    ("x-http-method", Instead),
    ("x-http-method-override", Instead),
    ("x-method-override", Instead),
    ("x-original-url", Instead),
    ("x-original-", Origin),
    ("x-proxyuser-ip", Origin),
    ("x-real-ip", Origin),
    ("x-remote-addr", Origin),
    ("x-remote-extra-", Identity),
    ("x-remote-group", Identity),
    ("x-remote-user", Identity),
    ("x-rewrite-url", Instead),
    ("x-rewrite-", Origin),
    ("x-ssl-client-", Identity),
    ("x-webauth-", Identity),
];

/// Where the names of each letter begin in [`KNOWN`], by the letter's place in the alphabet.
const STARTS: [u8; 27] = {
    let mut starts = [0; 27];
    let mut letter = 0;
    while letter < starts.len() {
        let mut at = 0;
        while at < KNOWN.len() && ((KNOWN[at].0.as_bytes()[0] - b'a') as usize) < letter {
            at += 1;
        }
        starts[letter] = at as u8;
        letter += 1;
    }
    starts
};

impl ProxyName {
    /// What a backend could take a header of this name for, in whatever spelling; nothing where only
    /// its sender is meant by it. Most are told by their first letter.
    pub fn of(name: &str) -> Option<Self> {
        let initial = name.bytes().next()?.to_ascii_lowercase();
        let letter = usize::from(initial.checked_sub(b'a')?);
        let (start, end) = (*STARTS.get(letter)?, *STARTS.get(letter + 1)?);
        let same_initial = KNOWN.get(usize::from(start)..usize::from(end))?;
        let known = same_initial.iter().find(|(known, _)| is(name, known.as_bytes()));
        known.map(|(_, meaning)| *meaning)
    }
}

fn is(name: &str, known: &[u8]) -> bool {
    let is_long_enough = match known.last() {
        Some(b'-') => name.len() >= known.len(),
        _ => name.len() == known.len(),
    };
    is_long_enough && name.bytes().zip(known).all(|(byte, known)| fold(byte) == *known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_every_spelling() {
        for (name, meaning) in [
            ("Forwarded", Origin),
            ("X-Forwarded", Origin),
            ("x_forwarded_for", Origin),
            ("X.Forwarded.Proto", Origin),
            ("X-Real-IP", Origin),
            ("Proxy", Origin),
            ("X-Original-URI", Origin),
            ("X-Original-URL", Instead),
            ("X_Rewrite_Url", Instead),
            ("X-HTTP-Method-Override", Instead),
            ("X-Forwarded-User", Identity),
            ("X_Forwarded_Access_Token", Identity),
            ("Remote-User", Identity),
            ("Remote.Groups", Identity),
            ("X-Remote-Extra-Scopes", Identity),
            ("X-WEBAUTH-USER", Identity),
            ("SSL_CLIENT_S_DN", Identity),
            ("x-auth-request-email", Identity),
        ] {
            assert_eq!(ProxyName::of(name), Some(meaning), "{name}");
        }
        for name in [
            "",
            "-",
            "_",
            "1",
            "{",
            "~",
            "Accept",
            "Forwarded2",
            "Remote",
            "Sec-Fetch-Mode",
            "SSL-Client",
            "Via",
            "X-Forward",
            "X-Forwarde",
            "X-Real-Ip2",
            "X-User-Id",
            "Z",
        ] {
            assert_eq!(ProxyName::of(name), None, "{name}");
        }
    }

    #[test]
    fn every_name_of_the_list_is_found_as_what_it_is() {
        for (name, meaning) in KNOWN {
            assert!(name.bytes().all(|byte| fold(byte) == byte), "{name} is canonical");
            let whole = name.replace('-', "_") + if name.ends_with('-') { "z" } else { "" };
            assert_eq!(ProxyName::of(&whole), Some(meaning), "{whole}");
        }
        let initials = KNOWN.map(|(name, _)| name.as_bytes()[0]);
        assert!(initials.is_sorted());
    }
}
