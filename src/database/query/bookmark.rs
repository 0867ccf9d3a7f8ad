//! Where a page of rows ended, as a text that means nothing to who keeps it.
//!
//! | field | bytes |
//! |---|---|
//! | version | 1: `01` |
//! | query | 8: what it was made for, without its limit |
//! | place | varint length, the encodings of what the rows are sorted by |
//! | ID | varint length, UTF-8 |
//! | CRC-32 of all that | 4 |

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::database::DatabaseError;
use crate::database::packed::{Reader, put_text, put_varint};
use crate::replica::DOCUMENT_ID_MAX;

const VERSION: u8 = 1;

/// Longest place of a row, bytes: what it is sorted by may not be longer where a bookmark is made of it.
const PLACE_BYTES_MAX: usize = 2_048;

/// Longest bookmark, characters.
const BOOKMARK_CHARS_MAX: usize = 4 * (1 + 8 + 2 + PLACE_BYTES_MAX + 2 + DOCUMENT_ID_MAX + 4).div_ceil(3);

/// Where a row stands among the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) place: Vec<u8>,
    pub(super) id: String,
}

/// The bookmark of a position in the answer to a query.
///
/// # Errors
/// [`DatabaseError::QueryTooLarge`]: what it is sorted by is too long.
pub(super) fn write(query: u64, position: &Position) -> Result<String, DatabaseError> {
    if position.place.len() > PLACE_BYTES_MAX {
        let actual = position.place.len();
        return Err(DatabaseError::QueryTooLarge {
            reason: format!("{actual} bytes of values to go on after, a bookmark holds {PLACE_BYTES_MAX}"),
        });
    }
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&query.to_be_bytes());
    put_varint(&mut bytes, position.place.len() as u64);
    bytes.extend_from_slice(&position.place);
    put_text(&mut bytes, &position.id);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// The position that a bookmark says.
///
/// # Errors
/// [`DatabaseError::BadQuery`]: it is none, or was made for another query.
pub(super) fn read(query: u64, bookmark: &str) -> Result<Position, DatabaseError> {
    let wrong = |reason: &str| DatabaseError::BadQuery { reason: format!("the bookmark {reason}") };
    if bookmark.len() > BOOKMARK_CHARS_MAX {
        return Err(wrong("is longer than any"));
    }
    let broken = || wrong("is none, or not all of it");
    let bytes = URL_SAFE_NO_PAD.decode(bookmark).map_err(|_| broken())?;
    let (bytes, check) = bytes.split_last_chunk::<4>().ok_or_else(broken)?;
    if crc32fast::hash(bytes).to_be_bytes() != *check {
        return Err(broken());
    }
    let mut reader = Reader::new(bytes);
    if reader.byte() != Some(VERSION) {
        return Err(wrong("is of another release"));
    }
    if reader.take(8) != Some(&query.to_be_bytes()[..]) {
        return Err(wrong("was made for another query"));
    }
    let place = reader.length().and_then(|len| reader.take(len)).ok_or_else(broken)?;
    let id = reader.text().ok_or_else(broken)?;
    if reader.remaining() > 0 {
        return Err(broken());
    }
    Ok(Position { place: place.to_vec(), id: id.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bookmark_says_where_and_nothing_else_does() {
        let position = Position { place: vec![5, 0, 255, 1], id: "boiler".into() };
        let bookmark = write(7, &position).expect("short");
        assert_eq!(read(7, &bookmark).expect("ours"), position);
        assert!(read(8, &bookmark).is_err(), "of another query");
        let mut others =
            vec![String::new(), "A".into(), "\u{e4}".into(), bookmark.clone() + "A", "A".repeat(100_000)];
        for at in 0..bookmark.len() {
            let other = if &bookmark[at..=at] == "A" { "B" } else { "A" };
            others.push(format!("{}{other}{}", &bookmark[..at], &bookmark[at + 1..]));
            others.push(bookmark[..at].to_owned());
        }
        for other in others {
            assert!(matches!(read(7, &other), Err(DatabaseError::BadQuery { .. })), "{other:.60}");
        }
        let longest = Position { place: vec![1; PLACE_BYTES_MAX], id: "x".repeat(DOCUMENT_ID_MAX) };
        assert_eq!(read(7, &write(7, &longest).expect("just short enough")).expect("ours"), longest);
        let longer = Position { place: vec![1; PLACE_BYTES_MAX + 1], id: String::new() };
        assert!(matches!(write(7, &longer), Err(DatabaseError::QueryTooLarge { .. })));
    }
}
