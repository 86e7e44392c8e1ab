//! What a file really is: found out by decoding it, within limits.

use std::{
    fs::File,
    io::{self, BufReader, Cursor, Read, Seek},
};

use http::{HeaderValue, StatusCode};
use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, metadata::Orientation,
};
use thiserror::Error;

use super::{MAX_IMAGE_BYTES, ending::reaches_its_end};
use crate::problem::Problem;

/// Pixels along either side of an image.
const MAX_SIDE: u32 = 8192;

/// Bytes of a decoded image: about 33 million pixels of 8-bit RGB. A decoder
/// may need about twice as much again (the coefficients of a progressive JPEG).
const MAX_DECODED_BYTES: u64 = 96 * 1024 * 1024;

/// Bytes that tell the formats apart.
const SIGNATURE_BYTES: u64 = 16;

/// The formats that this server keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Png,
    Jpeg,
}

/// Why a file is no image that this server keeps.
#[derive(Debug, Error)]
pub(super) enum BadImage {
    #[error("the content is neither a PNG nor a JPEG, whatever its name and type say")]
    NotAnImage,
    #[error("the image is broken: {0}")]
    Broken(String),
    #[error("the image is too large: at most {MAX_SIDE} pixels a side, and 96 MiB decoded")]
    TooLarge,
    #[error("the file cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

impl Format {
    /// The media type to send.
    pub(super) fn media_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
        })
    }

    /// The format that the first bytes announce, with the file read from its
    /// start.
    pub(super) fn announced(file: &mut File) -> Result<Self, BadImage> {
        file.rewind()?;
        let mut signature = Vec::new();
        file.take(SIGNATURE_BYTES).read_to_end(&mut signature)?;
        Self::of_signature(&signature)
    }

    fn of_signature(bytes: &[u8]) -> Result<Self, BadImage> {
        match image::guess_format(bytes) {
            Ok(ImageFormat::Png) => Ok(Self::Png),
            Ok(ImageFormat::Jpeg) => Ok(Self::Jpeg),
            _ => Err(BadImage::NotAnImage),
        }
    }
}

impl From<Format> for ImageFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Png => Self::Png,
            Format::Jpeg => Self::Jpeg,
        }
    }
}

/// Decodes the whole file, and returns the format that it turned out to have.
/// Holds the file and the decoded image in memory: for a worker.
pub(super) fn verify(file: &mut File) -> Result<Format, BadImage> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(MAX_IMAGE_BYTES).read_to_end(&mut bytes)?;
    verify_bytes(&bytes)
}

/// As [`verify`], of bytes in memory.
pub(super) fn verify_bytes(bytes: &[u8]) -> Result<Format, BadImage> {
    let format = Format::of_signature(bytes)?;
    let decoder = Decoder::new(Cursor::new(bytes), format)?;
    decoder.decode()?;
    if !reaches_its_end(format, bytes) {
        return Err(BadImage::Broken("it stops before its end".to_owned()));
    }
    Ok(format)
}

/// An image whose head was read and found within the limits.
pub(super) struct Decoder<D> {
    decoder: D,
    orientation: Orientation,
}

/// Opens a kept file for decoding.
pub(super) fn decoder_of_file(
    mut file: File,
    format: Format,
) -> Result<Decoder<impl ImageDecoder>, BadImage> {
    // The JPEG decoder reads all of its file into memory.
    if file.metadata()?.len() > MAX_IMAGE_BYTES {
        return Err(BadImage::TooLarge);
    }
    file.rewind()?;
    Decoder::new(BufReader::new(file), format)
}

impl<'a> Decoder<()> {
    fn new<R: io::BufRead + Seek + 'a>(
        reader: R,
        format: Format,
    ) -> Result<Decoder<impl ImageDecoder + 'a>, BadImage> {
        let mut limits = Limits::no_limits();
        limits.max_image_width = Some(MAX_SIDE);
        limits.max_image_height = Some(MAX_SIDE);
        limits.max_alloc = Some(MAX_DECODED_BYTES);
        let mut reader = ImageReader::with_format(reader, format.into());
        reader.limits(limits);
        let mut decoder = reader.into_decoder()?;
        // The JPEG decoder does not look at `max_alloc`.
        if decoder.total_bytes() > MAX_DECODED_BYTES {
            return Err(BadImage::TooLarge);
        }
        let orientation = decoder.orientation()?;
        Ok(Decoder { decoder, orientation })
    }
}

impl<D: ImageDecoder> Decoder<D> {
    /// Width and height as shown, which is after turning it upright.
    pub(super) fn shown_size(&self) -> (u32, u32) {
        let (width, height) = self.decoder.dimensions();
        match self.orientation {
            Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH => (height, width),
            Orientation::NoTransforms
            | Orientation::Rotate180
            | Orientation::FlipHorizontal
            | Orientation::FlipVertical => (width, height),
        }
    }

    /// All pixels, upright.
    pub(super) fn decode(self) -> Result<DynamicImage, BadImage> {
        let mut image = DynamicImage::from_decoder(self.decoder)?;
        image.apply_orientation(self.orientation);
        Ok(image)
    }
}

impl From<ImageError> for BadImage {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Limits(_) => Self::TooLarge,
            other => Self::Broken(other.to_string()),
        }
    }
}

impl From<BadImage> for Problem {
    fn from(bad: BadImage) -> Self {
        let (status, code) = match &bad {
            BadImage::NotAnImage => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_an_image"),
            BadImage::Broken(_) => (StatusCode::UNPROCESSABLE_ENTITY, "broken_image"),
            BadImage::TooLarge => (StatusCode::UNPROCESSABLE_ENTITY, "image_too_large"),
            BadImage::Unreadable(cause) => return Self::internal("reading an image", cause),
        };
        Self::new(status, code, bad.to_string())
    }
}
