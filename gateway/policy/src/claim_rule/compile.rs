//! Reading `require:`.

use durward_config::{Diagnostics, Entry as ConfigEntry, Node, Value};

use super::{ClaimPath, Entry, Group, Requirement, SCOPE, Wanted};

/// The key that lists alternatives.
const ANY: &str = "any";
/// How deeply `any` may nest.
const MAX_NESTING: usize = 4;

impl Requirement {
    /// Compiles `require:` of a route whose pattern has the parameters `param_names`. Reports and
    /// yields nothing where it cannot be compiled, so that a mistake never weakens a rule.
    pub fn compile(
        node: &Node,
        param_names: &[impl AsRef<str>],
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let names: Vec<&str> = param_names.iter().map(AsRef::as_ref).collect();
        requirement(node, &names, MAX_NESTING, diagnostics)
    }
}

fn requirement(
    node: &Node,
    names: &[&str],
    nesting: usize,
    diagnostics: &mut Diagnostics,
) -> Option<Requirement> {
    let config = node.entries("`require`", diagnostics)?;
    if config.is_empty() {
        diagnostics.error(
            node.place,
            "`require` is empty and requires nothing",
            "name a claim, or remove it",
        );
        return None;
    }
    let mut whole = true;
    let mut requirement = Requirement::default();
    for entry in config {
        if entry.key == ANY {
            match group(entry, names, nesting, diagnostics) {
                Some(group) => requirement.groups.push(group),
                None => whole = false,
            }
        } else {
            match claim(entry, names, diagnostics) {
                Some(entry) => requirement.entries.push(entry),
                None => whole = false,
            }
        }
    }
    whole.then_some(requirement)
}

fn group(
    entry: &ConfigEntry,
    names: &[&str],
    nesting: usize,
    diagnostics: &mut Diagnostics,
) -> Option<Group> {
    let advice = "write `any: [{ roles: admin }, { sub: \"{owner}\" }]`";
    let items = entry.node.list("`any`", diagnostics)?;
    if items.is_empty() || nesting == 0 {
        let problem = if items.is_empty() {
            "is empty"
        } else {
            "is nested too deeply"
        };
        diagnostics.error(entry.place, format!("`any` {problem}"), advice);
        return None;
    }
    let alternatives: Vec<_> = items
        .iter()
        .map(|item| requirement(item, names, nesting - 1, diagnostics))
        .collect();
    Some(Group {
        place: entry.place,
        alternatives: alternatives.into_iter().collect::<Option<_>>()?,
    })
}

fn claim(entry: &ConfigEntry, names: &[&str], diagnostics: &mut Diagnostics) -> Option<Entry> {
    let Some(claim) = ClaimPath::new(&entry.key) else {
        let message = format!("`{}` is no name of a claim", entry.key);
        diagnostics.error(
            entry.place,
            message,
            "write it as `roles`, or as `realm_access.roles` where it is nested",
        );
        return None;
    };
    let items = entry.node.one_or_many();
    if items.is_empty() {
        let advice = "list the values of which one is enough";
        diagnostics.error(
            entry.node.place,
            format!("no value of `{claim}` would do"),
            advice,
        );
        return None;
    }
    let wanted: Vec<_> = items
        .iter()
        .map(|item| wanted(item, &claim, names, diagnostics))
        .collect();
    Some(Entry {
        place: entry.place,
        wanted: wanted.into_iter().collect::<Option<_>>()?,
        claim,
    })
}

fn wanted(node: &Node, claim: &ClaimPath, names: &[&str], diagnostics: &mut Diagnostics) -> Option<Wanted> {
    let wanted = match &node.value {
        Value::Text(text) if text.contains(['{', '}']) => return param(text, node, names, diagnostics),
        Value::Text(text) if claim.is_just(SCOPE) => scopes(text),
        Value::Text(text) if !text.is_empty() => Some(Wanted::Text(text.clone())),
        Value::Integer(number) if !claim.is_just(SCOPE) => Some(Wanted::Integer(*number)),
        Value::Float(number) if number.is_finite() && !claim.is_just(SCOPE) => Some(Wanted::Float(*number)),
        Value::Bool(value) if !claim.is_just(SCOPE) => Some(Wanted::Bool(*value)),
        _ => None,
    };
    if wanted.is_none() {
        let message = format!("`{claim}` cannot be required to be {}", node.value.kind());
        diagnostics.error(
            node.place,
            message,
            "write text, a number, true or false, a list of them, or \"{param}\"",
        );
    }
    wanted
}

/// `read write` asks for both.
fn scopes(text: &str) -> Option<Wanted> {
    let scopes: Vec<_> = text
        .split(' ')
        .filter(|scope| !scope.is_empty())
        .map(str::to_owned)
        .collect();
    (!scopes.is_empty()).then_some(Wanted::Scopes(scopes))
}

fn param(text: &str, node: &Node, names: &[&str], diagnostics: &mut Diagnostics) -> Option<Wanted> {
    let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let Some(name) = inner.filter(|name| !name.contains(['{', '}'])) else {
        let message = format!("`{text}` is neither a value nor a parameter");
        diagnostics.error(node.place, message, "a parameter stands alone: \"{owner}\"");
        return None;
    };
    let Some(index) = names.iter().position(|known| *known == name) else {
        let advice = match names {
            [] => "the route's path has no parameter; write one, as in `/images/{owner}/**`".to_owned(),
            names => format!("the route's parameters are: {}", names.join(", ")),
        };
        diagnostics.error(node.place, format!("the route has no parameter `{name}`"), advice);
        return None;
    };
    Some(Wanted::Param {
        index,
        name: name.to_owned(),
    })
}
