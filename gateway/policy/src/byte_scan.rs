//! Looking through bytes eight at a time, in plain arithmetic: what vector instructions the compiler
//! finds in such loops differs too much from one to the next.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Whether all is printable ASCII (a space is), and none of it is one of `others`, which are ASCII
/// too.
#[inline]
pub fn is_plain<const OTHERS: usize>(text: &[u8], others: [u8; OTHERS]) -> bool {
    // A byte of a word sets its high bit where it is below the space, where it is the delete
    // character or above, or where it is one of the others. What a byte borrows from or carries to
    // its neighbour may set more bits, but only where it has set its own.
    let special = |word: u64| {
        let unprintable = word.wrapping_sub(ONES * 0x20) | word.wrapping_add(ONES);
        others.iter().fold(unprintable, |special, other| {
            special | (word ^ (ONES * u64::from(*other))).wrapping_sub(ONES)
        })
    };
    let (words, rest) = text.as_chunks::<8>();
    let mut found = words
        .iter()
        .fold(0, |found, word| found | special(u64::from_le_bytes(*word)));
    if !rest.is_empty() {
        found |= special(match text.last_chunk::<8>() {
            // Some bytes are seen twice.
            Some(last) => u64::from_le_bytes(*last),
            None => rest.iter().fold(ONES * u64::from(PADDING), |word, byte| {
                word << 8 | u64::from(*byte)
            }),
        });
    }
    debug_assert!(!others.contains(&PADDING), "a short text would never be plain");
    found & HIGH == 0
}

/// Stands in for what a short text lacks.
const PADDING: u8 = b'a';

#[cfg(test)]
mod tests {
    use super::is_plain;

    #[test]
    fn a_byte_is_found_wherever_it_is_and_whatever_is_beside_it() {
        for byte in 0..=u8::MAX {
            let printable = (b' '..=b'~').contains(&byte);
            let plain = printable && byte != b'"' && byte != b'\\';
            for length in 1..20 {
                for place in 0..length {
                    for beside in [b' ', b'a', b'~'] {
                        let mut text = vec![beside; length];
                        text[place] = byte;
                        assert_eq!(is_plain(&text, []), printable, "{text:?}");
                        assert_eq!(is_plain(&text, [b'"', b'\\']), plain, "{text:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn two_special_bytes_do_not_hide_each_other() {
        for (left, right) in (0..=u8::MAX).flat_map(|left| (0..=u8::MAX).map(move |right| (left, right))) {
            let mut text = *b"aaaaaaaaa";
            (text[3], text[4]) = (left, right);
            let plain = [left, right]
                .iter()
                .all(|byte| (b' '..=b'~').contains(byte) && *byte != b'"');
            assert_eq!(is_plain(&text, [b'"']), plain, "{left} {right}");
        }
    }

    #[test]
    fn nothing_is_plain() {
        assert!(is_plain(b"", []));
    }
}
