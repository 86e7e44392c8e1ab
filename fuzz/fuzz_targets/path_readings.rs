//! Every composition of what a backend may do to a path leads to the route that let the path in, or
//! the path was refused. The model is that of the policy's properties; here all compositions are
//! tried, not a few.

#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::{Corpus, fuzz_target};

#[path = "../../gateway/policy/tests/path_model/mod.rs"]
mod path_model;

use path_model::{STEPS, Step, apply, belongs_to, choose, percent_decode};

/// Views of one path that are looked at.
const MAX_VIEWS: usize = 4_000;

/// A backend's view: the path, how often it was decoded, and whether case was folded.
type View = (String, u8, bool);

fuzz_target!(|target: &[u8]| -> Corpus {
    // The model knows no absolute form, whose path is forwarded alone.
    if !target.starts_with(b"/") {
        return Corpus::Reject;
    }
    let Ok((route, _, owner)) = choose(target) else {
        return Corpus::Keep;
    };
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let path = std::str::from_utf8(path).expect("what is let in is ASCII");
    for (view, _, folded) in views(path) {
        assert_eq!(belongs_to(&view), Some(&*route), "{path} read as {view}");
        // The model leaves escapes of bytes beyond ASCII as they are.
        if let (Some(owner), false) = (&owner, folded)
            && owner.is_ascii()
        {
            let seen = view["/images/".len()..].split('/').next().unwrap_or_default();
            assert_eq!(percent_decode(seen).as_bytes(), owner, "{path} read as {view}");
        }
    }
    Corpus::Keep
});

fn views(path: &str) -> BTreeSet<View> {
    let mut known = BTreeSet::from([(path.to_owned(), 0, false)]);
    let mut fresh: Vec<View> = known.iter().cloned().collect();
    while let Some((path, decodings, folded)) = fresh.pop() {
        for step in STEPS {
            let decodings = decodings + u8::from(matches!(step, Step::Decode));
            let folded = folded || matches!(step, Step::Lower);
            let view = (apply(step, &path), decodings, folded);
            if decodings <= 2 && known.len() < MAX_VIEWS && known.insert(view.clone()) {
                fresh.push(view);
            }
        }
    }
    known
}
