//! The bytes of an input: counted for the progress, inflated if they are compressed, without a byte order mark.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::record::{malformed, unreadable};
use crate::cli::support::error::CliError;

/// How a compressed input begins, and one with a byte order mark.
const GZIP: &[u8] = &[0x1f, 0x8b];
const UTF8_MARK: &[u8] = &[0xef, 0xbb, 0xbf];
const UTF16_MARKS: [&[u8]; 2] = [&[0xff, 0xfe], &[0xfe, 0xff]];

/// Counts the bytes that were read.
pub(crate) struct Counted<R> {
    input: R,
    count: Arc<AtomicU64>,
}

impl<R> Counted<R> {
    pub(crate) fn new(input: R, count: Arc<AtomicU64>) -> Counted<R> {
        Counted { input, count }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.input.read(buffer)?;
        self.count.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }
}

/// The text of an input: inflated if it is compressed with gzip, without a byte order mark. Waits for its first byte, and
/// for no more than its beginning needs.
///
/// # Errors
/// It cannot be read, or is UTF-16.
pub(crate) fn open_text(
    mut input: impl BufRead + Send + 'static,
) -> Result<Box<dyn BufRead + Send>, CliError> {
    let head = head_of(&mut input).map_err(|error| unreadable(1, &error))?;
    if head != GZIP {
        return without_mark(head, input);
    }
    let whole = Cursor::new(head).chain(input);
    let mut inflated = BufReader::new(MultiGzDecoder::new(whole));
    let head = head_of(&mut inflated).map_err(|error| unreadable(1, &error))?;
    without_mark(head, inflated)
}

/// As many bytes as are needed to tell how the input begins.
fn head_of(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let marks = [GZIP, UTF8_MARK, UTF16_MARKS[0], UTF16_MARKS[1]];
    let mut head = Vec::new();
    while marks.iter().any(|mark| mark.len() > head.len() && mark.starts_with(&head)) {
        let Some(&byte) = input.fill_buf()?.first() else { break };
        input.consume(1);
        head.push(byte);
    }
    Ok(head)
}

fn without_mark(
    head: Vec<u8>,
    rest: impl BufRead + Send + 'static,
) -> Result<Box<dyn BufRead + Send>, CliError> {
    if UTF16_MARKS.contains(&&*head) {
        return Err(malformed(1, "the text is UTF-16, which is not read")
            .help("convert it: iconv -f UTF-16 -t UTF-8 FILE"));
    }
    Ok(if head == UTF8_MARK { Box::new(rest) } else { Box::new(Cursor::new(head).chain(rest)) })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn text_of(bytes: &[u8]) -> Result<String, String> {
        let mut input = open_text(Cursor::new(bytes.to_vec())).map_err(|error| error.to_string())?;
        let mut text = String::new();
        input.read_to_string(&mut text).map_err(|error| unreadable(7, &error).to_string())?;
        Ok(text)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn marks_and_compression_are_taken_off() {
        let text = "a,b\n1,2\n".repeat(1_000);
        let marked = [UTF8_MARK, text.as_bytes()].concat();
        // Two files one after the other are one, as `cat a.gz b.gz` makes it.
        let two = [gzip(&marked), gzip(b"3,4\n")].concat();
        for (bytes, expected) in [
            (text.clone().into_bytes(), text.clone()),
            (marked.clone(), text.clone()),
            (gzip(&marked), text.clone()),
            (two, format!("{text}3,4\n")),
            (b"".to_vec(), String::new()),
            (b"\xef".to_vec(), String::new()),
            (b"{".to_vec(), "{".to_owned()),
        ] {
            if bytes == b"\xef" {
                assert!(text_of(&bytes).is_err(), "half a mark is no text");
                continue;
            }
            assert_eq!(text_of(&bytes), Ok(expected));
        }
        let cut = gzip(text.as_bytes());
        assert_eq!(text_of(&cut[..cut.len() - 9]), Err("line 7: the compressed data ends too early".into()));
        let mut damaged = cut.clone();
        let at = damaged.len() - 6;
        damaged[at] ^= 1;
        assert!(
            text_of(&damaged).expect_err("damaged").starts_with("line 7: the compressed data is damaged")
        );
        assert_eq!(text_of(b"\xff\xfea\0"), Err("line 1: the text is UTF-16, which is not read".into()));
    }

    /// Gives one byte, then nothing for ever: whoever asks for a second one fails.
    struct OneByte(Option<u8>);

    impl Read for OneByte {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer[0] = self.0.take().ok_or_else(|| io::Error::other("asked for more"))?;
            Ok(1)
        }
    }

    #[test]
    fn a_live_input_is_not_waited_for() {
        assert!(open_text(BufReader::new(OneByte(Some(b'{')))).is_ok());
        assert!(open_text(BufReader::new(OneByte(Some(b'\n')))).is_ok());
    }
}
