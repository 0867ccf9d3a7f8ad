//! The door to stored bytes for the fuzz targets.

use std::sync::RwLock;

use serde_json::{Map, Value};

use super::packed::{Names, Unpacker, json_len, pack_json};

use super::store::fuzzing::write_and_read_block;
pub use super::store::fuzzing::{read_and_write_block, read_keys, read_page};

/// The ID that packed bodies of the targets have.
pub const ID: &str = "the-id";

fn names() -> Names {
    let mut names = Names::default();
    for name in ["a", "b", "temperature", "x"] {
        names.intern(name);
    }
    names
}

/// A packed body as it is read in each way.
#[derive(Debug)]
pub struct Unpacked {
    /// As a map.
    pub map: Option<Map<String, Value>>,
    /// As JSON text.
    pub json: Option<Vec<u8>>,
    /// As the length of that text alone.
    pub json_len: Option<u64>,
}

/// Reads a packed body in each way.
pub fn unpack(packed: &[u8]) -> Unpacked {
    let names = names();
    let unpacker = Unpacker::new(&names, ID);
    Unpacked { map: unpacker.map(packed), json: unpacker.json(packed), json_len: json_len(&unpacker, packed) }
}

/// Packs JSON text and gives it back from its packed form.
///
/// # Errors
/// What is said about the text.
pub fn pack_and_unpack(text: &[u8]) -> Result<(Vec<u8>, Option<Vec<u8>>), String> {
    let names = RwLock::new(names());
    let mut packed = Vec::new();
    pack_json(text, ID, &names, &mut packed)?;
    let names = names.into_inner().unwrap_or_default();
    let json = Unpacker::new(&names, ID).json(&packed);
    Ok((packed, json))
}

/// Writes a block of documents as IDs and JSON text, and reads it again. A text that is none is a document that was deleted. `step` says how
/// far versions are apart, and what else there is of them.
///
/// # Panics
/// When something else is read than what went in.
pub fn documents_in_a_block(documents: &[(String, Vec<u8>)], step: u8) {
    let names = RwLock::new(names());
    let pack = |(id, text): &(String, Vec<u8>)| {
        let mut packed = Vec::new();
        if pack_json(text, id, &names, &mut packed).is_err() {
            packed.clear();
        }
        (id.clone(), packed)
    };
    write_and_read_block(documents.iter().map(pack).collect(), step.into());
}
