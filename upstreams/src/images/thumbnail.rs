//! Smaller renditions of an image, made when asked for and remembered.

use std::{fs::File, io::Cursor};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::StatusCode;
use image::{
    DynamicImage,
    codecs::{jpeg::JpegEncoder, png::PngEncoder},
};
use quick_cache::{Weighter, sync::Cache};
use serde::Deserialize;

use super::{
    conditions::ETag,
    facts::Facts,
    folder::KeptFile,
    inspect::{BadImage, Format, decoder_of_file},
    workers::Workers,
};
use crate::problem::Problem;

/// The widest rendition.
const MAX_WIDTH: u32 = 2048;

/// Bytes of all remembered renditions together.
const MAX_REMEMBERED_BYTES: u64 = 64 * 1024 * 1024;

/// Renditions for which the cache reserves its tables.
const EXPECTED_RENDITIONS: usize = 4096;

/// What a remembered rendition weighs beside its bytes.
const OVERHEAD_BYTES: u64 = 256;

/// The quality of a JPEG rendition, from 1 to 100.
const JPEG_QUALITY: u8 = 85;

/// The query of a read. Other parameters are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct Size {
    width: Option<u32>,
}

impl Size {
    /// The width asked for, if one is, within the limits.
    pub(super) fn width(&self) -> Result<Option<u32>, Problem> {
        match self.width {
            Some(width) if !(1..=MAX_WIDTH).contains(&width) => Err(Self::bad_width()),
            width => Ok(width),
        }
    }

    /// The answer to a width that is no number, or out of bounds, or repeated.
    pub(super) fn bad_width() -> Problem {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "bad_width",
            format!("width must be given once, as a number from 1 to {MAX_WIDTH}"),
        )
    }
}

/// What to send for a width.
#[derive(Debug, Clone)]
pub(super) enum Rendition {
    /// The image is not wider than that: as it is.
    Original,
    /// Scaled down, in the format of the original.
    Smaller { bytes: Bytes, etag: ETag },
}

/// Renditions by the original's tag and the width.
pub(super) struct ThumbnailCache(Cache<(ETag, u32), Rendition, ByBytes>);

#[derive(Clone)]
struct ByBytes;

impl Weighter<(ETag, u32), Rendition> for ByBytes {
    fn weight(&self, _key: &(ETag, u32), rendition: &Rendition) -> u64 {
        match rendition {
            Rendition::Original => OVERHEAD_BYTES,
            Rendition::Smaller { bytes, .. } => OVERHEAD_BYTES + bytes.len() as u64,
        }
    }
}

impl Default for ThumbnailCache {
    fn default() -> Self {
        Self(Cache::with_weighter(
            EXPECTED_RENDITIONS,
            MAX_REMEMBERED_BYTES,
            ByBytes,
        ))
    }
}

impl ThumbnailCache {
    /// The rendition of `kept` for `width`, made by a worker where it is not
    /// remembered; requests for the same one wait for one worker.
    pub(super) async fn of(
        &self,
        kept: &KeptFile,
        facts: &Facts,
        width: u32,
        workers: &Workers,
    ) -> Result<Rendition, Problem> {
        let make = async {
            let file = kept.file.try_clone().map_err(BadImage::from)?;
            let format = facts.format;
            Ok(workers.run(move || make(file, format, width)).await??)
        };
        let key = (facts.etag.clone(), width);
        self.0.get_or_insert_async(&key, make).await
    }
}

fn make(file: File, format: Format, width: u32) -> Result<Rendition, BadImage> {
    let decoder = decoder_of_file(file, format)?;
    let original = decoder.shown_size();
    if width >= original.0 {
        return Ok(Rendition::Original);
    }
    // Averaging over boxes needs no memory beside the result, where the finer
    // filters hold a copy in floating point, and looks as good at this scale.
    let smaller = decoder
        .decode()?
        .thumbnail_exact(width, height_for(width, original));
    let bytes = Bytes::from(encode(smaller, format)?);
    let etag = ETag::of(&digest(&SHA256, &bytes));
    Ok(Rendition::Smaller { bytes, etag })
}

/// The height that keeps the aspect, rounded, at least one pixel.
fn height_for(width: u32, (full_width, full_height): (u32, u32)) -> u32 {
    let (width, full_width) = (u64::from(width), u64::from(full_width));
    let height = (u64::from(full_height) * width + full_width / 2) / full_width;
    // Never larger than the full height, because width < full width.
    (height as u32).max(1)
}

fn encode(image: DynamicImage, format: Format) -> Result<Vec<u8>, BadImage> {
    let mut bytes = Cursor::new(Vec::new());
    match (format, image) {
        (Format::Png, image) => image.write_with_encoder(PngEncoder::new(&mut bytes))?,
        (Format::Jpeg, image @ DynamicImage::ImageLuma8(_)) => {
            image.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY))?;
        }
        (Format::Jpeg, image) => {
            let encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
            DynamicImage::from(image.into_rgb8()).write_with_encoder(encoder)?;
        }
    }
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aspect_is_kept_and_nothing_vanishes() {
        let cases = [
            (50, (100, 100), 50),
            (50, (100, 200), 100),
            (1, (3, 2), 1),
            (2, (3, 2), 1),
            (100, (8192, 1), 1),
            (1, (2, 8192), 4096),
            (2047, (2048, 8192), 8188),
        ];
        for (width, full, height) in cases {
            assert_eq!(height_for(width, full), height, "{width} of {full:?}");
        }
    }

    #[test]
    fn a_width_has_bounds() {
        for (width, fine) in [(0, false), (1, true), (2048, true), (2049, false)] {
            let size = Size { width: Some(width) };
            assert_eq!(size.width().is_ok(), fine, "{width}");
        }
        assert_eq!(Size { width: None }.width(), Ok(None));
    }

    #[test]
    fn every_decoded_kind_of_pixel_can_be_encoded() {
        let kinds = [
            DynamicImage::new_luma8(2, 2),
            DynamicImage::new_luma_a8(2, 2),
            DynamicImage::new_rgb8(2, 2),
            DynamicImage::new_rgba8(2, 2),
            DynamicImage::new_luma16(2, 2),
            DynamicImage::new_luma_a16(2, 2),
            DynamicImage::new_rgb16(2, 2),
            DynamicImage::new_rgba16(2, 2),
        ];
        for image in kinds {
            assert!(encode(image.clone(), Format::Png).is_ok());
            assert!(encode(image, Format::Jpeg).is_ok());
        }
    }
}
