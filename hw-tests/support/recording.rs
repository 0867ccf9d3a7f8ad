//! Reads the recorded conversations of `hw-tests/vectors/`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use gattway::lab::blip::Properties;
use gattway::lab::blip::frame::{Frame, FrameFlags};
use gattway::lab::blip::stream::StreamDecoder;
use gattway::lab::blip::varint;
use serde_json::Value;

/// Files whose lines are not frames.
pub const OTHER_FORMS: [&str; 7] = [
    "large-message-vv",
    "long-id-probe",
    "many-authors-probe",
    "probes-passive-replies",
    "reserved-keys-probe",
    "revid-revtree",
    "vv-encoding",
];

/// Who sent something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Active,
    Passive,
}

impl Side {
    pub fn of_direction(direction: &str) -> Side {
        match direction {
            "A>P" => Side::Active,
            "P>A" => Side::Passive,
            other => panic!("direction {other:?}"),
        }
    }

    pub fn other(self) -> Side {
        if self == Side::Active { Side::Passive } else { Side::Active }
    }
}

/// One line: what one side sent at once.
#[derive(Clone, Debug)]
pub struct Sent {
    pub from: Side,
    pub bytes: Vec<u8>,
}

/// A whole file.
#[derive(Clone, Debug)]
pub struct Recording {
    pub name: String,
    pub header: Value,
    pub sent: Vec<Sent>,
}

impl Recording {
    pub fn is_byte_stream(&self) -> bool {
        self.header["framing"] == "ByteStream"
    }

    pub fn compression(&self) -> u32 {
        self.header["compression"].as_u64().map_or(0, |level| level as u32)
    }
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("hw-tests/vectors")
}

/// The lines of a file as JSON; the first is the header.
pub fn lines(name: &str) -> Vec<Value> {
    let path = folder().join(name).with_extension("jsonl");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

pub fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "hex of odd length");
    let digit = |b: u8| (b as char).to_digit(16).expect("hex digit") as u8;
    text.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

pub fn read(name: &str) -> Recording {
    let mut lines = lines(name).into_iter();
    let header = lines.next().expect("a header");
    let sent = lines
        .map(|line| Sent {
            from: Side::of_direction(line["dir"].as_str().expect("dir")),
            bytes: unhex(line["hex"].as_str().expect("hex")),
        })
        .collect();
    Recording { name: name.to_owned(), header, sent }
}

/// Names of all recorded conversations, in order.
pub fn conversation_names() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .expect("folder of the vectors")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .map(|path| path.file_stem().expect("name").to_string_lossy().into_owned())
        .filter(|name| !OTHER_FORMS.contains(&name.as_str()))
        .collect();
    names.sort();
    names
}

/// A whole recorded message.
#[derive(Clone, Debug)]
pub struct RecordedMessage {
    pub from: Side,
    pub number: u64,
    /// Flags of its first frame, without more-coming.
    pub flags: FrameFlags,
    pub properties: Properties,
    pub body: Vec<u8>,
    /// Index among the frames where it begins, and where it ends.
    pub first_frame: usize,
    pub last_frame: usize,
}

impl RecordedMessage {
    pub fn is_request(&self) -> bool {
        self.flags.kind().code() == 0
    }
}

/// The messages that a series of BLIP frames makes up, in the order in which they begin.
pub fn messages(frames: &[Sent]) -> Vec<RecordedMessage> {
    let mut decoders =
        HashMap::from([(Side::Active, StreamDecoder::new()), (Side::Passive, StreamDecoder::new())]);
    type Partial = (usize, FrameFlags, Vec<u8>);
    let mut partial: HashMap<(Side, u64, bool), Partial> = HashMap::new();
    let mut whole = Vec::new();
    for (i, sent) in frames.iter().enumerate() {
        let frame = Frame::parse(&sent.bytes).expect("recorded frame");
        let flags = frame.header.flags;
        if !flags.kind().has_checksum() {
            continue;
        }
        let decoder = decoders.get_mut(&sent.from).expect("both sides");
        let payload = decoder.decode(&frame, usize::MAX).expect("recorded payload");
        let key = (sent.from, frame.header.number, flags.kind().code() == 0);
        let (_, _, content) = partial.entry(key).or_insert((i, flags.with_more_coming(false), Vec::new()));
        content.extend_from_slice(payload);
        if flags.more_coming() {
            continue;
        }
        let (first_frame, flags, content) = partial.remove(&key).expect("entered above");
        let (len, rest) = varint::take(&content, "properties length").expect("length");
        let (properties, body) = rest.split_at(len as usize);
        whole.push(RecordedMessage {
            from: sent.from,
            number: frame.header.number,
            flags,
            properties: Properties::parse(properties).expect("recorded properties"),
            body: body.to_vec(),
            first_frame,
            last_frame: i,
        });
    }
    assert!(partial.is_empty(), "recording ends within a message");
    whole.sort_by_key(|message| message.first_frame);
    whole
}
