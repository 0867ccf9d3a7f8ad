//! What the two devices do, one sync after the other.

use std::time::Duration;

use serde_json::json;

use crate::cli::support::air::{Air, Moment, Traffic};
use crate::cli::support::error::{CliError, Exit};
use crate::cli::support::output::{bytes_text, note, thousands};
use crate::cli::support::progress::Progress;
use crate::cli::support::store;
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
    /// What it shows; the head of its column.
    pub(super) title: &'static str,
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
    let mut edits = Scene { title: "edits", documents: 0, traffic: Traffic::default() };
    for _ in 0..EDIT_SYNCS_MAX {
        let scene = sync(air, field).await?;
        let (documents, traffic) = (thousands(scene.documents), scene.traffic);
        if scene.documents == 0 {
            say(
                quiet,
                &format!("sync again    nothing to do: {} bytes, {:.2} s", traffic.bytes, traffic.seconds),
            );
            scenes.push(edits);
            scenes.push(scene);
            return Ok(scenes);
        }
        say(quiet, &format!("sync edits    {documents} documents in {:.2} s", traffic.seconds));
        say_conflict(field, quiet)?;
        edits.documents += scene.documents;
        edits.traffic = edits.traffic.plus(traffic);
    }
    Err(CliError::new(Exit::Failure, "the devices do not come to rest after the edits"))
}

fn say(quiet: bool, line: &str) {
    if !quiet {
        note(line);
    }
}

/// What became of the document that both sides edited.
fn say_conflict(field: &Database, quiet: bool) -> Result<(), CliError> {
    let document = store::get(&field.default_collection().map_err(store::failed)?, CONFLICT_ID)?;
    let winner = if document.body().contains_key("reviewed") { "gateway" } else { "field device" };
    say(
        quiet,
        &format!("conflict      both edited {CONFLICT_ID:?}: the later edit, of the {winner}, was kept"),
    );
    Ok(())
}

/// The whole year, with a cut in the middle.
async fn first_sync(air: &Air, field: &Database, quiet: bool) -> Result<Scene, CliError> {
    let total = field.default_collection().map_err(store::failed)?.count();
    let mut progress = Progress::start("first sync", total, quiet);
    let (mut cut, mut resumed, mut shown) = (None, None, 0);
    let (status, mut traffic) = air
        .sync(field, &mut |moment: &Moment<'_>| {
            let done = moment.status.progress.completed;
            // Documents are confirmed some thousands at a time: what goes on between, the bytes of those under way show, and of
            // them what the link has not sent yet.
            let given = (done + moment.status.progress.under_way) as f64 * moment.sent_share;
            shown = shown.max(done).max(given as u64).min(total);
            if cut.is_none() && shown >= total / 2 {
                cut = Some(moment.now);
                moment.air.cut(OUT_OF_RANGE);
                let apart = OUT_OF_RANGE.as_secs_f64();
                progress.say(&format!(
                    "cut           out of range after about {} documents, for {apart} s",
                    thousands(shown)
                ));
            }
            if moment.resumes > 0 {
                resumed.get_or_insert(moment.now);
            }
            let bytes = bytes_text(moment.air.bytes());
            progress.update(shown, total, &format!("{bytes} on air"));
        })
        .await?;
    if let (Some(cut), Some(resumed)) = (cut, resumed) {
        traffic.outage_s = resumed.since(cut).as_secs_f64();
    }
    if traffic.resumes > 0 {
        progress.say(&format!(
            "resumed       after {:.2} s the session went on where it was; {} bytes went over twice",
            traffic.outage_s,
            thousands(traffic.bytes_retransmitted)
        ));
    }
    let documents = status.progress.documents;
    progress.finish(&format!("first sync    {} documents in {:.1} s", thousands(documents), traffic.seconds));
    Ok(Scene { title: "first sync", documents, traffic })
}

async fn sync(air: &Air, field: &Database) -> Result<Scene, CliError> {
    let (status, traffic) = air.sync(field, &mut |_| ()).await?;
    Ok(Scene { title: "nothing to do", documents: status.progress.documents, traffic })
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
