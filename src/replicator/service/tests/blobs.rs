//! Blobs between real databases, by both protocols.

use std::io::Read;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::pair::{LIMIT, Pair, put};
use crate::database::Database;
use crate::endpoint::ProtocolType::{ByteStream, MessageStream};
use crate::replica::blobs::{BlobDigest, BlobState};
use crate::replica::store::ReplicaStore;
use crate::replicator::ReplicatorActivity::{Idle, Offline};

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

fn content(db: &Database, id: &str) -> Option<Vec<u8>> {
    let document = db.default_collection().expect("there").get(id).expect("read")?;
    let digest = document.body()["picture"]["digest"].as_str()?.to_owned();
    let mut content = Vec::new();
    db.blob(&digest).expect("read")?.read_to_end(&mut content).expect("read");
    Some(content)
}

fn put_picture(db: &Database, id: &str, content: &[u8]) -> Value {
    let blob = json!(db.save_blob(content, "image/png").expect("saved"));
    put(db, id, json!({ "picture": blob.clone() }));
    blob
}

/// Documents and their blobs, of any size, go both ways; a second run asks for none; one that is needed no more goes.
#[tokio::test(start_paused = true)]
async fn documents_come_with_their_blobs() {
    for (protocol, extension) in
        [(ByteStream, true), (MessageStream, true), (ByteStream, false), (MessageStream, false)]
    {
        let pair = Pair::new(protocol, |config| config.extension = extension);
        let pictures: Vec<Vec<u8>> = [0, 1, 70_000, 3_000_000].into_iter().map(|len| noise(len, 1)).collect();
        for (n, picture) in pictures.iter().enumerate() {
            put_picture(&pair.field, &format!("field-{n}"), picture);
            put_picture(&pair.hub, &format!("hub-{n}"), &noise(picture.len(), 2));
            // One content, two documents.
            put_picture(&pair.hub, &format!("twin-{n}"), picture);
        }
        let status = pair.sync().await;
        assert!(status.error.is_none() && pair.last_error().await.is_none(), "{protocol:?} {status:?}");
        pair.assert_equal();
        for db in [&pair.field, &pair.hub] {
            for (n, picture) in pictures.iter().enumerate() {
                assert_eq!(
                    content(db, &format!("field-{n}")).as_ref(),
                    Some(picture),
                    "{protocol:?} {extension}"
                );
                assert_eq!(content(db, &format!("twin-{n}")).as_ref(), Some(picture));
                assert_eq!(content(db, &format!("hub-{n}")), Some(noise(picture.len(), 2)));
            }
        }
        let again = pair.sync().await;
        assert!(again.error.is_none() && again.progress.documents == 0, "{protocol:?} {again:?}");
    }
}

/// What came of a blob before the connection was lost is on the medium, and is not sent again by the next run, whoever calls.
#[tokio::test(start_paused = true)]
async fn a_run_that_was_cut_goes_on_in_the_middle_of_a_blob() {
    let pair = Pair::new(ByteStream, |_| {});
    let picture = noise(2_000_000, 5);
    let blob = put_picture(&pair.field, "big", &picture);
    let digest: BlobDigest = blob["digest"].as_str().expect("a digest").parse().expect("a digest");
    let part = |least: u64| {
        let hub = pair.hub.clone();
        async move {
            loop {
                match ReplicaStore::blob(&hub, &digest).expect("read") {
                    BlobState::Part(length) if length >= least => return length,
                    BlobState::Whole(length) => return length,
                    BlobState::Part(_) => tokio::task::yield_now().await,
                }
            }
        }
    };
    let replicator = pair.replicator(&[], |config| config.continuous = true);
    replicator.start();
    let before = timeout(LIMIT, part(200_000)).await.expect("some of it comes");
    pair.listener.close_all();
    assert_eq!(content(&pair.hub, "big"), None, "no document without its blob");
    timeout(LIMIT, replicator.wait_until(|status| status.activity == Offline)).await.expect("it is cut");
    let kept = timeout(LIMIT, part(0)).await.expect("it is there");
    assert!((before..picture.len() as u64).contains(&kept), "{kept} bytes, {before} before");
    timeout(LIMIT, replicator.wait_until(|status| status.activity == Idle))
        .await
        .expect("it goes on by itself");
    assert_eq!(content(&pair.hub, "big"), Some(picture));
}
