//! `GET` and `HEAD` on the image server.

use std::fs;

use http::Method;

use crate::{
    client::{Answer, Server, TestFolder},
    image_files::png,
};

const PATH: &str = "/images/alice/a.png";

/// A server that has an image at [`PATH`], the image, and its tag.
async fn with_image(folder: &TestFolder) -> (Server, Vec<u8>, String) {
    let (server, image) = (Server::images(folder).await, png(40, 30));
    let created = server.put(PATH, image.clone()).await;
    let etag = created.header("etag").to_owned();
    (server, image, etag)
}

#[tokio::test]
async fn an_image_is_sent_whole_and_described() {
    let folder = TestFolder::new();
    let (server, image, etag) = with_image(&folder).await;
    let read = server.get(PATH).answer().await;
    assert_eq!((read.status, &read.body), (200, &image));
    let described = [
        ("content-type", "image/png"),
        ("content-length", &*image.len().to_string()),
        ("etag", &etag),
        ("accept-ranges", "bytes"),
        ("cache-control", "private, no-cache"),
        ("x-content-type-options", "nosniff"),
    ];
    for (name, value) in described {
        assert_eq!(read.header(name), value, "{name}");
    }
    assert!(etag.starts_with('"') && etag.len() == 66, "{etag}");
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let folder = TestFolder::new();
    let (server, image, etag) = with_image(&folder).await;
    for path in [PATH, "/images/alice/a.png?width=10"] {
        let get = server.get(path).answer().await;
        let head = server
            .ask(Method::HEAD, path)
            .with("range", "bytes=0-3")
            .answer()
            .await;
        assert_eq!((head.status, &*head.body), (200, &b""[..]));
        let without_date = |mut answer: Answer| {
            answer.headers.remove("date");
            answer.headers
        };
        assert_eq!(without_date(head), without_date(get), "{path}");
    }
    let same = server
        .ask(Method::HEAD, PATH)
        .with("if-none-match", &etag)
        .answer()
        .await;
    assert_eq!(same.status, 304);
    let none = server.ask(Method::HEAD, "/images/alice/b.png").answer().await;
    assert_eq!((none.status, &*none.body), (404, &b""[..]));
    assert!(!image.is_empty());
}

#[tokio::test]
async fn a_known_image_is_not_sent_again() {
    let folder = TestFolder::new();
    let (server, image, etag) = with_image(&folder).await;
    let known = [
        etag.clone(),
        format!("W/{etag}"),
        format!("\"x\", {etag}"),
        "*".to_owned(),
    ];
    for tags in known {
        let ask = server
            .get(PATH)
            .with("if-none-match", &tags)
            .with("range", "bytes=0-1");
        let answer = ask.answer().await;
        assert_eq!((answer.status, &*answer.body), (304, &b""[..]), "{tags}");
        assert_eq!(answer.header("etag"), etag);
        assert_eq!(answer.header("cache-control"), "private, no-cache");
        assert_eq!(answer.header("content-length"), "");
    }
    let changed = server.get(PATH).with("if-none-match", "\"x\"").answer().await;
    assert_eq!((changed.status, changed.body), (200, image));
    let failed = server.get(PATH).with("if-match", "\"x\"").answer().await;
    failed.assert_problem(412, "precondition_failed");
    assert_eq!(
        server.get(PATH).with("if-match", &etag).answer().await.status,
        200
    );
}

#[tokio::test]
async fn a_range_is_sent_as_a_part() {
    let folder = TestFolder::new();
    let (server, image, etag) = with_image(&folder).await;
    let length = image.len();
    let cases = [
        ("bytes=0-0", 0..1),
        ("bytes=10-19", 10..20),
        ("bytes=10-", 10..length),
        ("bytes=-7", length - 7..length),
        ("bytes=-99999999", 0..length),
        ("bytes=5-99999999", 5..length),
    ];
    for (range, sent) in cases {
        let part = server.get(PATH).with("range", range).answer().await;
        assert_eq!(part.status, 206, "{range}");
        assert_eq!(part.body, image[sent.clone()], "{range}");
        let content_range = format!("bytes {}-{}/{length}", sent.start, sent.end - 1);
        assert_eq!(part.header("content-range"), content_range);
        assert_eq!(part.header("content-length"), sent.len().to_string());
        assert_eq!(
            (part.header("etag"), part.header("content-type")),
            (&*etag, "image/png")
        );
    }
}

#[tokio::test]
async fn a_range_that_cannot_be_sent_is_refused_or_ignored() {
    let folder = TestFolder::new();
    let (server, image, _) = with_image(&folder).await;
    let past_the_end = format!("bytes={}-", image.len());
    for range in [&*past_the_end, "bytes=-0", "bytes=99999999999999999999999-"] {
        let refused = server.get(PATH).with("range", range).answer().await;
        refused.assert_problem(416, "range_not_satisfiable");
        assert_eq!(
            refused.header("content-range"),
            format!("bytes */{}", image.len())
        );
    }
    for range in ["bytes=0-1,5-6", "bytes=5-1", "items=0-1", "bytes", "bytes=a-"] {
        let whole = server.get(PATH).with("range", range).answer().await;
        assert_eq!((whole.status, &whole.body), (200, &image), "{range}");
        assert_eq!(whole.header("content-range"), "");
    }
    let twice = server
        .get(PATH)
        .with("range", "bytes=0-1")
        .with("range", "bytes=2-3");
    assert_eq!(twice.answer().await.status, 200);
}

#[tokio::test]
async fn if_range_sends_the_part_only_of_what_the_client_has() {
    let folder = TestFolder::new();
    let (server, _, etag) = with_image(&folder).await;
    let weak = format!("W/{etag}");
    let cases = [
        (&*etag, 206),
        (&weak, 200),
        ("\"x\"", 200),
        ("Sat, 29 Oct 1994 19:43:31 GMT", 200),
    ];
    for (tag, status) in cases {
        let ask = server.get(PATH).with("range", "bytes=0-1").with("if-range", tag);
        assert_eq!(ask.answer().await.status, status, "{tag}");
    }
}

#[tokio::test]
async fn an_image_of_many_chunks_arrives_whole() {
    let folder = TestFolder::new();
    let server = Server::images(&folder).await;
    let mut large = png(10, 10);
    large.extend((0..3_000_000_u32).map(|at| (at % 253) as u8));
    server.put(PATH, large.clone()).await;
    assert!(server.get(PATH).answer().await.body == large);
    let part = server
        .get(PATH)
        .with("range", "bytes=60000-2000000")
        .answer()
        .await;
    assert!(part.body == large[60_000..=2_000_000]);
}

#[tokio::test]
async fn what_is_no_image_is_not_served() {
    let folder = TestFolder::new();
    let server = Server::images(&folder).await;
    fs::create_dir_all(folder.join("alice/inner")).unwrap();
    fs::write(folder.join("alice/notes.txt"), "not an image").unwrap();
    fs::write(folder.join("file"), "not an owner").unwrap();
    for path in [
        "alice/none.png",
        "nobody/a.png",
        "alice/inner",
        "alice/notes.txt",
        "file/a.png",
    ] {
        let answer = server.get(&format!("/images/{path}")).answer().await;
        answer.assert_problem(404, "no_such_image");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
}

#[tokio::test]
async fn an_image_put_there_by_hand_is_served_and_noticed_when_it_changes() {
    let folder = TestFolder::new();
    let server = Server::images(&folder).await;
    fs::create_dir(folder.join("alice")).unwrap();
    fs::write(folder.join("alice/a.png"), png(5, 5)).unwrap();
    let first = server.get(PATH).answer().await;
    assert_eq!((first.status, &first.body), (200, &png(5, 5)));
    fs::write(folder.join("alice/a.png"), png(60, 6)).unwrap();
    let second = server
        .get(PATH)
        .with("if-none-match", first.header("etag"))
        .answer()
        .await;
    assert_eq!((second.status, &second.body), (200, &png(60, 6)));
}
