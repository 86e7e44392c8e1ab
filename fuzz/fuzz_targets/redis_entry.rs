//! What Redis holds is an entry that is written again as the same, or none at all; two entries that
//! say different things of one slot never lose one. The input is one entry, or two in two lines.

#![no_main]

use durward_contract::wire::{decode, encode, ended_grant, slot, target, target_words};
use durward_contract::{News, Target};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut lines = input.splitn(2, |byte| *byte == b'\n');
    let [one, other] = [(); 2].map(|()| lines.next().and_then(|line| decode(line).ok()));
    let _ = decode(input);
    for news in [&one, &other].into_iter().flatten() {
        let text = encode(news);
        assert_eq!(decode(text.as_bytes()).as_ref(), Ok(news), "{text}");
        if let News::Revocation(entry) = news {
            let (kind, id) = target_words(&entry.target);
            assert_eq!(target(kind, id.to_owned()).as_ref(), Ok(&entry.target), "{text}");
        }
        let ends_a_key = matches!(news, News::Revocation(entry) if matches!(entry.target, Target::ApiKey(_)));
        assert_eq!(ended_grant(news).is_some(), ends_a_key, "{text}");
    }
    if let (Some(one), Some(other)) = (one, other) {
        assert_eq!(
            slot(&one) == slot(&other),
            said_of(&one) == said_of(&other),
            "{one:?} {other:?}"
        );
    }
});

/// What an entry is about, without what it says of it.
fn said_of(news: &News) -> (String, String, String, u8) {
    match news {
        News::Revocation(entry) => {
            let (kind, id) = target_words(&entry.target);
            let bar = match entry.bar {
                durward_contract::Bar::Always => 0,
                durward_contract::Bar::EpochBelow(_) => 1,
                durward_contract::Bar::IssuedAtOrBefore(_) => 2,
            };
            (entry.issuer.clone(), kind.to_owned(), id.to_owned(), bar)
        }
        News::Grant(grant) => (grant.issuer.clone(), "grant".to_owned(), grant.key.clone(), 3),
    }
}
