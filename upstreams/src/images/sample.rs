//! Generated images, so that a demonstration has something to show.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};

/// Squares along a side of the pattern.
const SQUARES: u32 = 5;

/// Pixels along a side of one square, and of the margin.
const SQUARE: u32 = 24;

/// A small PNG: a symmetric pattern of coloured squares that depends on
/// `label_seed` alone. The same seed gives the same bytes.
#[must_use]
pub fn sample_png(label_seed: u64) -> Vec<u8> {
    let mut random = SplitMix(label_seed);
    let (colour, pattern) = (random.next(), random.next());
    // Channels from 48 to 207 stand out from the paper.
    let channel = |shift: u32| 48 + (colour >> shift & 0xff) as u8 % 160;
    let ink = Rgb([channel(0), channel(8), channel(16)]);
    let side = (SQUARES + 2) * SQUARE;
    let picture = RgbImage::from_fn(side, side, |x, y| {
        if inked(pattern, x / SQUARE, y / SQUARE) {
            ink
        } else {
            Rgb([240, 240, 236])
        }
    });
    let mut png = Cursor::new(Vec::new());
    let encoded = picture.write_to(&mut png, ImageFormat::Png);
    encoded.expect("a PNG of a few kilobytes is written to memory");
    png.into_inner()
}

/// Whether the square at this column and row, margin included, has colour.
fn inked(pattern: u64, column: u32, row: u32) -> bool {
    let inside = 1..=SQUARES;
    if !inside.contains(&column) || !inside.contains(&row) {
        return false;
    }
    let (column, row) = (column - 1, row - 1);
    let mirrored = column.min(SQUARES - 1 - column);
    pattern >> (mirrored * SQUARES + row) & 1 == 1
}

/// The generator SplitMix64 (Steele, Lea, Flood; OOPSLA 2014): neighbouring
/// seeds give unlike numbers.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::images::inspect::{Format, verify_bytes};

    #[test]
    fn a_sample_is_a_real_png_of_its_own() {
        let samples: HashSet<Vec<u8>> = (0..20).map(sample_png).collect();
        assert_eq!(samples.len(), 20);
        assert!(
            samples
                .iter()
                .all(|png| verify_bytes(png).unwrap() == Format::Png)
        );
        assert_eq!(sample_png(7), sample_png(7));
    }
}
