//! API keys in the mirror: known from their grant to their end, in whatever order the two arrive.

use durward_contract::{Bar, Target};

use super::tests::{STALE, mirror, snapshot};
use super::*;
use crate::testing::{ISSUER, end_of_key, granted_key, granted_name, news_of_key, news_of_name, token};

fn is_known(mirror: &Mirror, id: &str) -> bool {
    match mirror.granted_key(&granted_key(id, None).digest()) {
        GrantStanding::Known(key) => mirror.key_standing(&key) == Standing::Live,
        GrantStanding::Absent => false,
        unknown @ GrantStanding::Unknown { .. } => panic!("{unknown:?}"),
    }
}

#[test]
fn a_key_is_known_once_its_grant_is_applied_until_its_end_is() {
    let (mirror, _hand) = mirror(100);
    let digest = granted_key("k", None).digest();
    assert!(matches!(
        mirror.granted_key(&digest),
        GrantStanding::Unknown { stale_for: None }
    ));
    mirror.load(snapshot(0, vec![]));
    assert!(!is_known(&mirror, "k"));
    mirror.apply(&[news_of_key(1, "k"), news_of_key(2, "other")], Sequence(2));
    assert!(is_known(&mirror, "k"));
    mirror.apply(&[end_of_key(3, "k")], Sequence(3));
    assert!(!is_known(&mirror, "k") && is_known(&mirror, "other"));
    assert_eq!(
        mirror.key_standing(&granted_key("k", None)),
        Standing::Revoked(Cause::ApiKey)
    );
    assert_eq!(mirror.grants(), 1);
    // Somebody delivers the grant once more.
    mirror.apply(&[news_of_key(1, "k")], Sequence(3));
    assert!(!is_known(&mirror, "k"));
}

#[test]
fn a_grant_and_its_end_refuse_the_key_in_either_order() {
    let (grant, end) = (news_of_key(1, "k"), end_of_key(2, "k"));
    for batches in [
        vec![vec![grant.clone(), end.clone()]],
        vec![vec![end.clone(), grant.clone()]],
        vec![vec![grant.clone()], vec![end.clone()]],
        vec![vec![end], vec![grant]],
    ] {
        let (followed, _hand) = mirror(100);
        followed.load(snapshot(0, vec![]));
        for batch in &batches {
            followed.apply(batch, Sequence(2));
        }
        assert!(!is_known(&followed, "k"), "{batches:?}");
        let (loaded, _hand) = mirror(100);
        let mut loading = Box::new(loaded.begin_load());
        batches.iter().for_each(|batch| loading.add(batch));
        loading.finish(Sequence(2));
        loaded.attest(Sequence(2), Duration::ZERO);
        assert!(!is_known(&loaded, "k"), "{batches:?}");
        assert_eq!((followed.grants(), loaded.grants()), (0, 0));
    }
}

/// The id of the grant by which the certificate is accepted.
fn known_name(mirror: &Mirror) -> Option<String> {
    match mirror.granted_key(&granted_name(1).digest()) {
        GrantStanding::Known(key) if mirror.key_standing(&key) == Standing::Live => Some(key.id().to_owned()),
        GrantStanding::Known(_) | GrantStanding::Absent => None,
        unknown @ GrantStanding::Unknown { .. } => panic!("{unknown:?}"),
    }
}

#[test]
fn a_certificate_is_accepted_by_its_later_grant_and_never_again_by_the_one_that_was_taken_back() {
    let news = || [news_of_name(1), end_of_key(2, "1"), news_of_name(3)];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let (followed, _hand) = mirror(100);
        followed.load(snapshot(0, vec![]));
        for index in order {
            followed.apply(&[news()[index].clone()], Sequence(3));
        }
        let (loaded, _hand) = mirror(100);
        let mut loading = Box::new(loaded.begin_load());
        for index in order {
            loading.add(&[news()[index].clone()]);
        }
        loading.finish(Sequence(3));
        loaded.attest(Sequence(3), Duration::ZERO);
        for mirror in [followed, loaded] {
            assert_eq!(known_name(&mirror).as_deref(), Some("3"), "{order:?}");
            assert_eq!(mirror.key_ended(&granted_name(1)), Some(Cause::ApiKey));
            assert_eq!(mirror.key_ended(&granted_name(3)), None);
            mirror.apply(&[end_of_key(4, "3")], Sequence(4));
            for late in [&news()[..], &news()[..1], &news()[2..]] {
                mirror.apply(late, Sequence(4));
                assert_eq!(known_name(&mirror), None, "{order:?} {late:?}");
            }
        }
    }
}

#[test]
fn a_snapshot_replaces_the_grants() {
    let (mirror, _hand) = mirror(100);
    mirror.load(snapshot(2, vec![news_of_key(1, "a"), news_of_key(2, "b")]));
    mirror.load(snapshot(3, vec![news_of_key(2, "b"), news_of_key(3, "c")]));
    assert!(!is_known(&mirror, "a") && is_known(&mirror, "b") && is_known(&mirror, "c"));
    assert_eq!(mirror.key_ended(&granted_key("a", None)), Some(Cause::ApiKey));
    // One that is dropped before it is whole changes nothing.
    let mut loading = Box::new(mirror.begin_load());
    loading.add(&[news_of_key(4, "d"), end_of_key(5, "b")]);
    drop(loading);
    assert!(is_known(&mirror, "b") && !is_known(&mirror, "d"));
}

#[test]
fn stale_news_does_not_say_that_a_key_is_nobodys() {
    let (mirror, hand) = mirror(100);
    mirror.load(snapshot(1, vec![news_of_key(1, "k")]));
    hand.advance(STALE * 2);
    let stale_for = Some(STALE * 2);
    let unknown = mirror.granted_key(&granted_key("other", None).digest());
    assert!(matches!(unknown, GrantStanding::Unknown { stale_for: Some(age) } if age == STALE * 2));
    let GrantStanding::Known(key) = mirror.granted_key(&granted_key("k", None).digest()) else {
        panic!("what is known stays known");
    };
    assert_eq!(mirror.key_standing(&key), Standing::Unknown { stale_for });
}

#[test]
fn keys_are_no_revocation_of_everyone() {
    let (mirror, _hand) = mirror(100);
    let everyone = News::Revocation(RevocationEntry {
        sequence: Sequence(2),
        issuer: ISSUER.into(),
        target: Target::Everyone,
        bar: Bar::Always,
        forget_at: None,
    });
    mirror.load(snapshot(2, vec![news_of_key(1, "k"), everyone]));
    assert!(is_known(&mirror, "k"));
    assert_eq!(
        mirror.standing(&token("alice")),
        Standing::Revoked(Cause::Everyone)
    );
}
