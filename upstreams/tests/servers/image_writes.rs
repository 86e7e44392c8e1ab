//! `PUT` on the image server.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    time::SystemTime,
};

use axum::body::Body;
use bytes::Bytes;
use durward_upstreams::{ImageFolder, sample_png};
use futures_util::{future::join_all, stream};
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    client::{Answer, Server, TestFolder},
    image_files::{bomb, jpeg, png},
};

const MAX_IMAGE_BYTES: usize = 10 * 1024 * 1024;

/// A body of unannounced length.
fn chunked(bytes: Vec<u8>) -> Body {
    let chunks: Vec<_> = bytes.chunks(100_000).map(Bytes::copy_from_slice).collect();
    Body::from_stream(stream::iter(chunks.into_iter().map(Ok::<_, io::Error>)))
}

/// A PNG with as much after its end as makes it this long.
fn png_of_length(length: usize) -> Vec<u8> {
    let mut png = png(10, 10);
    png.resize(length, 0);
    png
}

#[tokio::test]
async fn an_image_is_created_then_replaced() {
    let folder = TestFolder::new();
    let server = Server::images(&folder).await;
    let (first, second) = (sample_png(1), sample_png(2));
    let created = server.put("/images/alice/a.png", first.clone()).await;
    assert_eq!(
        (created.status, created.header("location")),
        (201, "/images/alice/a.png")
    );
    let read = server.get("/images/alice/a.png").answer().await;
    assert_eq!((read.status, &read.body), (200, &first));
    assert_eq!(read.header("etag"), created.header("etag"));

    let replaced = server.put("/images/alice/a.png", second.clone()).await;
    assert_eq!((replaced.status, &*replaced.body), (204, &b""[..]));
    assert_ne!(replaced.header("etag"), created.header("etag"));
    let read = server.get("/images/alice/a.png").answer().await;
    assert_eq!(
        (read.header("etag"), &read.body),
        (replaced.header("etag"), &second)
    );
    assert_eq!(folder.names("alice"), ["a.png"]);
    assert!(folder.names(".incoming").is_empty());
}

#[tokio::test]
async fn the_content_decides_what_an_image_is() {
    let folder = TestFolder::new();
    let server = Server::images(&folder).await;
    let cases = [
        ("/images/alice/really-jpeg.png", jpeg(8, 8), "image/jpeg"),
        ("/images/alice/really-png.html", png(8, 8), "image/png"),
        ("/images/alice/no-extension", jpeg(8, 8), "image/jpeg"),
    ];
    for (path, image, media_type) in cases {
        let ask = server.ask(Method::PUT, path).with("content-type", "text/html");
        assert_eq!(ask.send(image).await.status, 201, "{path}");
        let read = server.get(path).answer().await;
        assert_eq!(read.header("content-type"), media_type, "{path}");
        assert_eq!(read.header("x-content-type-options"), "nosniff");
    }
}

#[tokio::test]
async fn what_does_not_decode_is_not_kept() {
    let folder = TestFolder::new();
    let server = Server::images(&folder).await;
    let (png, jpeg) = (png(64, 64), jpeg(64, 64));
    let mut corrupt = png.clone();
    corrupt[45] ^= 0xff;
    let cases: [(&str, Vec<u8>, u16, &str); 14] = [
        ("nothing", vec![], 415, "not_an_image"),
        ("text", b"hello, I am a picture".to_vec(), 415, "not_an_image"),
        (
            "a page",
            b"<html><script>1</script>".to_vec(),
            415,
            "not_an_image",
        ),
        (
            "another format",
            b"GIF89a\x01\0\x01\0\0\0\0;".to_vec(),
            415,
            "not_an_image",
        ),
        ("a signature alone", png[..8].to_vec(), 422, "broken_image"),
        (
            "a JPEG's first bytes alone",
            jpeg[..4].to_vec(),
            422,
            "broken_image",
        ),
        ("half a PNG", png[..png.len() / 2].to_vec(), 422, "broken_image"),
        (
            "a PNG without its end",
            png[..png.len() - 12].to_vec(),
            422,
            "broken_image",
        ),
        ("a PNG with a wrong byte", corrupt, 422, "broken_image"),
        (
            "half a JPEG",
            jpeg[..jpeg.len() / 2].to_vec(),
            422,
            "broken_image",
        ),
        (
            "a JPEG without its end",
            jpeg[..jpeg.len() - 2].to_vec(),
            422,
            "broken_image",
        ),
        ("a bomb by width", bomb(60_000, 60_000, 8), 422, "image_too_large"),
        ("a bomb just too wide", bomb(8193, 1, 8), 422, "image_too_large"),
        ("a bomb by depth", bomb(8192, 8192, 16), 422, "image_too_large"),
    ];
    for (what, body, status, code) in cases {
        let refused = server.put("/images/alice/a.png", body).await;
        assert_eq!(refused.status, status, "{what}: {refused:?}");
        refused.assert_problem(status, code);
    }
    assert!(folder.names("alice").is_empty());
    assert!(folder.names(".incoming").is_empty());
}

#[tokio::test]
async fn a_refused_upload_leaves_the_old_image() {
    let folder = TestFolder::new();
    let server = Server::images(&folder).await;
    let old = png(10, 10);
    server.put("/images/alice/a.png", old.clone()).await;
    server
        .put("/images/alice/a.png", "text")
        .await
        .assert_problem(415, "not_an_image");
    assert_eq!(server.get("/images/alice/a.png").answer().await.body, old);
}

#[tokio::test]
async fn an_upload_has_a_size_limit() {
    let folder = TestFolder::new();
    let server = Server::images(&folder).await;
    let (longest, too_long) = (png_of_length(MAX_IMAGE_BYTES), png_of_length(MAX_IMAGE_BYTES + 1));
    assert_eq!(server.put("/images/alice/a", longest.clone()).await.status, 201);
    assert_eq!(server.put("/images/alice/b", chunked(longest)).await.status, 201);
    let announced = server.put("/images/alice/c", too_long.clone()).await;
    announced.assert_problem(413, "upload_too_large");
    let unannounced = server.put("/images/alice/d", chunked(too_long)).await;
    unannounced.assert_problem(413, "upload_too_large");
    assert_eq!(folder.names("alice"), ["a", "b"]);
    assert!(folder.names(".incoming").is_empty());
}

#[tokio::test]
async fn a_client_that_sends_to_the_end_still_reads_its_refusal() {
    let folder = TestFolder::new();
    let server = Server::images(&folder).await;
    let mut connection = server.connect().await;
    let body = vec![0; 2 * MAX_IMAGE_BYTES];
    let length = body.len();
    let head = format!("PUT /images/alice/a.png HTTP/1.1\r\nhost: demo\r\ncontent-length: {length}\r\n\r\n");
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&body).await.unwrap();
    let mut status = [0; 12];
    connection.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_name_cannot_leave_its_place() {
    let folder = TestFolder::new();
    let inner = folder.join("inner");
    let server = Server::images(&inner).await;
    fs::write(folder.join("outside.png"), png(1, 1)).unwrap();
    let paths = [
        "/images/%2e%2e/outside.png",
        "/images/../outside.png",
        "/images/alice/%2e%2e%2f%2e%2e%2foutside.png",
        "/images/alice/..%5c..%5coutside.png",
        "/images/alice/%2e%2e",
        "/images/alice/.hidden",
        "/images/.incoming/x.png",
        "/images/alice/a%00.png",
        "/images/alice/a%ff.png",
        "/images/alice/a%20b.png",
        "/images/alice/caf%C3%A9.png",
        "/images/%2f/etc",
        "/images/alice/%2fetc%2fpasswd",
    ];
    for path in paths {
        for method in [Method::GET, Method::HEAD, Method::PUT] {
            let answer = server.ask(method.clone(), path).send(png(1, 1)).await;
            assert_eq!(answer.status, 400, "{method} {path}");
            if method != Method::HEAD {
                answer.assert_problem(400, "bad_image_name");
            }
        }
    }
    for path in [
        "/images/alice",
        "/images/alice/",
        "/images/alice/a/b",
        "/images//a.png",
        "/",
    ] {
        let answer = server.put(path, png(1, 1)).await;
        assert!([400, 404].contains(&answer.status), "{path}: {answer:?}");
    }
    assert_eq!(folder.names("."), ["inner", "outside.png"]);
    assert_eq!(folder.names("inner"), [".incoming"]);
}

#[tokio::test]
async fn a_write_can_ask_for_what_it_replaces() {
    let folder = TestFolder::new();
    let server = Server::images(&folder).await;
    let put = async |condition: &str, value: &str, seed: u64| -> Answer {
        let ask = server
            .ask(Method::PUT, "/images/alice/a.png")
            .with(condition, value);
        ask.send(sample_png(seed)).await
    };
    put("if-match", "*", 1)
        .await
        .assert_problem(412, "precondition_failed");
    let created = put("if-none-match", "*", 1).await;
    assert_eq!(created.status, 201);
    put("if-none-match", "*", 2)
        .await
        .assert_problem(412, "precondition_failed");
    put("if-match", "\"another\"", 2)
        .await
        .assert_problem(412, "precondition_failed");
    let replaced = put("if-match", created.header("etag"), 2).await;
    assert_eq!(replaced.status, 204);
    let late = put("if-match", created.header("etag"), 3).await;
    late.assert_problem(412, "precondition_failed");
    assert_eq!(
        server.get("/images/alice/a.png").answer().await.body,
        sample_png(2)
    );
}

#[tokio::test]
async fn a_part_is_not_taken_for_the_whole() {
    let folder = TestFolder::new();
    let server = Server::images(&folder).await;
    let ask = server.ask(Method::PUT, "/images/alice/a.png");
    let part = ask.with("content-range", "bytes 0-9/100").send(png(1, 1)).await;
    part.assert_problem(400, "partial_upload");
}

#[tokio::test]
async fn readers_see_one_whole_image_while_writers_replace_it() {
    let folder = TestFolder::new();
    let server = &Server::images(&folder).await;
    let images: Vec<_> = (0..4).map(sample_png).collect();
    server.put("/images/alice/a.png", images[0].clone()).await;
    let writes = images.iter().map(|image| async {
        assert_eq!(server.put("/images/alice/a.png", image.clone()).await.status, 204);
    });
    let reads = (0..20).map(|_| async {
        let read = server.get("/images/alice/a.png").answer().await;
        assert!(read.status == 200 && images.contains(&read.body));
    });
    tokio::join!(join_all(writes), join_all(reads));
    assert!(folder.names(".incoming").is_empty());
}

#[tokio::test]
async fn an_owner_has_a_thousand_images_at_most() {
    let folder = TestFolder::new();
    let server = Server::images(&folder).await;
    fs::create_dir(folder.join("alice")).unwrap();
    for number in 0..999 {
        File::create(folder.join(format!("alice/{number}"))).unwrap();
    }
    assert_eq!(server.put("/images/alice/a.png", png(1, 1)).await.status, 201);
    let one_more = server.put("/images/alice/b.png", png(1, 1)).await;
    one_more.assert_problem(507, "too_many_images");
    assert_eq!(server.put("/images/alice/a.png", png(2, 2)).await.status, 204);
    assert_eq!(server.put("/images/bob/b.png", png(1, 1)).await.status, 201);
}

#[tokio::test]
async fn no_other_method_is_taken() {
    let folder = TestFolder::new();
    let server = Server::images(&folder).await;
    for method in [Method::POST, Method::DELETE, Method::PATCH] {
        let refused = server.ask(method, "/images/alice/a.png").answer().await;
        refused.assert_problem(405, "no_such_method");
        assert_eq!(refused.header("allow"), "GET,HEAD,PUT");
    }
}

#[tokio::test]
async fn a_sample_is_there_and_does_not_replace() {
    let folder = TestFolder::new();
    let images = ImageFolder::open(&*folder).unwrap();
    images.put_sample("alice", "hello.png").unwrap();
    images.put_sample("bob", "hello.png").unwrap();
    let server = Server::images(&folder).await;
    let read = async |path: &str| server.get(path).answer().await;
    let (hers, his) = (
        read("/images/alice/hello.png").await,
        read("/images/bob/hello.png").await,
    );
    assert_eq!((hers.status, his.status), (200, 200));
    assert_ne!(hers.body, his.body);

    server.put("/images/alice/hello.png", png(3, 3)).await;
    images.put_sample("alice", "hello.png").unwrap();
    assert_eq!(read("/images/alice/hello.png").await.body, png(3, 3));
    let bad = images.put_sample("../alice", "hello.png").unwrap_err();
    assert_eq!(bad.kind(), ErrorKind::InvalidInput);
    assert!(folder.names(".incoming").is_empty());
}

#[test]
fn opening_a_folder_removes_only_what_was_abandoned() {
    let folder = TestFolder::new();
    ImageFolder::open(&*folder).unwrap();
    let (old, young) = (folder.join(".incoming/old"), folder.join(".incoming/young"));
    File::create(&old)
        .unwrap()
        .set_modified(SystemTime::UNIX_EPOCH)
        .unwrap();
    File::create(&young).unwrap();
    ImageFolder::open(&*folder).unwrap();
    assert_eq!(folder.names(".incoming"), ["young"]);
    assert!(ImageFolder::open(young).is_err());
}
