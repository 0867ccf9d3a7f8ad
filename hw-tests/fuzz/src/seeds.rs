//! Inputs to begin with: the recorded conversations in the form that each target reads, and a few made by hand.
//!
//! Long, for it is a list: one function a target, and none knows of another.

use std::path::PathBuf;

use gattway::endpoint::ProtocolType;
use gattway::lab::blip::frame::Frame;
use gattway::lab::endpoint::framing::{Framing, FramingEvent, FramingRole};
use gattway::lab::replicator::messages::profile;
use serde_json::Value;

use super::choices::Script;
use super::pack;

/// Longest seed, in bytes: what is longer teaches nothing that its beginning does not.
const SEED_BYTES_MAX: usize = 4096;

/// One recorded conversation.
struct Recording {
    byte_stream: bool,
    /// What went from the active side to the passive one, and back.
    sent: [Vec<Vec<u8>>; 2],
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |b: u8| (b as char).to_digit(16).expect("hex digit") as u8;
    text.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// All conversations, in the order of their names.
fn recordings() -> Vec<Recording> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(pack::hw_tests().join("vectors"))
        .expect("the folder of the vectors")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).expect("a vector");
        let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
        let header = lines.next().expect("a header");
        let mut sent: [Vec<Vec<u8>>; 2] = Default::default();
        for line in lines {
            let (Some(direction), Some(hex)) = (line["dir"].as_str(), line["hex"].as_str()) else { continue };
            sent[usize::from(direction != "A>P")].push(unhex(hex));
        }
        Recording { byte_stream: header["framing"] == "ByteStream", sent }
    };
    paths.iter().map(read).filter(|recording| recording.sent.iter().any(|sent| !sent.is_empty())).collect()
}

/// The BLIP frames of each direction of each recorded conversation.
fn blip_frames() -> Vec<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for recording in recordings() {
        for (direction, sent) in recording.sent.into_iter().enumerate() {
            if !recording.byte_stream {
                all.push(sent);
                continue;
            }
            let role = if direction == 0 { FramingRole::Passive } else { FramingRole::Active };
            let mut framing = Framing::new(role, ProtocolType::ByteStream);
            let mut frames = Vec::new();
            for bytes in sent {
                framing.handle_bytes(&bytes).expect("a recorded frame");
                frames.extend(std::iter::from_fn(|| framing.poll_event()).filter_map(|event| match event {
                    FramingEvent::Frame(frame) => Some(frame.to_vec()),
                    _ => None,
                }));
            }
            all.push(frames);
        }
    }
    all.retain(|frames| !frames.is_empty());
    all
}

fn cut(script: Script) -> Vec<u8> {
    let mut bytes = script.0;
    bytes.truncate(SEED_BYTES_MAX);
    bytes
}

/// A life of a session: data both ways, a loss, a cut, a resume, a close; and packets of strangers between.
pub fn link() -> Vec<Vec<u8>> {
    const EXCHANGE: [u8; 8] = [0x82, 0x02, 0x82, 0x02, 0x81, 0x01, 0x80, 0x00];
    let begin = || Script::default().byte(1).bytes(&[0xd0, 0x00, 0x28, 0x00]).bytes(&EXCHANGE);
    let wrote = || begin().bytes(&[0x0b, 0x00, 0x03, 0x8b, 0x00, 0x02]).bytes(&EXCHANGE);
    let resumed = || wrote().bytes(&[14, 3, 10, 0, 200, 0]).bytes(&EXCHANGE);
    vec![
        begin().0,
        wrote().bytes(&[0x0c, 0, 4, 0x8c, 0, 4, 13, 2]).bytes(&EXCHANGE).0,
        wrote().bytes(&[3, 0x83, 13, 3, 5, 0x85]).bytes(&EXCHANGE).0,
        resumed().0,
        resumed().bytes(&[0x0b, 0xff, 0x0f, 2, 2, 13, 2, 6, 200, 4, 0x84]).bytes(&EXCHANGE).0,
        resumed().bytes(&[14, 1]).bytes(&EXCHANGE).bytes(&[14, 0x81]).bytes(&EXCHANGE).0,
        wrote().byte(7).byte(2).bytes(&[0, 0, 1, 3, 0, 0x80, 5, 0, 4]).bytes(&EXCHANGE).0,
        // Invented: a HELLO of another version, a CLOSE, an acknowledgement, full data.
        begin().bytes(&[0x89, 1, 1]).blob(&[7, 9, 0, 1, 2, 3]).0,
        wrote().bytes(&[9, 1, 5]).blob(&[0, 99, 0]).0,
        wrote().bytes(&[9, 3, 0, 9, 0, 0xf4, 9, 0, 0, 2, 0xff, 0xff]).0,
        wrote().bytes(&[0x89, 4, 0, 0, 9, 0xd0, 0]).0,
        wrote().bytes(&[15, 3, 0x8f, 1, 13, 6]).bytes(&EXCHANGE).0,
    ]
}

/// The recorded byte streams, each direction in the role that receives it, and the message streams.
pub fn framing() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for recording in recordings().into_iter().filter(|recording| recording.byte_stream) {
        for (direction, sent) in recording.sent.iter().enumerate() {
            let role = u8::from(direction == 0);
            seeds.push(cut(Script::default().byte(role).byte(direction as u8 + 2).bytes(&sent.concat())));
        }
    }
    let frames =
        [&[0x89, 0x02, 1, 2][..], &[0x8a, 0x00], &[0x01, 0x01, 5], &[0x80, 0x01, 6], &[0x88, 0x02, 3, 232]];
    seeds.push(Script::default().bytes(&[0, 1]).bytes(&frames.concat()).0);
    seeds.push(Script::default().bytes(&[0, 2, 0x82, 127, 0, 0, 0, 0, 0, 16, 0, 1]).0);
    seeds.push(Script::default().bytes(&[2, 2]).bytes(b"a message").0);
    seeds
}

/// The recorded frames, one after another as they came.
pub fn blip() -> Vec<Vec<u8>> {
    let replay = |frames: Vec<Vec<u8>>| {
        let begin = Script::default().byte(1);
        cut(frames.iter().fold(begin, |script, frame| script.bytes(&[1, 0]).blob(frame).byte(3)))
    };
    let mut seeds: Vec<Vec<u8>> = blip_frames().into_iter().map(replay).collect();
    // The same by parts: whole, in two pieces, compressed, an acknowledgement.
    for (flags, kind) in [(0, 0), (8, 0), (1, 0), (4, 2), (0, 5), (3, 4)] {
        let one = |script: Script| script.bytes(&[1, 1, flags, kind]).blob(b"\x0aProfile\0rev\0{}").byte(2);
        seeds.push(one(one(Script::default().byte(1))).0);
    }
    seeds.push(Script::default().bytes(&[0, 6, 0, 1, 1]).blob(b"hello").bytes(&[9, 1, 0, 3]).0);
    seeds
}

/// The payloads of the recorded compressed frames; a bomb.
pub fn deflate() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for frames in blip_frames() {
        let mut script = Script::default().byte(0);
        let mut any = false;
        for frame in frames.iter().filter_map(|frame| Frame::parse(frame).ok()) {
            if frame.header.flags.compressed() {
                any = true;
                script = script.byte(1).blob(frame.payload);
            }
        }
        if any {
            seeds.push(cut(script));
        }
    }
    let mut bomb = Vec::new();
    gattway::lab::blip::stream::StreamEncoder::new(9).encode(&[&vec![0; 1 << 20]], true, &mut bomb);
    seeds.push(cut(Script::default().bytes(&[0, 1]).blob(&bomb)));
    seeds.push(Script::default().bytes(&[1, 6, 1, 9]).blob(b"again and ").bytes(&[0, 2]).blob(b"again").0);
    seeds
}

/// The control messages of an honest pair, to each end in each state of its life.
pub fn handshake() -> Vec<Vec<u8>> {
    use gattway::lab::link::{Link, LinkConfig, LinkRole, PacketSize};
    use gattway::lab::time::Instant;
    let now = Instant::from_micros(1_000_000);
    let link = |role, seed| Link::<2048, 2048>::new(role, LinkConfig::default(), seed);
    let mut ends = [link(LinkRole::Central, 1), link(LinkRole::Peripheral, 2)];
    let mut said: Vec<(u8, Vec<u8>)> = Vec::new();
    for round in 0..8 {
        if round == 0 || round == 4 {
            ends.iter_mut().for_each(|end| end.connected(now, PacketSize::MAX));
        }
        let from = round % 2;
        let mut out = [0; 600];
        while let Some(length) = ends[from].poll_packet(now, &mut out) {
            if let [b'G', b'W', kind, _, message @ ..] = &out[..length] {
                said.push((kind >> 4 << 1 | (1 - from) as u8, message.to_vec()));
            }
            let _ = ends[1 - from].handle_packet(now, &out[..length]);
        }
    }
    let mut seeds = Vec::new();
    for mode in [0, 2, 3, 5, 6, 0x46, 0xc0] {
        for (turn, message) in &said {
            seeds.push(Script::default().bytes(&[mode, turn | 0x10]).blob(message).byte(1).0);
            seeds.push(Script::default().bytes(&[mode, *turn]).blob(message).byte(0).0);
        }
    }
    for (kind, message) in
        [(4, &[0, 1, 1][..]), (4, &[1]), (4, &[4]), (5, &[0, 0]), (5, &[2, 0xac, 2, 5]), (6, &[])]
    {
        seeds.push(Script::default().bytes(&[3, kind << 1 | 1]).blob(message).bytes(&[1, 0x70]).0);
    }
    seeds
}

/// The whole messages of the recordings: profile and body.
fn bodies() -> Vec<(String, Vec<u8>)> {
    use gattway::lab::blip::{BlipConfig, Connection, Event, OutgoingMessage};
    let mut all = Vec::new();
    for frames in blip_frames() {
        // A connection that has asked enough to be answered by anything that was recorded.
        let mut blip = Connection::new(BlipConfig::default());
        for _ in 0..300 {
            let _ = blip.send_request(OutgoingMessage::default());
        }
        while blip.poll_frame().is_some() {}
        for frame in frames {
            if blip.handle_frame(&frame).is_err() {
                break;
            }
            while let Some(event) = blip.poll_event() {
                match event {
                    Event::Request(request) => {
                        all.push((request.profile().to_owned(), request.body.to_vec()))
                    }
                    Event::Reply { result: Ok(reply), .. } => all.push((String::new(), reply.body.to_vec())),
                    _ => {}
                }
            }
        }
    }
    all.sort();
    all.dedup_by(|a, b| a.0 == b.0 && a.1.len() == b.1.len());
    all
}

/// The lists and checkpoints of the recordings, and vectors as text.
pub fn messages() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (profile, body) in bodies() {
        let kinds: &[u8] = match profile.as_str() {
            "changes" => &[0],
            "proposeChanges" => &[1],
            "getCollections" => &[4],
            "subChanges" => &[5],
            "setCheckpoint" => &[6],
            "" => &[2, 3],
            _ => continue,
        };
        for &kind in kinds {
            let script = Script::default().byte(kind);
            let script = if kind < 6 { script.bytes(&[20, 0]) } else { script.blob(&body) };
            seeds.push(cut(script.bytes(&body)));
        }
    }
    let (a, b) = ("18ea7b3152910000@EbSEdOPmQ5ScF/AHieZMrQ", "1@AQEBAQEBAQEBAQEBAQEBAQ");
    let (tree, as_version) =
        ("2-cceba90c66c32c7cc39e66573f911ec05507d5e9", "2cceba90c66@Revision+Tree+Encoding");
    for (rev, history, other) in [
        (a, b, b),
        (b, "", a),
        (a, "1@AQEBAQEBAQEBAQEBAQEBAQ; ", a),
        (tree, "1-6fe86833e77d459ae48447b1b12651c52445b4f6", as_version),
        (a, tree, tree),
        (as_version, "18ea7b3152910001@EbSEdOPmQ5ScF/AHieZMrQ, 3-cb12f948", "3-cb12f948"),
    ] {
        let script = Script::default().byte(7).blob(rev.as_bytes());
        seeds.push(script.blob(history.as_bytes()).blob(other.as_bytes()).0);
    }
    seeds.push(Script::default().byte(8).bytes(&[3, 5, 0, 9, 2, 20, 0, 3, 0, 7, 0, 1, 0x82, 1, 0, 5]).0);
    seeds.push(Script::default().bytes(&[5, 0, 0]).bytes(br#"{"docIDs":["a","b"]}"#).0);
    seeds.push(Script::default().bytes(&[9, 3]).blob(b"0").blob(b"304").0);
    seeds
}

/// Messages of our encoder, in each of its shapes.
pub fn revs() -> Vec<Vec<u8>> {
    use gattway::lab::replica::revision::{SourceId, TreeId, Version, VersionVector};
    use gattway::lab::replica::store::Change;
    use gattway::lab::replicator::extension::RevsFormat;
    use gattway::lab::replicator::extension::answer::{RevAnswer, encode};
    use gattway::lab::replicator::extension::codec::{Content, RevsEncoder};
    let version = |time, author| Version { time, source: SourceId([author; 16]) };
    let mut seeds = Vec::new();
    for shape in 0..16u64 {
        let mut encoder = RevsEncoder::new(RevsFormat::NEWEST, shape & 1 == 1, 40);
        for n in 0..shape + 1 {
            let mut vector =
                VersionVector::new(version(0x18ea_7b9b_f01b_0000 + (n << 16), 1 + (n & shape) as u8));
            if shape & 2 != 0 {
                vector.history.push(version(5 + n, 3));
            }
            if shape & 4 != 0 {
                vector.merged = vec![version(9, 1), version(8, 2)];
            }
            if n % 3 == 1 {
                vector.trees = (1..=n % 4 + 1)
                    .filter_map(|generation| TreeId::new(generation as u32, &[n as u8; 20]))
                    .collect();
            }
            let change = Change {
                sequence: 41 + n * (1 + shape % 3),
                id: format!("record-{n:03}"),
                vector,
                deleted: n % 5 == 4,
                body_size: 0,
                remote_ancestor: None,
                body: None,
            };
            let body = Content::Body(format!("{{\"n\":{n}}}").into());
            encoder.push(&change, [&body, &Content::Offer, &body, &Content::Gone][(n % 4) as usize]);
        }
        seeds.push(Script::default().byte(2).bytes(&encoder.finish(40 + 4 * shape, shape & 8 != 0)).0);
    }
    let answers = [
        vec![
            RevAnswer::Stored(7),
            RevAnswer::Stored(8),
            RevAnswer::Known,
            RevAnswer::Wanted,
            RevAnswer::Wanted,
        ],
        vec![RevAnswer::Conflict(VersionVector::new(version(9, 9)))],
        vec![RevAnswer::Failed(gattway::lab::blip::ErrorReply::http(403, "refused by a filter"))],
    ];
    for answers in answers {
        seeds.push(
            Script::default()
                .bytes(&[0, answers.len() as u8, 0])
                .bytes(&encode(&answers, RevsFormat::NEWEST))
                .0,
        );
    }
    seeds.push(Script::default().bytes(&[1, 2]).blob(b"1 40 99").0);
    seeds
}

/// Pairs of objects, a line each: documents before and after an edit, and deltas of every form.
pub fn delta() -> Vec<Vec<u8>> {
    let long = "lorem ipsum dolor sit amet ".repeat(4);
    let edited = long.replacen("dolor", "color €", 2);
    [
        (format!(r#"{{"a":1,"t":"{long}"}}"#), format!(r#"{{"a":2.0,"t":"{edited}"}}"#)),
        (r#"{"a":[1,2,{"b":null}],"c":{"d":-0.0}}"#.into(), r#"{"a":[1,3],"c":{"d":0.0},"e":[[]]}"#.into()),
        (r#"{"a":["x","y"],"n":18446744073709551615}"#.into(), r#"{"a":{"1":"z","2-":["q"]},"n":[]}"#.into()),
        (format!(r#"{{"t":"{long}"}}"#), r#"{"t":["6=5-3+abc|97=",0,2]}"#.into()),
        (r#"{"t":"äöü"}"#.into(), r#"{"t":["1=5-",0,2]}"#.into()),
        ("{}".into(), r#"{"a":{"b":[{"c":1}]}}"#.into()),
    ]
    .map(|(base, other): (String, String)| format!("{base}\n{other}").into_bytes())
    .into()
}

/// Messages that are made of choices, and columns of few rows.
pub fn folded() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for kind in 0..6u8 {
        for step in [0, 1, 7, 8] {
            let rows: Vec<u8> = (0..200u8).map(|n| [0, 0, kind, n][usize::from(n % 4)]).collect();
            seeds.push(Script::default().bytes(&[1, 0, 40, step]).bytes(&rows).0);
        }
    }
    for count in [1, 16, 4_096u16] {
        let script = Script::default().byte(0).bytes(&count.to_le_bytes());
        seeds.push(script.bytes(&[0x5a; 60]).0);
        seeds.push(Script::default().byte(0).bytes(&count.to_le_bytes()).bytes(&[0; 60]).0);
    }
    seeds
}

/// Conversations: a push and a pull, with and without the extension, from either side.
pub fn session() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for mode in [0x00, 0x02, 0x40, 0x10, 0x22] {
        let begin = || Script::default().bytes(&[0, mode, 5, 13, mode >> 1 & 1]);
        let rev = [2, 3, 0, 9, 0, 7, 4, 10, 0];
        seeds.push(begin().bytes(&rev).bytes(&rev).bytes(&[3, 1, 1, 44, 1, 2, 20, 3, 12, 10, 0]).0);
        seeds.push(begin().bytes(&[4, 0, 5, 3, 0, 1, 0, 8, 1, 1, 0, 4, 1, 2, 0, 10, 0, 10, 0]).0);
        seeds.push(begin().bytes(&[6, 0, 3, 1, 2, 0, 9, 0, 2, 1, 0, 9, 1, 1]).0);
        seeds.push(begin().bytes(&[6, 8, 3, 1, 2, 0, 9, 0, 2, 1, 0, 9, 1, 1]).0);
        // subChanges with `versioning`, then answers to what comes.
        let subscribe = begin().bytes(&[0, 3, 8, 9, 7]).byte(2).blob(b"");
        seeds.push(subscribe.clone().bytes(&[7, 4, 3, 3, 3, 3, 7, 4, 0, 7, 4, 0]).0);
        seeds.push(subscribe.bytes(&[11, 0, 7, 0x14, 4, 4, 0, 12, 5]).0);
    }
    for mode in [0x01u8, 0x03, 0x05, 0x07, 0x13, 0x21, 0x4f] {
        let accept = if mode & 2 != 0 { 0x14 } else { 4 };
        let begin = || Script::default().bytes(&[mode >> 2 & 1, mode, 5, 7, accept]);
        let answers = [7, 4, 4, 0, 0, 0, 7, 4, 4, 0, 7, 4, 7, 4, 4, 0, 12, 2, 7, 4, 12, 3, 7, 4];
        seeds.push(begin().bytes(&answers).bytes(&answers).0);
        seeds.push(
            begin().bytes(&[7, 4]).bytes(&[6, 0, 3, 1, 2, 0, 9, 0, 2, 1, 0, 9, 1, 1]).bytes(&answers).0,
        );
        seeds
            .push(begin().bytes(&[4, 0x20, 0, 2, 0, 3, 0, 8, 1, 0, 10, 0]).bytes(&answers).bytes(&[12, 5]).0);
    }
    for (profile, body) in bodies() {
        let Some(at) = profile::ALL.iter().position(|name| *name == profile) else { continue };
        let begin = Script::default().bytes(&[0, 0, 5, 13, 0]);
        seeds.push(cut(begin.bytes(&[0, at as u8, 0]).byte(2).blob(&body)));
    }
    seeds
}

/// Bodies of documents as JSON, and what the store makes of them.
pub fn records() -> Vec<Vec<u8>> {
    use gattway::lab::fuzzing::store::pack_and_unpack;
    let texts = [
        r#"{"a":1,"b":[true,false,null],"temperature":21.5,"x":"the-id"}"#,
        r#"{"a":-3,"big":18446744073709551615,"h":0.25,"m":0.125,"d":0.12345,"f":1e300,"z":-0.0}"#,
        r#"{"o":{"o":{"o":{"a":"é\u0000\"\\"}}},"list":[[],{},[1,[2]]]}"#,
        "{}",
    ];
    let mut seeds = Vec::new();
    for text in texts {
        seeds.push(Script::default().byte(4).bytes(text.as_bytes()).0);
        let (packed, _) = pack_and_unpack(text.as_bytes()).expect("a document");
        seeds.push(Script::default().byte(0).bytes(&packed).0);
        // A block of two records of it: flags, sequence, ID, version, body.
        let mut records = vec![];
        for n in 0..2u8 {
            records.extend_from_slice(&[n, 7, n, 2, b'd', b'0' + n, 4, 1]);
            if n == 1 {
                records.extend_from_slice(&[2, 2, 1, 4, 2]);
            }
            records.push(packed.len() as u8 & 0x7f);
            records.extend_from_slice(&packed[..packed.len() & 0x7f]);
        }
        let mut length = vec![];
        gattway::lab::blip::varint::put(records.len() as u64, &mut length);
        seeds.push(Script::default().bytes(&[1, 0]).bytes(&length).bytes(&records).0);
    }
    seeds.extend(columns().into_iter().map(|block| Script::default().byte(1).bytes(&block).0));
    for (profile, body) in bodies() {
        if profile == "rev" {
            seeds.push(cut(Script::default().byte(4).bytes(&body)));
        }
    }
    seeds.push(Script::default().byte(2).bytes(&[0, 3, b'a', b'b', b'c', 2, 2, 1, b'd', 5]).0);
    seeds.push(Script::default().byte(3).bytes(&[b'b', 0, 1, 2, 1, 0]).0);
    seeds
}

/// Documents of a kind each: as many as go in columns, and a few.
pub fn blocks() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for kind in 0..6u8 {
        for (rows, step) in [(2, 1), (40, 0), (40, 33), (63, 71)] {
            let choices: Vec<u8> = (0..250u8).map(|n| [1, kind, n, n / 9][usize::from(n % 4)]).collect();
            seeds.push(Script::default().bytes(&[rows, step]).bytes(&choices).0);
        }
    }
    seeds
}

/// Blocks of so many records that they stand in columns: of one shape, of two, with further versions, with values of all kinds.
fn columns() -> Vec<Vec<u8>> {
    use gattway::lab::fuzzing::store::{pack_and_unpack, read_and_write_block};
    let kinds: [fn(u8) -> String; 4] = [
        |n| {
            format!(
                r#"{{"a":"2026-11-27T18:00:{n:02}Z","temperature":{},"b":{n},"x":true}}"#,
                f64::from(n) / 10.0
            )
        },
        |n| format!(r#"{{"{}":[{n},null],"x":"s{n:02}"}}"#, ["a", "b"][usize::from(n % 2)]),
        |n| {
            format!(
                r#"{{"a":{},"b":"{}","x":"the-id"}}"#,
                f64::from(n) / 10.0 - 5.0,
                ["on", "off"][usize::from(n % 2)]
            )
        },
        |n| {
            format!(r#"{{"a":{},"b":"{n:x}f0e1d2-c3b4"}}"#, ["null", "1", "2.5", "\"y\""][usize::from(n % 4)])
        },
    ];
    let block = |(kind, text): (usize, &fn(u8) -> String)| {
        let mut records = vec![];
        for n in 0..16u8 {
            let (packed, _) = pack_and_unpack(text(n).as_bytes()).expect("a document");
            let flags = if kind == 1 { [0, 2, 8, 1][usize::from(n % 4)] } else { 0 };
            records.extend_from_slice(&[flags, 1, 0, 3, b'd', b'0' + n / 10, b'0' + n % 10, 8, 1]);
            match flags {
                2 => records.extend_from_slice(&[1, 3, 2]),
                8 => records.extend_from_slice(&[3, 2]),
                _ => {}
            }
            records.push(packed.len() as u8);
            records.extend_from_slice(&packed);
        }
        let mut value = vec![0];
        gattway::lab::blip::varint::put(records.len() as u64, &mut value);
        value.extend_from_slice(&records);
        let (_, _, written) = read_and_write_block(&value).expect("a block");
        assert_eq!(written[0], 2, "in columns");
        written
    };
    kinds.iter().enumerate().map(block).collect()
}

/// Addresses, records of each format, adverts.
pub fn text() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for address in [
        "tcp:127.0.0.1:4984",
        "tcp:[::1]:0",
        "unix:/run/g.sock",
        "stdio",
        "ble",
        "ble:any",
        "ble:AA:BB:CC:DD:EE:FF",
    ] {
        seeds.push(Script::default().byte(0).blob(address.as_bytes()).0);
    }
    seeds.push(Script::default().byte(1).bytes(&[1, 0x34, 0x12, 0xef, 0xbe, 0xad, 0xde, 0x0c, 0x0b, 0x0a]).0);
    seeds.push(Script::default().byte(1).bytes(&[0x01, 0xef, 0x03, 0x01, 0x85, 0x01, 0x01, 0x02]).0);
    let secret = gattway::lab::secure::group::GroupSecret::from_bytes([0x5a; 16]);
    let peer = gattway::lab::secure::PeerId([0x5a; 32]).to_text();
    for code in [&secret.code()[..], &secret.qr_text(), &peer] {
        seeds.push(Script::default().byte(5).blob(code.as_bytes()).0);
    }
    let key = gattway::lab::secure::advert::AdvertKey::from_bytes([3; 32]);
    let sealed =
        key.seal(&gattway::lab::secure::PeerId([7; 32]), 5, gattway::lab::secure::advert::Urgency::Urgent, 1);
    seeds.push(Script::default().byte(1).bytes(&sealed).0);
    let ndjson = "{\"t\":1,\"v\":2.5}\n\n{\"t\":2,\"v\":null}\n";
    seeds.push(Script::default().byte(2).bytes(ndjson.as_bytes()).0);
    seeds.push(Script::default().byte(3).bytes(br#"[{"t":1},{"t":2,"n":{"x":[1]}}]"#).0);
    seeds.push(Script::default().byte(4).bytes(b"t,v,\"w\"\n1,2.5,x\n2,,\"a \"\"b\"\"\"\n").0);
    seeds
}

/// Handshakes of friends, of members of a group, of strangers; data, new keys, an end.
pub fn secure() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for mode in [0x11, 0x22, 0x33, 0x44, 0x99, 0x12, 0x40, 0x15, 0x51] {
        let begin = || Script::default().bytes(&[mode, 7, 0, 0]);
        seeds.push(begin().bytes(&[3, 200, 0, 0x83, 200, 1, 0, 3, 0, 20, 3, 9, 0, 0, 7, 0, 0x87, 0]).0);
        seeds.push(begin().bytes(&[2, 5, 0x82, 9, 0, 3, 99, 1, 2, 7, 0]).0);
        seeds.push(begin().bytes(&[3, 50, 0, 0x84, 10, 0, 1, 0]).0);
        seeds.push(Script::default().bytes(&[mode, 7, 0x84, 3, 0, 1, 0, 5, 0, 0, 4, 0]).0);
        seeds.push(Script::default().bytes(&[mode, 9, 0x86]).blob(b"\x82\x05hello").0);
    }
    seeds
}

/// Friends, a wrong code, another session; whole messages, single bytes, cards of any name; a path that changes something.
pub fn pairing() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for mode in 0..4 {
        for name in
            ["", "sensor", "ein Name, der länger ist als jeder, den eine Liste aufnimmt, und gekürzt wird"]
        {
            let begin = || Script::default().byte(mode).blob(name.as_bytes());
            seeds.push(begin().0);
            seeds.push(begin().bytes(&[0x81, 10, 0x81, 1, 2, 0x80, 1, 33, 1, 1, 0, 0x80, 0, 0x80]).0);
            seeds.push(begin().bytes(&[0x83, 5, 0, 1]).0);
            seeds.push(begin().bytes(&[0x80, 3, 20, 0, 0x40]).0);
            seeds.push(begin().bytes(&[0x80, 0, 0x80, 0x84, 3, 0, 1, 0x80, 0]).0);
            seeds.push(begin().bytes(&[0x80, 0, 0x85, 1, 0, 0, 255, 0x80, 0]).0);
        }
        for kind in 1..=6u8 {
            let begin = Script::default().byte(mode).blob(b"x");
            seeds.push(begin.bytes(&[0x86]).blob(&[34, kind, 1, 2, 3]).bytes(&[6]).blob(&[2, kind, 1]).0);
        }
    }
    seeds
}

/// Trust lists as they are written, groups, identities; and whole files.
pub fn trust() -> Vec<Vec<u8>> {
    use gattway::lab::fuzzing::secure::{packed, trust_list};
    let mut seeds = vec![Script::default().byte(2).bytes(&[0x47; 41]).0];
    // Default permissions, no peer; then peers of each origin, with a name, a denial, permissions, a key.
    let peer = |id: u8, rest: &[u8]| [&[id; 32][..], rest].concat();
    let named = peer(1, &[1, 2, b'g', b'w', 0, 0, 1, 3, 1, 1, b'c', 2, 0x80, 1, 9, 1]);
    let named = [&named[..], &[7; 32]].concat();
    let plain = peer(2, &[0, 1, 1, 0, 0, 5, 0]);
    let lists: [Vec<u8>; 3] = [
        vec![3, 0, 0],
        [&[3, 1, 1, b'x', 1, 1][..], &plain].concat(),
        [&[1, 0, 2][..], &named, &plain].concat(),
    ];
    for content in &lists {
        assert!(trust_list(content).is_some(), "a seed is no list: {content:?}");
        let asked = [
            0, 0, 0, 1, 2, b'g', b'w', 1, 2, 1, b'z', 0, 1, 4, b'c', b'e', b'i', b'r', 2, 0, 9, 0, 3, 1, 0, 4,
        ];
        seeds.push(Script::default().byte(0).blob(content).bytes(&asked).0);
        seeds.push(Script::default().bytes(&[4, 0]).bytes(content).0);
        seeds.push(Script::default().bytes(&[3, 0]).bytes(&packed(false, content)).0);
    }
    let group = [&[4, b'h', b'o', b'm', b'e'][..], &[0x5a; 16]].concat();
    seeds.push(Script::default().byte(1).bytes(&group).0);
    seeds.push(Script::default().bytes(&[3, 1]).bytes(&packed(true, &group)).0);
    seeds.push(Script::default().bytes(&[4, 1]).bytes(&group).0);
    let claims = [3, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
    seeds.push(Script::default().byte(0).blob(&claims).0);
    seeds
}
