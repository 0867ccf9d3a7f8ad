//! What went in comes out; what is damaged is refused.

use super::*;
use crate::replica::revision::tree::GENERATION_MAX;
use crate::replica::revision::{TreeId, Version};
use proptest::prelude::*;

fn version() -> impl Strategy<Value = Version> {
    let time = prop_oneof![1u64.., (1u64..50).prop_map(|n| 0x18ea_7b9b_f01b_0000 + (n << 16)), 1u64..20];
    (time, 0u8..4).prop_map(|(time, source)| Version { time, source: SourceId([source; 16]) })
}

fn entry() -> impl Strategy<Value = RevEntry> {
    let versions = || prop::collection::vec(version(), 0..3);
    let tree = (1..=GENERATION_MAX, prop::collection::vec(any::<u8>(), 1..=20))
        .prop_map(|(generation, digest)| TreeId::new(generation, &digest).expect("within the limits"));
    let vector = (version(), versions(), versions(), prop::collection::vec(tree, 0..3))
        .prop_map(|(current, merged, history, trees)| VersionVector { current, merged, history, trees });
    let content = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20).prop_map(|body| Content::Body(body.into())),
        Just(Content::Offer),
        Just(Content::Gone),
    ];
    (any::<u64>(), "[a-cé]{1,6}", vector, any::<bool>(), content).prop_map(
        |(sequence, id, vector, deleted, content)| {
            let refused = vector.check_authors().err();
            RevEntry { sequence, id, vector, deleted, content, refused }
        },
    )
}

fn change(entry: &RevEntry) -> Change {
    Change {
        sequence: entry.sequence,
        id: entry.id.clone(),
        vector: entry.vector.clone(),
        deleted: entry.deleted,
        body_size: 0,
        remote_ancestor: None,
        body: None,
    }
}

proptest! {
    #[test]
    fn what_went_in_comes_out(
        revisions in prop::collection::vec(entry(), 0..20),
        from: u32,
        span: u32,
        asked: bool,
        last: bool,
    ) {
        let (from, through) = (u64::from(from), u64::from(from) + u64::from(span));
        let mut encoder = RevsEncoder::new(RevsFormat::NEWEST, asked, from);
        revisions.iter().for_each(|entry| encoder.push(&change(entry), &entry.content));
        let body = Bytes::from(encoder.finish(through, last));
        let decoded = decode(&body);
        prop_assert_eq!(decoded, Ok(RevsMessage { asked, last, from, through, revisions }));
        // Cut anywhere, it is refused.
        for end in 0..body.len() {
            prop_assert!(decode(&body.slice(..end)).is_err());
        }
    }

    #[test]
    fn garbage_is_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&Bytes::from(bytes));
    }
}

#[test]
fn a_record_of_a_sensor_takes_few_bytes_beside_its_body() {
    let mut encoder = RevsEncoder::new(RevsFormat::Versions, false, 100);
    for n in 0..300u64 {
        let time = 0x18ea_7b9b_f01b_0000 + (n << 16);
        let entry = RevEntry {
            sequence: 101 + n,
            id: format!("2010-01-{:02}T{:02}:00:00", 1 + n / 24, n % 24),
            vector: VersionVector::new(Version { time, source: SourceId([7; 16]) }),
            deleted: false,
            content: Content::Body(Bytes::from_static(b"{}")),
            refused: None,
        };
        encoder.push(&change(&entry), &entry.content);
    }
    let beside = encoder.finish(400, false).len() - 2 * 300;
    assert!(beside < 300 * 15, "{beside} bytes for 300 revisions");
}
