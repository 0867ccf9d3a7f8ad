//! What the two devices do, one sync after the other.

use std::time::Duration;

use serde_json::json;

use super::super::air::{Air, Moment, Traffic};
use super::super::output::thousands;
use super::super::progress::Progress;
use super::super::{CliError, Exit, store};
use crate::database::{Collection, Database};

/// How long the devices are out of range of each other in the middle of the first sync.
const OUT_OF_RANGE: Duration = Duration::from_millis(1000);

/// Syncs that the edits may take: in a one-shot replication the result of a conflict may go with the next.
const EDIT_SYNCS_MAX: usize = 3;

/// Document that both sides edit.
const CONFLICT_ID: &str = "2010-07-04T12:00:00";

/// Document that the gateway deletes.
const DELETED_ID: &str = "2010-12-24T18:00:00";

/// One sync of the demo.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    /// What it shows.
    pub(super) name: &'static str,
    /// Documents that went over the air.
    pub(super) documents: u64,
    /// What the radio and the link did.
    pub(super) traffic: Traffic,
}

/// Plays all scenes, in the order in which they are told.
pub(super) async fn play(
    air: &Air,
    field: &Database,
    gateway: &Database,
    quiet: bool,
) -> Result<Vec<Scene>, CliError> {
    let mut scenes = vec![first_sync(air, field, quiet).await?];
    edit(field, gateway)?;
    let mut edits = Scene {
        name: "edits on both sides, a conflict, a deletion",
        documents: 0,
        traffic: Traffic::default(),
    };
    for _ in 0..EDIT_SYNCS_MAX {
        let scene = sync(air, field, quiet, "second sync").await?;
        if scene.documents == 0 {
            scenes.push(edits);
            scenes.push(Scene { name: "nothing to do", ..scene });
            return Ok(scenes);
        }
        edits.documents += scene.documents;
        edits.traffic = edits.traffic.plus(scene.traffic);
    }
    Err(CliError::new(Exit::Failure, "the devices do not come to rest after the edits"))
}

/// The whole year, with a cut in the middle.
async fn first_sync(air: &Air, field: &Database, quiet: bool) -> Result<Scene, CliError> {
    let total = field.default_collection().map_err(store::failed)?.count();
    let mut progress = Progress::start("first sync", total, quiet);
    let (mut cut, mut resumed) = (None, None);
    let (status, mut traffic) = air
        .sync(field, &mut |moment: &Moment<'_>| {
            let done = moment.status.progress.completed;
            if cut.is_none() && done >= total / 2 {
                cut = Some(moment.now);
                moment.air.cut(OUT_OF_RANGE);
                let apart = OUT_OF_RANGE.as_secs_f64();
                progress.say(&format!(
                    "cut           out of range after {} documents, for {apart} s",
                    thousands(done)
                ));
            }
            if moment.resumes > 0 {
                resumed.get_or_insert(moment.now);
            }
            progress.update(done, total, "");
        })
        .await?;
    if let (Some(cut), Some(resumed)) = (cut, resumed) {
        traffic.outage_s = resumed.since(cut).as_secs_f64();
    }
    if traffic.resumes > 0 {
        progress
            .say("resumed       the same session went on at the byte where it was; no layer above noticed");
    }
    progress.finish(&format!(
        "first sync    {} documents in {:.1} s of radio time",
        thousands(status.progress.documents),
        traffic.seconds
    ));
    Ok(Scene { name: "first sync, with a cut", documents: status.progress.documents, traffic })
}

async fn sync(air: &Air, field: &Database, quiet: bool, name: &'static str) -> Result<Scene, CliError> {
    let mut progress = Progress::start(name, 0, quiet);
    let (status, traffic) = air
        .sync(field, &mut |moment: &Moment<'_>| {
            let done = moment.status.progress;
            progress.update(done.completed, done.total, "");
        })
        .await?;
    let documents = status.progress.documents;
    progress.finish(&format!("{name:<13} {} documents in {:.2} s", thousands(documents), traffic.seconds));
    Ok(Scene { name, documents, traffic })
}

/// Both sides edit while they are apart.
fn edit(field: &Database, gateway: &Database) -> Result<(), CliError> {
    let (field, gateway) = (
        field.default_collection().map_err(store::failed)?,
        gateway.default_collection().map_err(store::failed)?,
    );
    annotate(&field, "2010-01-01T01:00:00", "note", "sensor cleaned")?;
    annotate(&field, CONFLICT_ID, "note", "fireworks nearby")?;
    annotate(&gateway, "2010-06-21T05:00:00", "reviewed", "by the station")?;
    annotate(&gateway, CONFLICT_ID, "reviewed", "outlier")?;
    store::delete(&gateway, DELETED_ID)?;
    field.put("station", &json!({"name": "roof", "calibrated": "2010-12-31"})).map_err(store::failed)?;
    Ok(())
}

fn annotate(collection: &Collection, id: &str, field: &str, text: &str) -> Result<(), CliError> {
    let mut document = store::get(collection, id)?;
    document.body_mut().insert(field.to_owned(), text.into());
    collection.save(&mut document).map_err(store::failed)
}
