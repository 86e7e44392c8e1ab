//! What was judged is byte for byte what is forwarded, and what can be read in two ways is not.

use crate::harness::{Backend, Key, Service, Setup, claims, mint};

struct Stand {
    backend: Backend,
    service: Service,
    token: String,
}

fn stand() -> Stand {
    let backend = Backend::start();
    let key = Key::es256("k1");
    let service = Setup::foreign(&backend, &[&key]).start();
    let token = mint(&key, &claims("alice"));
    Stand {
        backend,
        service,
        token,
    }
}

impl Stand {
    /// Asks for a target, byte for byte, with or without the token of alice.
    fn ask(&self, target: &[u8], with_token: bool) -> (u16, String) {
        let host = format!(" HTTP/1.1\r\nHost: {}\r\n", self.service.edge);
        let token = if with_token {
            format!("Authorization: Bearer {}\r\n", self.token)
        } else {
            String::new()
        };
        let request = [b"GET ", target, host.as_bytes(), token.as_bytes(), b"\r\n"].concat();
        println!("case {}", target.escape_ascii());
        let answers = self.service.raw(&request);
        assert_eq!(answers.len(), 1, "{}", target.escape_ascii());
        (answers[0].status, answers[0].reason())
    }

    #[track_caller]
    fn assert_forwarded(&self, target: &[u8], as_target: &[u8], with_token: bool) {
        let told = target.escape_ascii();
        assert_eq!(self.ask(target, with_token), (200, String::new()), "{told}");
        let request = self.backend.take_one();
        assert_eq!(request.target(), as_target, "{told} became {}", request.line());
    }

    #[track_caller]
    fn assert_refused(&self, target: &[u8], with_token: bool, status: u16, reason: &str) {
        let told = target.escape_ascii();
        assert_eq!(
            self.ask(target, with_token),
            (status, reason.to_owned()),
            "{told}"
        );
        assert!(self.backend.take().is_empty(), "{told}");
    }
}

#[test]
fn unambiguous_paths_are_forwarded_as_they_were_sent() {
    let stand = stand();
    for target in [
        "/public",
        "/public/",
        "/public/a",
        "/public/a/",
        "/public/a%2Fb",
        "/public/a%2fb%2Fc",
        "/public/a%252Fb",
        "/public/a//b",
        "/public//a",
        "/public/./a",
        "/public/a/../b",
        "/public/a/%2e%2e/b",
        "/public/a;v=1/b;w",
        "/public/a%3Bv=1",
        "/public/%7Euser/~user",
        "/public/a%20b",
        "/public/caf%C3%A9",
        "/public/A/b",
        "/public/a\\b",
        "/public/a%5Cb",
        "/public/a:b@c!$&'()*+,=",
        "/public/a%23b",
        "/public/a%3Fb",
        "/public/a?b=c&d=%2F..%2F",
        "/public/a?",
        "/public/a?x=/../../admin/x",
        "/public/a??x=//",
        "/public/...",
        "/public/..a/b..",
    ] {
        stand.assert_forwarded(target.as_bytes(), target.as_bytes(), false);
    }
}

#[test]
fn a_path_whose_readings_choose_different_routes_is_refused() {
    let stand = stand();
    for target in [
        // Dot segments, plain, encoded once and twice.
        "/public/../admin/x",
        "/public/..",
        "/public/%2e%2e/admin/x",
        "/public/%2E%2e/admin/x",
        "/public/.%2e/admin/x",
        "/public/..%2fadmin/x",
        "/public/%2e%2e%2fadmin%2fx",
        "/public/%252e%252e/admin/x",
        "/public/..%252fadmin/x",
        "/public/a/b/../../../admin/x",
        "/public/a//../../admin/x",
        // Parameters of segments.
        "/public/..;/admin/x",
        "/public/..;x=1/admin/x",
        "/public/..%3b/admin/x",
        "/admin;/x",
        "/admin;a=b/x",
        "/admin%3bx",
        "/public;/x",
        // Backslashes.
        "/public\\..\\admin\\x",
        "/public/..\\admin/x",
        "/public/..%5cadmin/x",
        "/public/..%255cadmin/x",
        "\\public",
        "/admin\\x",
        // Slashes.
        "//admin/x",
        "//public/x",
        "/%2fadmin/x",
        "/admin%2fx",
        "/admin%252fx",
        "/.//admin/x",
        "/./admin/x",
        "/%2e/admin/x",
        // Letters.
        "/ADMIN/x",
        "/Public/x",
        "/%41dmin/x",
        "/adm%69n/x",
        "/adm%2569n/x",
        "/%70ublic/x",
        // What a backend may cut off.
        "/admin%3fx",
        "/admin%23x",
        "/admin%253fx",
        "/public/..%2fadmin%3f/public",
        "/api/..%2f..%2fpublic/x",
    ] {
        for with_token in [false, true] {
            // A backslash is no beginning of a path at all.
            let reason = if target.starts_with('/') {
                "ambiguous_path"
            } else {
                "bad_target"
            };
            stand.assert_refused(target.as_bytes(), with_token, 400, reason);
        }
    }
}

#[test]
fn a_path_whose_readings_name_different_users_is_refused() {
    let stand = stand();
    for target in [
        "/users/alice/x",
        "/users/al%69ce/x",
        "/users/%61lice/x",
        "/users/alice/a%2Fb",
        "/users/alice//x",
    ] {
        stand.assert_forwarded(target.as_bytes(), target.as_bytes(), true);
    }
    for target in [
        "/users/bob/x",
        "/users/ALICE/x",
        "/users/alic/x",
        "/users/alicee/x",
        "/users/alice%20/x",
    ] {
        stand.assert_refused(target.as_bytes(), true, 403, "rule_refused");
    }
    for target in [
        "/users/alice/../bob/x",
        "/users/bob/../alice/x",
        "/users/bob/%2e%2e/alice/x",
        "/users/alice%2fbob/x",
        "/users/bob%2f..%2falice/x",
        "/users/alice;v=1/x",
        "/users/bob;/x",
        "/users/al%2569ce/x",
        "/users//alice/x",
        "/users/./alice/x",
        "/users/alice%3fx",
        "/users/alice\\..\\bob/x",
        "/users/..;/alice/x",
    ] {
        stand.assert_refused(target.as_bytes(), true, 400, "ambiguous_path");
    }
}

#[test]
fn what_is_no_target_is_refused_whatever_the_route() {
    let stand = stand();
    for target in [
        &b"/public/%00"[..],
        b"/public/a%00b",
        b"/public/%2500",
        b"/public/%0a",
        b"/public/%0D%0AX:y",
        b"/public/%1f",
        b"/public/%7f",
        b"/public/%250a",
        b"/public/%",
        b"/public/%z1",
        b"/public/%1",
        b"/public/%%41",
        b"/public/a#b",
        b"/public#",
        b"/public/a?b#c",
        b"/public/\x01",
        b"/public/\x7f",
        b"/public/a\tb",
        b"public/a",
        b"admin/x",
        b"*",
        b"?x",
        b"http:/public/a",
        b"http:///public/a",
        b"//",
        b"ftp://h/public/a",
    ] {
        for with_token in [false, true] {
            let (status, reason) = stand.ask(target, with_token);
            let told = target.escape_ascii();
            assert!(matches!(status, 400 | 404), "{told}: {status} {reason}");
            assert!(stand.backend.take().is_empty(), "{told}");
        }
    }
    // Bytes that are not ASCII are forwarded as they came, or refused; never changed.
    for target in [
        "/public/é".as_bytes(),
        b"/public/\xff",
        "/public/／admin".as_bytes(),
    ] {
        let (status, _) = stand.ask(target, false);
        let forwarded = stand.backend.take();
        match status {
            200 => assert_eq!(forwarded[0].target(), target),
            status => assert!(
                status == 400 && forwarded.is_empty(),
                "{status} {}",
                target.escape_ascii()
            ),
        }
    }
}

#[test]
fn absolute_form_is_judged_on_its_path_and_forwarded_in_origin_form() {
    let stand = stand();
    let host = stand.service.edge;
    for (path, as_path) in [
        ("/public/a?b=c", "/public/a?b=c"),
        ("/public/a%2Fb", "/public/a%2Fb"),
    ] {
        stand.assert_forwarded(
            format!("http://{host}{path}").as_bytes(),
            as_path.as_bytes(),
            false,
        );
    }
    for target in [
        "http://other.test/public/a".to_owned(),
        format!("http://user@{host}/public/a"),
        format!("http://{host}@other.test/public/a"),
        format!("http://{host}.other.test/public/a"),
    ] {
        let (status, _) = stand.ask(target.as_bytes(), false);
        assert_eq!(status, 400, "{target}");
        assert!(stand.backend.take().is_empty(), "{target}");
    }
    stand.assert_refused(
        format!("http://{host}/public/../admin/x").as_bytes(),
        false,
        400,
        "ambiguous_path",
    );
    stand.assert_refused(
        format!("http://{host}/admin/x").as_bytes(),
        false,
        401,
        "no_credential",
    );
    stand.assert_refused(
        format!("http://{host}/nowhere").as_bytes(),
        false,
        404,
        "no_route",
    );
}

#[test]
fn no_route_no_access() {
    let stand = stand();
    for target in [
        "/",
        "/nowhere",
        "/administrator",
        "/publicity",
        "/api2",
        "/users",
        "/.well-known/x",
    ] {
        for with_token in [false, true] {
            stand.assert_refused(target.as_bytes(), with_token, 404, "no_route");
        }
    }
}

#[test]
fn an_endless_path_is_refused() {
    let stand = stand();
    for length in [20_000, 60_000, 70_000, 200_000] {
        let long = format!("/public/{}", "a".repeat(length));
        let (status, _) = stand.ask(long.as_bytes(), false);
        assert!(matches!(status, 400 | 414 | 431), "{length}: {status}");
        assert!(stand.backend.take().is_empty());
    }
    let deep = format!("/public{}", "/a".repeat(3_000));
    let (status, _) = stand.ask(deep.as_bytes(), false);
    let forwarded = stand.backend.take();
    match status {
        200 => assert_eq!(forwarded[0].target(), deep.as_bytes()),
        status => assert!(matches!(status, 400 | 414) && forwarded.is_empty(), "{status}"),
    }
}
