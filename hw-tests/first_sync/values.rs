//! Odd things that people store: document IDs, bodies as JSON text, sizes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fastrand::Rng;
use gattway::database::DOCUMENT_BODY_MAX;
use sha1::{Digest, Sha1};

/// Characters that text is made of, by how it goes wrong elsewhere.
const ALPHABETS: [&str; 12] = [
    "abcdefghijklmnopqrstuvwxyz0123456789",
    "ABC-._~:/?#[]@!$&'()*+,;=%",
    " \u{a0}\u{2003}\u{3000}",
    "äöüßéèñçåøłĄž",
    "e\u{301}a\u{308}\u{200d}\u{200b}\u{feff}",
    "日本語漢字かなカナ한국어",
    "שלוםمرحبا\u{202e}\u{202d}",
    "😀👨‍👩‍👧🏳️‍🌈𝒳𝔘\u{10ffff}",
    "\"\\/'`<>{}|",
    "\u{7f}\u{85}\u{2028}\u{2029}\u{fffd}\u{ffff}",
    "ΑΒΓαβγЖжИи",
    "İıſKÅ\u{1e9e}",
];

/// Control characters, which text may have and an ID may not.
const CONTROLS: [char; 6] = ['\0', '\t', '\n', '\r', '\u{1b}', '\u{1f}'];

/// Numbers that lose something in careless hands.
const NUMBERS: [&str; 26] = [
    "0",
    "-0",
    "-0.0",
    "1.0",
    "20.50",
    "1e2",
    "1E+2",
    "1e-7",
    "5e-324",
    "-5e-324",
    "2.2250738585072014e-308",
    "1.7976931348623157e308",
    "0.1",
    "0.30000000000000004",
    "9007199254740991",
    "9007199254740992",
    "9007199254740993",
    "-9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "123456789012345678",
    "3.141592653589793",
    "1e21",
    "1e22",
];

/// Numbers that no 64 bits hold: refused where they enter, or kept as they are.
const HUGE_NUMBERS: [&str; 3] =
    ["18446744073709551616", "-9223372036854775809", "123456789012345678901234567890"];

/// Longest ID that every peer takes, in bytes.
const ID_MAX: usize = 240;

/// Text of up to `max` bytes.
pub fn text(rng: &mut Rng, max: usize) -> String {
    let alphabet: Vec<char> = ALPHABETS[rng.usize(..ALPHABETS.len())].chars().collect();
    let count = rng.usize(..=max);
    let mut text = String::new();
    loop {
        let c = alphabet[rng.usize(..alphabet.len())];
        if text.len() + c.len_utf8() > count {
            return text;
        }
        text.push(c);
    }
}

/// A document ID that is not in `taken` for most calls: `n` makes it unique unless it is an odd one.
pub fn id(rng: &mut Rng, n: usize) -> String {
    match rng.u8(..100) {
        0..50 => format!("doc-{n:04}"),
        50..80 => format!("{}{n}", text(rng, 40)),
        80..86 => format!("{n}{}", text(rng, ID_MAX - 6)),
        86..90 => pad(rng, n, ID_MAX),
        90..92 => format!("{n}/{n}%2F..%00/?rev=1"),
        92..94 => format!(" {n} "),
        // What only some take: refused where it enters, or carried like any other.
        94..96 => format!("{n}{}x", CONTROLS[rng.usize(..CONTROLS.len())]),
        96..98 => {
            let len = ID_MAX + rng.usize(1..12);
            pad(rng, n, len)
        }
        98 => format!("_{n}"),
        _ => String::new(),
    }
}

/// An ID of exactly `len` bytes.
fn pad(rng: &mut Rng, n: usize, len: usize) -> String {
    let mut id = format!("{n}-");
    id.push_str(&text(rng, len - id.len()));
    while id.len() < len {
        id.push('x');
    }
    id
}

/// A body as JSON text of about `size` bytes.
pub fn body(rng: &mut Rng, size: usize) -> String {
    let mut fields = Vec::new();
    for n in 0..rng.usize(..6) {
        let key = if rng.u8(..4) == 0 { format!("{n}{}", text(rng, 30)) } else { format!("field{n}") };
        // A key of its own for the file's numbering stays unique.
        fields.push((key, value(rng, 0)));
    }
    match rng.u16(..400) {
        // Keys that somebody keeps for himself: refused where they enter, or carried, or told.
        0 => fields.push(("_id".into(), "\"x\"".into())),
        6 => fields.push(("_removed".into(), "true".into())),
        1 => fields.push(("_exp".into(), "1".into())),
        3 => fields.push((String::new(), "1".into())),
        4 => fields.push(("huge".into(), HUGE_NUMBERS[rng.usize(..HUGE_NUMBERS.len())].into())),
        5 => fields.push(("deep".into(), nested(rng.usize(95..110)))),
        7 => fields.extend([("twice".into(), "1".into()), ("twice".into(), "2".into())]),
        13..17 => fields.push(("picture".into(), blob(rng))),
        // Looks like one, and names nothing.
        17 => fields.push(("picture".into(), r#"{"@type":"blob","length":3}"#.into())),
        8..13 => fields.push(("deep".into(), nested(rng.usize(20..98)))),
        _ => {}
    }
    let mut json = String::from("{");
    for (n, (key, value)) in fields.iter().enumerate() {
        json.push_str(if n == 0 { "" } else { [",", " , ", ",\n"][rng.usize(..3)] });
        json.push_str(&quoted(rng, key));
        json.push_str([":", " : "][rng.usize(..2)]);
        json.push_str(value);
    }
    if json.len() + 16 < size {
        json.push_str(if fields.is_empty() { "" } else { "," });
        json.push_str("\"content\":\"");
        filling(rng, size - json.len() - 2, &mut json);
        json.push('"');
    }
    json.push('}');
    json
}

/// The content of the blob with this digest: one byte.
pub fn content_of(digest: &str) -> [u8; 1] {
    let is_it = |content: &[u8; 1]| format!("sha1-{}", STANDARD.encode(Sha1::digest(content))) == digest;
    (0..=u8::MAX).map(|byte| [byte]).find(is_it).expect("all are of one byte")
}

/// The name of a blob, somewhere in a value.
fn blob(rng: &mut Rng) -> String {
    let sha1 = Sha1::digest([rng.u8(..)]);
    let (key, kind) = (quoted(rng, "@type"), quoted(rng, "blob"));
    let blob = format!(r#"{{{key}:{kind},"digest":"sha1-{}","length":40}}"#, STANDARD.encode(sha1));
    match rng.u8(..3) {
        0 => format!(r#"[1,{{"deeper":{blob}}}]"#),
        _ => blob,
    }
}

/// A value of any kind.
fn value(rng: &mut Rng, depth: usize) -> String {
    match rng.u8(..if depth < 5 { 22 } else { 16 }) {
        0 => "null".into(),
        1 => "true".into(),
        2 => "false".into(),
        3..9 => NUMBERS[rng.usize(..NUMBERS.len())].into(),
        9 => format!("{}", rng.i64(..)),
        10 => format!("{:?}", f64::from_bits(rng.u64(..) & !(1 << 62))),
        11 => {
            let mut text = text(rng, 12);
            text.push(CONTROLS[rng.usize(..CONTROLS.len())]);
            quoted(rng, &text)
        }
        12..15 => {
            let text = text(rng, 60);
            quoted(rng, &text)
        }
        15 => {
            let text = text(rng, 4000);
            quoted(rng, &text)
        }
        16..19 => {
            let items: Vec<String> = (0..rng.usize(..5)).map(|_| value(rng, depth + 1)).collect();
            format!("[{}]", items.join(","))
        }
        _ => {
            let member = |n: usize, rng: &mut Rng| {
                let key = match rng.u8(..8) {
                    0 if n == 0 => String::new(),
                    1 => format!("_{n}"),
                    _ => format!("{n}{}", text(rng, 10)),
                };
                format!("{}:{}", quoted(rng, &key), value(rng, depth + 1))
            };
            let members: Vec<String> = (0..rng.usize(..4)).map(|n| member(n, rng)).collect();
            format!("{{{}}}", members.join(","))
        }
    }
}

/// A string as JSON, each character in one of the forms that JSON has for it.
fn quoted(rng: &mut Rng, text: &str) -> String {
    let mut json = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' if rng.bool() => json.push_str("\\n"),
            '/' if rng.bool() => json.push_str("\\/"),
            c if c < ' ' || rng.u8(..16) == 0 => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    json.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => json.push(c),
        }
    }
    json.push('"');
    json
}

fn nested(depth: usize) -> String {
    let half = depth / 2;
    format!(
        "{}{}1{}{}",
        "[".repeat(half),
        "{\"\":".repeat(depth - half),
        "}".repeat(depth - half),
        "]".repeat(half)
    )
}

/// Characters that need no escape: half of all bodies compress well, the others not at all.
fn filling(rng: &mut Rng, len: usize, json: &mut String) {
    if rng.bool() {
        let word = format!("{} ", rng.u64(..));
        json.extend(word.chars().cycle().take(len));
    } else {
        json.extend(std::iter::repeat_with(|| rng.alphanumeric()).take(len));
    }
}

/// A size in bytes: mostly small.
pub fn size(rng: &mut Rng) -> usize {
    match rng.u16(..1000) {
        0..900 => 0,
        900..970 => rng.usize(100..4_000),
        970..995 => rng.usize(4_000..100_000),
        _ => rng.usize(100_000..1_000_000),
    }
}

/// The size of a plan's one big document: up to the largest that there may be, and just around it.
pub fn big_size(rng: &mut Rng) -> usize {
    match rng.u8(..10) {
        0..5 => rng.usize(1 << 20..4 << 20),
        5..8 => rng.usize(4 << 20..DOCUMENT_BODY_MAX),
        // The body is a little off what was asked for: some are taken, some are refused.
        8 => rng.usize(DOCUMENT_BODY_MAX - 3..DOCUMENT_BODY_MAX + 3),
        _ => rng.usize(DOCUMENT_BODY_MAX..21 << 20),
    }
}
