//! Whether a file goes on to its format's end.
//!
//! Decoders are kind: a JPEG that stops in its middle comes out grey from there
//! on, and a PNG that lost its last chunk comes out whole. Half an upload is
//! not an image that its owner meant to keep, so both are refused.

use super::inspect::Format;

/// Whether `bytes`, which begin as `format`, reach its end marker. What comes
/// after it does not count: cameras append a second picture or a film there.
pub(super) fn reaches_its_end(format: Format, bytes: &[u8]) -> bool {
    let end = match format {
        Format::Png => png_end(bytes),
        Format::Jpeg => jpeg_end(bytes),
    };
    end.is_some()
}

/// Walks the chunks (PNG specification, section 5.3) to a whole `IEND`.
fn png_end(bytes: &[u8]) -> Option<()> {
    const SIGNATURE: usize = 8;
    const CHECKSUM: usize = 4;
    let mut rest = bytes.get(SIGNATURE..)?;
    loop {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (kind, after) = after.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        rest = after.get(length.checked_add(CHECKSUM)?..)?;
        if kind == b"IEND" {
            return Some(());
        }
    }
}

/// Walks the segments (ITU-T T.81, section B.1.1) to the end of the image.
fn jpeg_end(bytes: &[u8]) -> Option<()> {
    let mut rest = bytes;
    loop {
        // Before a marker: nothing, or the compressed data of a scan, in which
        // 0xFF is always followed by 0x00.
        let at = rest.iter().position(|&byte| byte == 0xff)?;
        let (&code, after) = rest.get(at + 1..)?.split_first()?;
        rest = match code {
            END_OF_IMAGE => return Some(()),
            // A byte that fills: the next may be the code.
            0xff => &rest[at + 1..],
            0x00 | TEMPORARY | FIRST_RESTART..=START_OF_IMAGE => after,
            _ => {
                let length = after.first_chunk::<2>()?;
                after.get(usize::from(u16::from_be_bytes(*length))..)?
            }
        };
    }
}

/// The markers without a length.
const TEMPORARY: u8 = 0x01;
const FIRST_RESTART: u8 = 0xd0;
const START_OF_IMAGE: u8 = 0xd8;
const END_OF_IMAGE: u8 = 0xd9;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::sample_png;

    #[test]
    fn a_png_ends_with_a_whole_iend() {
        let png = sample_png(1);
        assert!(reaches_its_end(Format::Png, &png));
        for length in 0..png.len() {
            assert!(!reaches_its_end(Format::Png, &png[..length]), "{length}");
        }
        let followed = [&*png, b"something else"].concat();
        assert!(reaches_its_end(Format::Png, &followed));
    }

    #[test]
    fn a_jpeg_ends_outside_of_its_segments_and_scans() {
        let start = [0xff, 0xd8];
        let comment_that_holds_an_end = [0xff, 0xfe, 0, 4, 0xff, 0xd9];
        let scan = [0xff, 0xda, 0, 2, 1, 2, 0xff, 0x00, 0xd9, 0xff, 0xd0, 3];
        let end = [0xff, 0xff, 0xd9];
        let jpeg = [&start[..], &comment_that_holds_an_end, &scan, &end].concat();
        assert!(reaches_its_end(Format::Jpeg, &jpeg));
        for length in 0..jpeg.len() {
            assert!(!reaches_its_end(Format::Jpeg, &jpeg[..length]), "{length}");
        }
    }

    #[test]
    fn a_segment_that_claims_no_length_does_not_loop() {
        assert!(!reaches_its_end(Format::Jpeg, &[0xff, 0xd8, 0xff, 0xe0, 0, 0]));
    }
}
