//! Our framing and BLIP codec against the bytes of a real Couchbase Lite core: every recorded frame is read and written
//! back, and two of our connections say again what the two recorded peers said. One file, because what counts the bytes is shared.

#[path = "support/recording.rs"]
mod recording;

use std::collections::HashMap;

use gattway::database::{Database, DatabaseConfig};
use gattway::endpoint::ProtocolType;
use gattway::lab::blip::frame::{Frame, FrameHeader};
use gattway::lab::blip::stream::{StreamDecoder, StreamEncoder};
use gattway::lab::blip::varint;
use gattway::lab::blip::{
    BlipConfig, Connection, ErrorReply, Event, MessageNumber, OutgoingMessage, Properties,
};
use gattway::lab::endpoint::framing::{Framing, FramingEvent, FramingRole};
use gattway::lab::replica::canonical_json;
use gattway::lab::replica::revision::{VersionVector, Versioning, child_id};
use gattway::lab::replica::store::{CollectionId, ReplicaStore};
use recording::{RecordedMessage, Recording, Sent, Side};

/// How much was compared, so that a test cannot pass on nothing.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    files: usize,
    web_socket_frames: usize,
    frames: usize,
    acks: usize,
    compressed: usize,
    messages: usize,
}

fn role(side: Side) -> FramingRole {
    if side == Side::Active { FramingRole::Active } else { FramingRole::Passive }
}

/// The mask of a short or 16-bit long frame, zero if it has none.
fn mask_of(frame: &[u8]) -> [u8; 4] {
    if frame[1] & 0x80 == 0 {
        return [0; 4];
    }
    let at = if frame[1] & 0x7f == 126 { 4 } else { 2 };
    [frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]
}

/// Takes the WebSocket frames off and writes them again; gives the BLIP frames in them.
fn unframe(recording: &Recording, count: &mut Count) -> Vec<Sent> {
    if !recording.is_byte_stream() {
        return recording.sent.clone();
    }
    let framing = |side| (side, Framing::new(role(side), ProtocolType::ByteStream));
    let mut framings = HashMap::from([framing(Side::Active), framing(Side::Passive)]);
    let mut frames = Vec::new();
    for Sent { from, bytes } in &recording.sent {
        count.web_socket_frames += 1;
        let receiver = framings.get_mut(&from.other()).expect("both sides");
        receiver.handle_bytes(bytes).unwrap_or_else(|error| panic!("{}: {error}", recording.name));
        let event = receiver.poll_event().expect("one event a frame");
        assert_eq!(receiver.poll_event(), None);
        let (sender, mask) = (&framings[from], mask_of(bytes));
        let again = match event {
            FramingEvent::Frame(frame) => {
                let again = sender.encode_frame(&frame, mask);
                frames.push(Sent { from: *from, bytes: frame.to_vec() });
                Some(again)
            }
            FramingEvent::Ping(payload) => sender.encode_ping(&payload, mask),
            FramingEvent::Pong(payload) => sender.encode_pong(&payload, mask),
            FramingEvent::Close { code, reason } => sender.encode_close(code, &reason, mask),
        };
        assert_eq!(again.as_ref(), Some(bytes), "{}: WebSocket frame written back", recording.name);
    }
    frames
}

/// Reads each frame and writes it back: byte for byte, or by the same content if it is compressed.
fn read_and_write_back(name: &str, frames: &[Sent], level: u32, count: &mut Count) {
    let fresh = || (StreamDecoder::new(), StreamEncoder::new(level), StreamDecoder::new());
    let mut streams = HashMap::from([(Side::Active, fresh()), (Side::Passive, fresh())]);
    for Sent { from, bytes } in frames {
        count.frames += 1;
        let frame = Frame::parse(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut again = Vec::new();
        frame.emit(&mut again);
        assert_eq!(&again, bytes, "{name}: frame written back");
        if frame.checksum.is_none() {
            count.acks += 1;
            continue;
        }
        let (decoder, encoder, decoder_again) = streams.get_mut(from).expect("both sides");
        let payload = decoder.decode(&frame, usize::MAX).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut again = Vec::new();
        FrameHeader { ..frame.header }.emit(&mut again);
        let compressed = frame.header.flags.compressed();
        let checksum = encoder.encode(&[payload], compressed, &mut again);
        again.extend_from_slice(&checksum.to_be_bytes());
        if compressed {
            count.compressed += 1;
        } else {
            assert_eq!(&again, bytes, "{name}: frame made again");
        }
        let frame_again = Frame::parse(&again).expect("our frame");
        assert_eq!(decoder_again.decode(&frame_again, usize::MAX), Ok(payload), "{name}: decoded again");
    }
}

#[test]
fn every_recorded_frame_is_read_and_written_back() {
    let mut count = Count::default();
    for name in recording::conversation_names() {
        let recording = recording::read(&name);
        count.files += 1;
        let frames = unframe(&recording, &mut count);
        read_and_write_back(&name, &frames, recording.compression(), &mut count);
        count.messages += recording::messages(&frames).len();
    }
    // Recordings are added, none is lost.
    assert!(count.files >= 104 && count.web_socket_frames >= 233, "{count:?}");
    assert!(count.frames >= 3474 && count.messages >= 3450, "{count:?}");
    assert!(count.acks >= 4 && count.compressed >= 50, "{count:?}");
}

/// Both sides of a recorded connection, played by our connections.
struct Replay<'a> {
    name: &'a str,
    connections: HashMap<Side, Connection>,
    /// Acknowledgements: ours, and those recorded.
    acks: [Vec<(Side, Vec<u8>)>; 2],
    /// What compressed frames hold: ours, and those recorded.
    decoders: HashMap<Side, [StreamDecoder; 2]>,
}

impl<'a> Replay<'a> {
    fn new(name: &'a str, compression_level: u32) -> Replay<'a> {
        let fresh = || Connection::new(BlipConfig { compression_level, ..BlipConfig::default() });
        Replay {
            name,
            connections: HashMap::from([(Side::Active, fresh()), (Side::Passive, fresh())]),
            acks: Default::default(),
            decoders: HashMap::from([
                (Side::Active, Default::default()),
                (Side::Passive, Default::default()),
            ]),
        }
    }

    /// Plays the frames; each side says a message when its first recorded frame is due.
    fn run(&mut self, frames: &[Sent]) {
        let messages = recording::messages(frames);
        for (i, sent) in frames.iter().enumerate() {
            if Frame::parse(&sent.bytes).expect("recorded frame").checksum.is_none() {
                self.acks[1].push((sent.from, sent.bytes.clone()));
            } else {
                if let Some(message) = messages.iter().find(|message| message.first_frame == i) {
                    self.say(message);
                }
                self.compare_next_frame(sent);
            }
            let receiver = self.connections.get_mut(&sent.from.other()).expect("both sides");
            receiver.handle_frame(&sent.bytes).unwrap_or_else(|error| panic!("{}: {error}", self.name));
            let event = receiver.poll_event();
            match (event, messages.iter().find(|message| message.last_frame == i)) {
                (Some(event), Some(message)) => self.compare_event(event, message),
                (None, None) => {}
                (event, message) => panic!("{}: {event:?}, recorded {message:?}", self.name),
            }
        }
        for side in [Side::Active, Side::Passive] {
            assert_eq!(self.next_frame(side), None, "{}: {side:?} says more than was recorded", self.name);
        }
        assert_eq!(self.acks[0], self.acks[1], "{}: acknowledgements", self.name);
    }

    fn say(&mut self, message: &RecordedMessage) {
        let connection = self.connections.get_mut(&message.from).expect("both sides");
        let outgoing = OutgoingMessage {
            properties: message.properties.clone(),
            body: message.body.clone().into(),
            compressed: message.flags.compressed(),
            // Replies must find out by themselves.
            urgent: message.is_request() && message.flags.urgent(),
            no_reply: message.flags.no_reply(),
        };
        let number = MessageNumber(message.number);
        match message.flags.kind().code() {
            0 => assert_eq!(connection.send_request(outgoing), Ok(number), "{}", self.name),
            1 => connection.reply(number, outgoing).expect("a reply"),
            _ => {
                let error = ErrorReply::from_message(&message.properties, &message.body);
                connection.reply_error(number, &error).expect("an error reply");
            }
        }
    }

    /// The next frame of our connection, acknowledgements set aside.
    fn next_frame(&mut self, side: Side) -> Option<Vec<u8>> {
        loop {
            let frame = self.connections.get_mut(&side).expect("both sides").poll_frame()?;
            if Frame::parse(&frame).expect("our frame").checksum.is_some() {
                return Some(frame);
            }
            self.acks[0].push((side, frame));
        }
    }

    fn compare_next_frame(&mut self, sent: &Sent) {
        let ours = self.next_frame(sent.from).unwrap_or_else(|| panic!("{}: nothing to send", self.name));
        let [our_decoder, recorded_decoder] = self.decoders.get_mut(&sent.from).expect("both sides");
        let (our_frame, recorded) =
            (Frame::parse(&ours).expect("ours"), Frame::parse(&sent.bytes).expect("recorded"));
        assert_eq!(our_frame.header, recorded.header, "{}", self.name);
        let our_payload = our_decoder.decode(&our_frame, usize::MAX).expect("ours");
        let recorded_payload = recorded_decoder.decode(&recorded, usize::MAX).expect("recorded");
        assert_eq!(our_payload, recorded_payload, "{}", self.name);
        if !recorded.header.flags.compressed() {
            assert_eq!(ours, sent.bytes, "{}", self.name);
        }
    }

    fn compare_event(&self, event: Event, message: &RecordedMessage) {
        let number = MessageNumber(message.number);
        match event {
            Event::Request(request) => {
                assert!(message.is_request());
                assert_eq!(
                    (request.number, &request.properties),
                    (number, &message.properties),
                    "{}",
                    self.name
                );
                assert_eq!(request.body, message.body, "{}", self.name);
            }
            Event::Reply { number: seen, result } => {
                assert_eq!(seen, number);
                match (result, message.flags.kind().code()) {
                    (Ok(reply), 1) => {
                        assert_eq!(reply.properties, message.properties, "{}", self.name);
                        assert_eq!(reply.body, message.body, "{}", self.name);
                    }
                    (Err(error), 2) => {
                        let again = error.to_message();
                        assert_eq!(again.properties, message.properties, "{}", self.name);
                        assert_eq!(again.body, message.body, "{}", self.name);
                    }
                    (result, code) => panic!("{}: {result:?} of type {code}", self.name),
                }
            }
            event => panic!("{}: {event:?}", self.name),
        }
    }
}

#[test]
fn two_connections_say_again_what_was_recorded() {
    let (mut files, mut count) = (0, Count::default());
    for name in recording::conversation_names() {
        let recording = recording::read(&name);
        let frames = unframe(&recording, &mut count);
        Replay::new(&name, recording.compression()).run(&frames);
        files += 1;
    }
    assert!(files >= 104, "only {files} files");
}

#[test]
fn probes_are_read_and_written_back() {
    let (mut count, mut probes) = (Count::default(), 0);
    for line in recording::lines("probes-passive-replies").into_iter().skip(1) {
        let frames: Vec<Sent> = line["hex"]
            .as_array()
            .expect("frames")
            .iter()
            .map(|pair| Sent {
                from: Side::of_direction(pair[0].as_str().expect("direction")),
                bytes: recording::unhex(pair[1].as_str().expect("hex")),
            })
            .collect();
        let name = line["probe"].as_str().expect("name");
        read_and_write_back(name, &frames, 0, &mut count);
        probes += 1;
    }
    assert_eq!((probes, count.frames), (145, 850));
}

#[test]
fn version_vectors_are_written_as_they_are_read() {
    let mut texts = Vec::new();
    for line in recording::lines("vv-encoding") {
        collect_vectors(&line["after"], &mut texts);
    }
    for text in &texts {
        let vector: VersionVector = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(&vector.to_string(), text);
        let joined = VersionVector::from_rev_and_history(&vector.id().to_string(), &vector.history_text());
        assert_eq!(joined.as_ref(), Ok(&vector), "{text} by way of a rev message");
    }
    assert_eq!(texts.len(), 79);
}

fn collect_vectors(value: &serde_json::Value, texts: &mut Vec<String>) {
    let Some(object) = value.as_object() else { return };
    for (key, value) in object {
        match value.as_str() {
            Some(text) if key == "vector" => texts.push(text.to_owned()),
            _ => collect_vectors(value, texts),
        }
    }
}

/// The properties and the body of a message as far as its payload goes.
fn split_payload(payload: &[u8]) -> (Properties, Vec<u8>) {
    let (len, rest) = varint::take(payload, "properties length").expect("length");
    let (properties, body) = rest.split_at(len as usize);
    (Properties::parse(properties).expect("properties"), body.to_vec())
}

/// Bytes of the body of the large message: an object with one string.
const LARGE_BODY: usize = 5_242_891;

/// A message of 5 MB between two of our connections: the same frames, so many before the first acknowledgement, the same
/// acknowledgements.
#[test]
fn a_large_message_flows_as_recorded() {
    let recording = recording::read("large-message-vv");
    let frames = unframe(&recording, &mut Count::default());
    let of = |side| frames.iter().filter(move |sent| sent.from == side).map(|sent| sent.bytes.clone());
    let is_ack = |bytes: &Vec<u8>| Frame::parse(bytes).expect("a frame").checksum.is_none();
    let (sent, acks): (Vec<_>, Vec<_>) =
        (of(Side::Active).collect(), of(Side::Passive).filter(is_ack).collect());
    let first_ack = frames.iter().position(|sent| sent.from == Side::Passive && is_ack(&sent.bytes));
    let before_ack = frames[..first_ack.expect("recorded")].iter().filter(|s| s.from == Side::Active).count();

    let mut decoder = StreamDecoder::new();
    let payloads: Vec<Vec<u8>> = sent
        .iter()
        .map(|bytes| {
            decoder.decode(&Frame::parse(bytes).expect("a frame"), usize::MAX).expect("kept").to_vec()
        })
        .collect();
    let (mut sender, mut receiver) =
        (Connection::new(BlipConfig::default()), Connection::new(BlipConfig::default()));
    for (payload, urgent) in [(&payloads[0], false), (&payloads[1], true)] {
        let (properties, body) = split_payload(payload);
        let request = OutgoingMessage { properties, body: body.into(), urgent, ..OutgoingMessage::default() };
        sender.send_request(request).expect("queued");
    }
    let mut ours: Vec<Vec<u8>> = std::iter::from_fn(|| sender.poll_frame()).collect();
    // What is left out of the recording is filled up.
    let (properties, mut body) = split_payload(&payloads[2..].concat());
    body.resize(LARGE_BODY - 2, b'A');
    body.extend_from_slice(b"\"}");
    let request = OutgoingMessage { properties, body: body.into(), ..OutgoingMessage::default() };
    sender.send_request(request).expect("queued");
    ours.extend(std::iter::from_fn(|| sender.poll_frame()));
    assert_eq!(ours.len(), before_ack, "frames before the first acknowledgement");

    let (mut given, mut our_acks) = (0, Vec::new());
    while given < ours.len() {
        receiver.handle_frame(&ours[given]).expect("a frame of ours");
        given += 1;
        for frame in std::iter::from_fn(|| receiver.poll_frame()) {
            sender.handle_frame(&frame).expect("an acknowledgement");
            our_acks.push(frame);
        }
        ours.extend(std::iter::from_fn(|| sender.poll_frame()));
    }
    assert_eq!(our_acks, acks);
    assert_eq!(ours[..sent.len()], sent[..]);
    let left_out = recording.header["omitted_A>P"].as_array().expect("a list").len();
    // The last one left out belongs to a checkpoint.
    assert_eq!(ours.len(), sent.len() + left_out - 1);
}

/// A database with revision trees gives the IDs that Couchbase Lite gave, and so does the recipe alone for what a database refuses:
/// reserved keys, and tombstones with a body.
#[test]
fn revision_ids_are_made_as_recorded() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut config = DatabaseConfig::default();
    config.versioning = Some(Versioning::RevisionTrees);
    let database = Database::open(directory.path().join("db"), config).expect("a database");
    let collection = database.default_collection().expect("open");
    // One case names it.
    database.save_blob(&b""[..], "text/plain").expect("saved");
    let (mut by_recipe, mut by_database, mut refused) = (0, 0, Vec::new());
    for line in recording::lines("revid-revtree").into_iter().skip(1) {
        // The one that the recorded core refused.
        let Some(rev) = line["rev"].as_str() else { continue };
        let input = line["input_json"].as_str();
        let deleted = line["deleted"] == true;
        let body: serde_json::Value = serde_json::from_str(input.unwrap_or("{}")).expect("JSON");
        let canonical = canonical_json(&body);
        assert_eq!(canonical, line["canonical_json"], "{line}");
        let parent = line["parent"].as_str().map(|parent| parent.parse().expect("an ID"));
        assert_eq!(
            child_id(parent, deleted, &canonical).map(|id| id.to_string()).as_deref(),
            Some(rev),
            "{line}"
        );
        by_recipe += 1;
        // Two cases begin anew.
        let id = line["case"].as_str().expect("a name");
        if parent.is_none() && collection.get(id).expect("read").is_some() {
            collection.purge(id).expect("purged");
        }
        let saved = match (deleted, input) {
            (true, None) => collection.delete(id).map(|_| ()),
            (false, Some(text)) => collection.put_json(id, text.as_bytes()).map(|_| ()),
            _ => continue,
        };
        if let Err(error) = &saved {
            refused.push(format!("{id}: {error}"));
        } else {
            let ours = ReplicaStore::revision(&database, CollectionId(0), id).expect("read").expect("there");
            assert_eq!(ours.vector.id().to_string(), rev, "{line}");
            by_database += 1;
        }
    }
    assert_eq!((by_recipe, by_database), (58, 54), "{refused:?}");
}
