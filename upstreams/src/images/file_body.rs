//! Sending part of a file in constant memory.

use std::{
    fs::File,
    io::{self, ErrorKind, SeekFrom},
    ops::Range,
};

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// Bytes read at a time: all that one download holds.
const CHUNK_BYTES: u64 = 64 * 1024;

/// A body of these bytes of `file`, read as the client takes them.
pub(super) fn file_body(file: File, range: Range<u64>) -> Body {
    let mut file = tokio::fs::File::from_std(file);
    file.set_max_buf_size(CHUNK_BYTES as usize);
    let unsent = Unsent {
        file,
        range,
        at_start: false,
    };
    Body::from_stream(stream::try_unfold(unsent, Unsent::next_chunk))
}

struct Unsent {
    file: tokio::fs::File,
    range: Range<u64>,
    /// Whether the file stands where the range starts.
    at_start: bool,
}

impl Unsent {
    async fn next_chunk(mut self) -> io::Result<Option<(Bytes, Self)>> {
        if self.range.is_empty() {
            return Ok(None);
        }
        if !self.at_start {
            self.file.seek(SeekFrom::Start(self.range.start)).await?;
            self.at_start = true;
        }
        let wanted = CHUNK_BYTES.min(self.range.end - self.range.start) as usize;
        let mut chunk = BytesMut::with_capacity(wanted).limit(wanted);
        let read = self.file.read_buf(&mut chunk).await?;
        if read == 0 {
            // Somebody cut the file short by hand. A broken connection tells
            // the client; a short body would pass for the whole.
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.range.start += read as u64;
        Ok(Some((chunk.into_inner().freeze(), self)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use http_body_util::BodyExt;

    use super::*;

    /// A file of `length` bytes that has no name any more.
    fn file(length: usize) -> (File, Vec<u8>) {
        let content: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        let path = std::env::temp_dir().join(format!("durward-file-body-{}-{length}", std::process::id()));
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all(&content).unwrap();
        (file, content)
    }

    #[tokio::test]
    async fn exactly_the_range_is_sent() {
        for range in [0..1, 0..200_000, 65_535..65_537, 199_999..200_000, 5..5] {
            let (file, content) = file(200_000 + range.start as usize % 7);
            let sent = file_body(file, range.clone()).collect().await.unwrap().to_bytes();
            let expected = &content[range.start as usize..range.end as usize];
            assert!(sent == expected, "{range:?}");
        }
    }

    #[tokio::test]
    async fn a_file_that_ends_early_breaks_the_body() {
        let (file, _) = file(10);
        assert!(file_body(file, 0..11).collect().await.is_err());
    }
}
