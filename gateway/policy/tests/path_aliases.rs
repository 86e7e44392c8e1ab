//! No spelling of a protected path is let in by a route that protects it less.

mod path_model;

use path_model::{STEPS, Step, apply, belongs_to, choose, percent_decode};
use proptest::prelude::*;

/// Paths made of the words of the routes and of what is special about paths.
fn tricky_path() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/",
        "/",
        "/",
        "/",
        "public",
        "admin",
        "admin",
        "api",
        "health",
        "images",
        "catalogue",
        "u1",
        "u2",
        "Admin",
        "..",
        "..",
        ".",
        "%2e",
        "%2E%2e",
        "%2f",
        "%2F",
        "%5c",
        "\\",
        "%252f",
        "%252e",
        "%3b",
        ";",
        ";a=b",
        "%3f",
        "%23",
        "%61",
        "%2561",
        "%41",
        "x",
    ]);
    prop::collection::vec(piece, 0..10).prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// A way to write a path so that some backend reads it as before.
fn disguise(path: &str, at: usize, how: u8) -> String {
    let chars: Vec<char> = path.chars().collect();
    let at = 1 + at % (chars.len() - 1).max(1);
    let (head, tail): (String, String) = (chars[..at].iter().collect(), chars[at..].iter().collect());
    let next = tail.chars().next();
    match (how % 10, next) {
        (0, Some(next)) => format!("{head}%{:02x}{}", u32::from(next), &tail[next.len_utf8()..]),
        (1, Some(next)) => format!("{head}%25{:02X}{}", u32::from(next), &tail[next.len_utf8()..]),
        (2, _) => format!("/x/..{path}"),
        (3, _) => format!("/public/%2e%2e{path}"),
        (4, _) => format!("/{path}"),
        (5, _) => format!("/.{path}"),
        (6, Some('/')) => format!("{head};a=b{tail}"),
        (7, Some('/')) => format!("{head}\\{}", &tail[1..]),
        (8, Some(next)) => format!("{head}{}{}", next.to_ascii_uppercase(), &tail[next.len_utf8()..]),
        _ => format!("{path}%3Fx"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Whatever a backend makes of a path that was let in, it belongs to the route that let it in.
    #[test]
    fn every_view_of_a_path_belongs_to_the_route_that_let_it_in(
        path in tricky_path(),
        steps in prop::collection::vec(prop::sample::select(STEPS.to_vec()), 0..8),
    ) {
        let Ok((route, _, owner)) = choose(path.as_bytes()) else {
            return Ok(());
        };
        let mut decodings = 0;
        let mut folded = false;
        let mut view = path.clone();
        for step in steps {
            decodings += u8::from(matches!(step, Step::Decode));
            folded |= matches!(step, Step::Lower);
            if decodings <= 2 {
                view = apply(step, &view);
            }
        }
        prop_assert_eq!(belongs_to(&view), Some(route.as_str()), "{} read as {}", path, view);
        if let (Some(owner), false) = (owner, folded) {
            let seen = view["/images/".len()..].split('/').next().unwrap_or_default();
            prop_assert_eq!(percent_decode(seen).into_bytes(), owner, "{} read as {}", path, view);
        }
    }

    /// A protected path in disguise is refused, or let in by its own route.
    #[test]
    fn a_protected_path_in_disguise_is_still_protected(
        path in prop::sample::select(vec!["/admin", "/admin/users", "/api/notes/7", "/images/u1/cat.png"]),
        disguises in prop::collection::vec((any::<usize>(), any::<u8>()), 1..3),
    ) {
            let (own, _, owner) = choose(path.as_bytes()).unwrap();
        let disguised = disguises.iter().fold(path.to_owned(), |path, (at, how)| disguise(&path, *at, *how));
        if let Ok((route, public, param)) = choose(disguised.as_bytes()) {
            prop_assert_eq!(&route, &own, "{}", disguised);
            prop_assert!(!public);
            if let Some(owner) = owner {
                let same = param.is_some_and(|param| param.eq_ignore_ascii_case(&owner));
                prop_assert!(same, "{}", disguised);
            }
        }
    }

    #[test]
    fn arbitrary_targets_are_judged_without_a_panic(target in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = choose(&target);
        let path = [b"/images/", &*target].concat();
        let _ = choose(&path);
    }
}

#[test]
fn what_backends_need_is_let_in() {
    for (path, route) in [
        ("/api/projects/group%2Fname", "/api/**"),
        ("/public/caf%C3%A9/Menu%20%231.PDF", "/public/**"),
        ("/images/U1/Holiday%20(1).JPG", "/images/{owner}/**"),
        (
            "/api/search?q=../../admin&x=%00#".trim_end_matches('#'),
            "/api/**",
        ),
        ("/api/health?verbose", "/api/health"),
        ("/public/a;v=2/b", "/public/**"),
    ] {
        assert_eq!(
            choose(path.as_bytes()).map(|(route, ..)| route),
            Ok(route.to_owned()),
            "{path}"
        );
    }
}
