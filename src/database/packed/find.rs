//! One value out of stored bytes, without making the others.

use serde_json::Value;

use super::format::{Reader, tag};
use super::unpack::Unpacker;
use crate::replica::DOCUMENT_DEPTH_MAX;

/// A step into a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The member of an object.
    Member(Box<str>),
    /// The item of an array, from 0.
    Item(usize),
}

impl Unpacker<'_> {
    /// The value to which the steps lead; `Some(None)` if there is none, `None` means damage.
    pub(crate) fn find(&self, packed: &[u8], steps: &[Step]) -> Option<Option<Value>> {
        let mut reader = Reader::new(packed);
        for step in steps {
            let is_there = match (step, reader.byte()?) {
                (Step::Member(name), tag::OBJECT) => self.enter_member(&mut reader, name)?,
                (Step::Item(at), tag::ARRAY) => enter_item(&mut reader, *at)?,
                _ => false,
            };
            if !is_there {
                return Some(None);
            }
        }
        self.value(&mut reader, 1).map(Some)
    }

    fn enter_member(&self, reader: &mut Reader<'_>, name: &str) -> Option<bool> {
        let wanted = self.names.number(name);
        for _ in 0..reader.length()? {
            let is_it = match reader.number()? {
                0 => reader.text()? == name,
                number => wanted == Some(number),
            };
            if is_it {
                return Some(true);
            }
            skip(reader, 1)?;
        }
        Some(false)
    }
}

fn enter_item(reader: &mut Reader<'_>, at: usize) -> Option<bool> {
    if at >= reader.length()? {
        return Some(false);
    }
    for _ in 0..at {
        skip(reader, 1)?;
    }
    Some(true)
}

/// Passes over a value.
pub(crate) fn skip(reader: &mut Reader<'_>, depth: usize) -> Option<()> {
    match reader.byte()? {
        tag::NULL | tag::FALSE | tag::TRUE | tag::DOCUMENT_ID => {}
        tag::INTEGER | tag::UNSIGNED | tag::WHOLE | tag::TENTHS | tag::HUNDREDTHS | tag::THOUSANDTHS => {
            reader.varint()?;
        }
        tag::DECIMAL => {
            reader.byte()?;
            reader.varint()?;
        }
        tag::DOUBLE => drop(reader.take(8)?),
        tag::TEXT => {
            let len = reader.length()?;
            reader.take(len)?;
        }
        tag::ARRAY if depth <= DOCUMENT_DEPTH_MAX => {
            for _ in 0..reader.length()? {
                skip(reader, depth + 1)?;
            }
        }
        tag::OBJECT if depth <= DOCUMENT_DEPTH_MAX => {
            for _ in 0..reader.length()? {
                if reader.number()? == 0 {
                    reader.text()?;
                }
                skip(reader, depth + 1)?;
            }
        }
        _ => return None,
    }
    Some(())
}
