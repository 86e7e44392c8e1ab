//! Reading what `revocations:` says in `mode: lookup`.

use std::ops::RangeInclusive;
use std::time::Duration;

use durward_config::{Diagnostics, Node, Place, Section, Value};
use durward_contract::claim;

use super::{
    DEFAULT_LOOKUP_DEADLINE, DEFAULT_LOOKUP_RECHECK, KeyTemplate, Lookup, MAX_LOOKUP_KEYS,
    MAX_TEMPLATE_BYTES, MAX_TEMPLATE_CLAIMS, Part, cause_of,
};
use crate::claim_rule::ClaimPath;
use crate::revocation_store::RevocationStore;
use crate::route::WhenUnknown;

const DEADLINE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(1);
const RECHECK: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

const STORE_ADVICE: &str = "write `store: redis://HOST:PORT`";
const KEYS_ADVICE: &str = "write `keys: [\"blocklist:{jti}\", \"banned:{sub}\"]`";

/// What of the file around it matters to the section.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings {
    /// Whether the auth service runs in the same process.
    pub(crate) auth_in_process: bool,
    /// Whether the gateway accepts tokens of the file's own auth service, wherever that runs.
    pub(crate) own_issuer: bool,
    /// How many issuers there are.
    pub(crate) issuers: usize,
}

/// Reads the rest of a section whose `mode` is `lookup`. Reports and yields nothing where a part is
/// missing or wrong.
pub(crate) fn lookup_section(
    section: &mut Section<'_>,
    around: Surroundings,
    diagnostics: &mut Diagnostics,
) -> Option<Lookup> {
    let place = section.place();
    // Where exactly it is, whoever connects reads.
    let store = section
        .required("store", STORE_ADVICE, diagnostics)
        .and_then(|node| redis_store(node, diagnostics));
    let options = section.optional("redis");
    if let Some(Value::Map(entries)) = options.map(|node| &node.value)
        && let Some(entry) = entries.iter().find(|entry| entry.key == "namespace")
    {
        let message = "`namespace` is of the mirror: the keys of `mode: lookup` are written out whole";
        diagnostics.error(entry.place, message, "write what they begin with in `keys`");
    }
    let templates = section
        .required("keys", KEYS_ADVICE, diagnostics)
        .and_then(|node| templates(node, around, diagnostics));
    let deadline = duration(
        section,
        "deadline",
        DEADLINE,
        DEFAULT_LOOKUP_DEADLINE,
        diagnostics,
    );
    let recheck = duration(section, "recheck", RECHECK, DEFAULT_LOOKUP_RECHECK, diagnostics);
    if let Some(node) = section.optional("max_staleness") {
        let advice = "write `deadline` for a request and `recheck` for what is open, or remove it";
        diagnostics.error(
            node.place,
            "`max_staleness` is of the mirror, and `mode: lookup` has none",
            advice,
        );
    }
    if let Some(node) = section.optional("when_unknown")
        && let Some(WhenUnknown::AllowFor(_)) = WhenUnknown::compile(node, diagnostics)
    {
        refuse_allowance(node.place, diagnostics);
    }
    let ignored = section
        .optional("ignore_own_bans")
        .and_then(|node| node.boolean("`ignore_own_bans`", diagnostics));
    if around.own_issuer && ignored != Some(true) {
        let message =
            "in `mode: lookup` the gateway does not hear of the bans and logouts of the `auth` section";
        let advice = "write `store: embedded` without `mode`, or `ignore_own_bans: true` to accept that";
        diagnostics.error(place, message, advice);
    }
    store?;
    Some(Lookup {
        templates: templates?,
        deadline: deadline?,
        recheck: recheck?,
    })
}

/// Nothing else can be asked for a key.
fn redis_store(node: &Node, diagnostics: &mut Diagnostics) -> Option<()> {
    match RevocationStore::compile(node, diagnostics)? {
        RevocationStore::Redis => Some(()),
        RevocationStore::Embedded => {
            let message = "`mode: lookup` asks a Redis, and `store: embedded` is none";
            let advice = "write `store: redis://HOST:PORT`, or `mode: mirror`";
            diagnostics.error(node.place, message, advice);
            None
        }
    }
}

/// The gateway keeps no answers, so that it knows nothing of anybody while the store is away: an
/// allowance would let in what the store has listed for long.
pub(crate) fn refuse_allowance(place: Place, diagnostics: &mut Diagnostics) {
    let message = "`allow_for` has nothing to count on in `mode: lookup`: no answer is kept";
    let advice = "write `when_unknown: refuse`, or follow the store's news instead of asking it";
    diagnostics.error(place, message, advice);
}

fn duration(
    section: &mut Section<'_>,
    key: &'static str,
    range: RangeInclusive<Duration>,
    default: Duration,
    diagnostics: &mut Diagnostics,
) -> Option<Duration> {
    match section.optional(key) {
        Some(node) => node.duration(&format!("`{key}`"), range, diagnostics),
        None => Some(default),
    }
}

fn templates(node: &Node, around: Surroundings, diagnostics: &mut Diagnostics) -> Option<Vec<KeyTemplate>> {
    let items = node.list("`keys`", diagnostics)?;
    if items.is_empty() || items.len() > MAX_LOOKUP_KEYS {
        let message = format!("`keys` has {} templates", items.len());
        let advice = format!("{KEYS_ADVICE}, from 1 to {MAX_LOOKUP_KEYS} of them");
        diagnostics.error(node.place, message, advice);
        return None;
    }
    let mut found: Vec<KeyTemplate> = Vec::new();
    let mut whole = true;
    for item in items {
        let Some(template) = template(item, diagnostics) else {
            whole = false;
            continue;
        };
        if found.iter().any(|other| other.parts == template.parts) {
            let message = format!("`{template}` stands in `keys` for the second time");
            diagnostics.error(item.place, message, "remove one of them");
            whole = false;
        }
        if around.issuers > 1 && !template.claims().any(|claim| claim.is_just(claim::ISSUER)) {
            let message = format!("`{template}` does not tell the issuers apart");
            let advice = "write `{iss}` in it: whoever is listed for one issuer is refused for all";
            diagnostics.warning(item.place, message, advice);
        }
        found.push(template);
    }
    whole.then_some(found)
}

fn template(node: &Node, diagnostics: &mut Diagnostics) -> Option<KeyTemplate> {
    let text = node.text("a key template", diagnostics)?;
    let parts = match parts(text) {
        Ok(parts) => parts,
        Err(problem) => {
            let advice = "write literal text and claims in braces, like \"blocklist:{jti}\"";
            diagnostics.error(node.place, format!("`{text}` {problem}"), advice);
            return None;
        }
    };
    let claims = parts.iter().filter_map(|part| match part {
        Part::Literal(_) => None,
        Part::Claim(claim) => Some(claim),
    });
    Some(KeyTemplate {
        cause: cause_of(claims),
        parts,
        place: node.place,
    })
}

/// The parts of a template, or what is wrong with it.
fn parts(text: &str) -> Result<Vec<Part>, String> {
    if text.len() > MAX_TEMPLATE_BYTES {
        return Err(format!("is longer than {MAX_TEMPLATE_BYTES} bytes"));
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(['{', '}']).unwrap_or(rest.len());
        let (literal, after) = rest.split_at(end);
        if !literal.is_empty() {
            parts.push(literal_part(literal)?);
        }
        if after.is_empty() {
            break;
        }
        let (name, after) = after
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'))
            .ok_or("has a brace without its other half")?;
        parts.push(Part::Claim(placeholder(name)?));
        rest = after;
    }
    match parts.iter().filter(|part| matches!(part, Part::Claim(_))).count() {
        0 => Err("names no claim: it would be the same key for everybody".to_owned()),
        count if count > MAX_TEMPLATE_CLAIMS => Err(format!("names more than {MAX_TEMPLATE_CLAIMS} claims")),
        _ => Ok(parts),
    }
}

fn literal_part(text: &str) -> Result<Part, String> {
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("has a space, a control or a non-ASCII character".to_owned());
    }
    Ok(Part::Literal(text.to_owned()))
}

fn placeholder(name: &str) -> Result<ClaimPath, String> {
    let clean = !name.is_empty() && name.chars().all(|c| !c.is_control() && c != '{' && c != ' ');
    ClaimPath::new(name)
        .filter(|_| clean)
        .ok_or_else(|| format!("has `{{{}}}`, which names no claim", name.escape_debug()))
}
