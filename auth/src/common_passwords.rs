//! Passwords that are tried first.
//!
//! `common_passwords.txt` has two kinds of lines: whole passwords, and words of which `word!`,
//! `Word123` and `w0rd2024` are just as easy to guess. They are what services like this one see; the
//! passwords of the world, by how often they are used, and the words of a language are `zxcvbn`'s.

use std::collections::HashSet;
use std::sync::LazyLock;

use zxcvbn::zxcvbn;

static LIST: &str = include_str!("common_passwords.txt");

static KNOWN: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    LIST.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
});

/// Digits and signs around a word that make it no better.
const MAX_DECORATION: usize = 4;

/// A password that is found within so many tries by whoever tries the frequent ones first, with the usual
/// variations: far beyond the 3,000 most frequent ones that OWASP ASVS 5 has refused (6.2.4).
const TRIES: u64 = 100_000;

/// Whether `password` is found within [`TRIES`], is on the list, or a plain variation of it or of a word of `context`.
pub(crate) fn is_easy_to_guess(password: &str, context: &[&str]) -> bool {
    let lower = password.to_lowercase();
    let reversed: String = lower.chars().rev().collect();
    if zxcvbn(password, context).guesses() <= TRIES {
        return true;
    }
    if one_character(&lower) || one_run(&lower) || known(&lower) || known(&reversed) || repeats_known(&lower)
    {
        return true;
    }
    context
        .iter()
        .map(|word| word.to_lowercase())
        .filter(|word| word.chars().count() >= 3)
        .any(|word| {
            let rest = lower.replace(&word, "");
            reversed == word || (rest.len() < lower.len() && rest.chars().count() <= MAX_DECORATION)
        })
}

fn known(lower: &str) -> bool {
    KNOWN.contains(lower)
        || KNOWN.contains(plain(lower).as_str())
        || KNOWN.contains(plain(undecorated(lower)).as_str())
}

/// Up to four digits or signs at either end do not count.
fn undecorated(text: &str) -> &str {
    let decoration = |c: char| !c.is_alphabetic();
    let mut rest = text;
    for _ in 0..MAX_DECORATION {
        rest = rest.strip_suffix(decoration).unwrap_or(rest);
    }
    for _ in 0..MAX_DECORATION {
        rest = rest.strip_prefix(decoration).unwrap_or(rest);
    }
    rest
}

/// `p@ssw0rd` is `password`.
fn plain(text: &str) -> String {
    let letter = |c| match c {
        '0' => 'o',
        '1' | '!' => 'i',
        '3' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '7' => 't',
        other => other,
    };
    text.chars().map(letter).collect()
}

fn one_character(text: &str) -> bool {
    let mut characters = text.chars();
    let first = characters.next();
    characters.all(|c| Some(c) == first)
}

/// `abcdefgh`, `87654321`: each character one beside the one before.
fn one_run(text: &str) -> bool {
    let steps = |by: i64| {
        let mut codes = text.chars().map(|c| i64::from(u32::from(c)));
        let mut last = codes.next();
        codes.all(|code| last.replace(code).is_some_and(|before| code == before + by))
    };
    steps(1) || steps(-1)
}

/// `passpass`, `abc123abc123`.
fn repeats_known(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=bytes.len() / 2)
        .filter(|unit| bytes.len().is_multiple_of(*unit))
        .any(|unit| {
            let repeats = bytes.chunks(unit).all(|chunk| chunk == &bytes[..unit]);
            repeats && (unit <= 4 || text.get(..unit).is_some_and(known))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_everybody_tries_first_is_easy_to_guess() {
        for easy in [
            "password",
            "Password",
            "password1",
            "P@ssw0rd",
            "passw0rd!",
            "drowssap",
            "12345678",
            "123456789",
            "87654321",
            "qwertyuiop",
            "QWERTY123",
            "aaaaaaaa",
            "abcdefgh",
            "iloveyou",
            "Welcome1",
            "letmein123",
            "Summer2024",
            "trustno1",
            "1q2w3e4r",
            "abc123abc123",
            "dragon2020",
            "passpass",
            "football1!",
            "20202020",
            "swordfish",
            "stargate",
            "bigdaddy",
            "nicholas",
            "tinkerbell",
            "watermelon",
            "godzilla",
            "jamesbond",
            "paradise",
            "patricia",
            "Chocolate",
            "B1gdaddy",
            "asdfghjkl",
            "19871987",
        ] {
            assert!(is_easy_to_guess(easy, &[]), "{easy}");
        }
    }

    #[test]
    fn names_of_user_and_service_are_easy_to_guess() {
        for easy in [
            "durward1",
            "Durward!!",
            "alice.liddell",
            "alicealice",
            "Alice2024",
            "lleddil.ecila",
        ] {
            assert!(
                is_easy_to_guess(easy, &["alice", "alice.liddell", "durward"]),
                "{easy}"
            );
        }
        assert!(!is_easy_to_guess("alice likes turnips", &["alice"]));
    }

    #[test]
    fn others_are_not() {
        for good in [
            "correct horse battery",
            "kumquat-harvest",
            "x9$vTq2#mL",
            "мой любимый пароль",
            "mzxw6ytboi7qk",
        ] {
            assert!(!is_easy_to_guess(good, &["durward", "ab"]), "{good}");
        }
    }
}
