//! `?width=N` on the image server.

use std::fs;

use image::{DynamicImage, GenericImageView, ImageFormat};

use crate::{
    client::{Answer, Server, TestFolder},
    image_files::{encoded, jpeg, png, turned},
};

#[track_caller]
fn decoded(answer: &Answer) -> DynamicImage {
    assert_eq!(answer.status, 200, "{answer:?}");
    image::load_from_memory(&answer.body).unwrap()
}

/// Whether the pixel is about as red, green and blue as that.
#[track_caller]
fn assert_colour(image: &DynamicImage, (x, y): (u32, u32), colour: [u8; 3]) {
    let pixel = image.get_pixel(x, y).0;
    let near = (0..3).all(|channel| pixel[channel].abs_diff(colour[channel]) < 40);
    assert!(near, "{pixel:?} at {x}, {y} instead of {colour:?}");
}

#[tokio::test]
async fn a_thumbnail_keeps_the_aspect_the_format_and_the_picture() {
    let folder = TestFolder::new();
    let server = Server::images(&folder).await;
    for (path, image, media_type) in [
        ("/images/a/p", png(300, 150), "image/png"),
        ("/images/a/j", jpeg(300, 150), "image/jpeg"),
    ] {
        server.put(path, image).await;
        for (width, height) in [(100, 50), (1, 1), (299, 150)] {
            let answer = server.get(&format!("{path}?width={width}")).answer().await;
            let thumbnail = decoded(&answer);
            assert_eq!(thumbnail.dimensions(), (width, height));
            assert_eq!(answer.header("content-type"), media_type);
            assert_eq!(answer.header("cache-control"), "private, no-cache");
        }
        let thumbnail = decoded(&server.get(&format!("{path}?width=40")).answer().await);
        assert_colour(&thumbnail, (5, 10), [255, 0, 0]);
        assert_colour(&thumbnail, (35, 10), [0, 0, 255]);
    }
}

#[tokio::test]
async fn nothing_is_scaled_up() {
    let folder = TestFolder::new();
    let server = Server::images(&folder).await;
    let image = png(30, 60);
    let created = server.put("/images/a/p", image.clone()).await;
    for width in [30, 31, 2048] {
        let answer = server.get(&format!("/images/a/p?width={width}")).answer().await;
        assert_eq!((answer.status, &answer.body), (200, &image), "{width}");
        assert_eq!(answer.header("etag"), created.header("etag"));
    }
}

#[tokio::test]
async fn a_thumbnail_has_its_own_tag_and_ranges() {
    let folder = TestFolder::new();
    let server = Server::images(&folder).await;
    server.put("/images/a/p", png(300, 150)).await;
    let get = |query: &str| server.get(&format!("/images/a/p?{query}"));
    let (whole, small) = (get("").answer().await, get("width=20").answer().await);
    let smaller = get("width=10").answer().await;
    assert_ne!(whole.header("etag"), small.header("etag"));
    assert_ne!(small.header("etag"), smaller.header("etag"));

    let known = get("width=20")
        .with("if-none-match", small.header("etag"))
        .answer()
        .await;
    assert_eq!((known.status, &*known.body), (304, &b""[..]));
    let other = get("width=20")
        .with("if-none-match", whole.header("etag"))
        .answer()
        .await;
    assert_eq!((other.status, &other.body), (200, &small.body));
    let part = get("width=20").with("range", "bytes=2-5").answer().await;
    assert_eq!((part.status, &*part.body), (206, &small.body[2..6]));
    assert_eq!(
        part.header("content-range"),
        format!("bytes 2-5/{}", small.body.len())
    );

    server.put("/images/a/p", png(300, 300)).await;
    let replaced = get("width=20").answer().await;
    assert_eq!(decoded(&replaced).dimensions(), (20, 20));
}

#[tokio::test]
async fn a_width_is_a_number_within_bounds_and_the_rest_is_ignored() {
    let folder = TestFolder::new();
    let server = Server::images(&folder).await;
    server.put("/images/a/p", png(30, 30)).await;
    let get = async |query: &str| server.get(&format!("/images/a/p?{query}")).answer().await;
    for query in [
        "width=0",
        "width=2049",
        "width=-1",
        "width=x",
        "width=",
        "width=1.5",
        "width=1&width=2",
    ] {
        get(query).await.assert_problem(400, "bad_width");
    }
    for query in ["v=3", "height=5&fit=crop", "v=1&v=2", "%zz"] {
        assert_eq!(decoded(&get(query).await).dimensions(), (30, 30), "{query}");
    }
    assert_eq!(decoded(&get("v=3&width=7&height=9").await).dimensions(), (7, 7));
}

#[tokio::test]
async fn a_thumbnail_is_upright_as_the_original_is_shown() {
    let folder = TestFolder::new();
    let server = Server::images(&folder).await;
    assert_eq!(
        server.put("/images/a/j", turned(&jpeg(200, 100))).await.status,
        201
    );
    let thumbnail = decoded(&server.get("/images/a/j?width=50").answer().await);
    assert_eq!(thumbnail.dimensions(), (50, 100));
    // Turned clockwise, what was left is on top.
    assert_colour(&thumbnail, (25, 10), [255, 0, 0]);
    assert_colour(&thumbnail, (25, 90), [0, 0, 255]);
    // Shown, it is 100 wide.
    let original = server.get("/images/a/j?width=100").answer().await;
    assert_eq!(original.body, turned(&jpeg(200, 100)));
}

#[tokio::test]
async fn transparency_and_grey_survive() {
    let folder = TestFolder::new();
    let server = Server::images(&folder).await;
    let cases = [
        (DynamicImage::new_rgba8(20, 20), ImageFormat::Png),
        (DynamicImage::new_rgba16(20, 20), ImageFormat::Png),
        (DynamicImage::new_luma8(20, 20), ImageFormat::Png),
        (DynamicImage::new_luma8(20, 20), ImageFormat::Jpeg),
    ];
    for (image, format) in cases {
        server.put("/images/a/p", encoded(&image, format)).await;
        let thumbnail = decoded(&server.get("/images/a/p?width=10").answer().await);
        assert_eq!(thumbnail.color(), image.color());
        assert_eq!(thumbnail.get_pixel(5, 5), image.get_pixel(5, 5));
    }
}

#[tokio::test]
async fn an_image_broken_by_hand_has_no_thumbnail() {
    let folder = TestFolder::new();
    let server = Server::images(&folder).await;
    fs::create_dir(folder.join("a")).unwrap();
    fs::write(folder.join("a/p"), &png(30, 30)[..20]).unwrap();
    let answer = server.get("/images/a/p?width=10").answer().await;
    answer.assert_problem(422, "broken_image");
}
