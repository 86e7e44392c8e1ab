//! Image files for the tests: good ones, and bad ones built by hand.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

/// A picture whose left half is red and whose right half is blue.
pub fn red_and_blue(width: u32, height: u32) -> DynamicImage {
    let colour = |x, _| {
        if x < width / 2 {
            Rgb([255, 0, 0])
        } else {
            Rgb([0, 0, 255])
        }
    };
    DynamicImage::from(RgbImage::from_fn(width, height, colour))
}

/// As a file of this format.
pub fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// [`red_and_blue`] as a PNG.
pub fn png(width: u32, height: u32) -> Vec<u8> {
    encoded(&red_and_blue(width, height), ImageFormat::Png)
}

/// [`red_and_blue`] as a JPEG.
pub fn jpeg(width: u32, height: u32) -> Vec<u8> {
    encoded(&red_and_blue(width, height), ImageFormat::Jpeg)
}

/// The JPEG with an EXIF segment that asks to be shown turned by 90 degrees.
pub fn turned(jpeg: &[u8]) -> Vec<u8> {
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0".to_vec();
    // Orientation, a short, one of them: 6.
    exif.extend([0x12, 0x01, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0]);
    exif.extend([0, 0, 0, 0]);
    let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
}

/// A PNG of a few bytes that claims this size, in RGBA of `depth` bits.
pub fn bomb(width: u32, height: u32, depth: u8) -> Vec<u8> {
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([depth, 6, 0, 0, 0]);
    let empty_deflate_stream = [0x78, 0x9c, 0x03, 0, 0, 0, 0, 1];
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [
        (b"IHDR", &header[..]),
        (b"IDAT", &empty_deflate_stream),
        (b"IEND", &[]),
    ] {
        let checked = [kind, data].concat();
        file.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        file.extend(&checked);
        file.extend(crc32(&checked).to_be_bytes());
    }
    file
}

/// The checksum of the PNG specification, annex D.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| {
        if crc & 1 == 1 {
            0xedb8_8320 ^ (crc >> 1)
        } else {
            crc >> 1
        }
    };
    !bytes
        .iter()
        .fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}
