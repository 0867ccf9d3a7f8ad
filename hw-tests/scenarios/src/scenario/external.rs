//! Scenarios that are programs of their own: they bring their guests with them.
//!
//! Exit code 0: passed; 77: skipped, the last line says why; anything else: failed. A line `metric: NAME VALUE UNIT` of the
//! output is a figure for the report.

use std::path::Path;
use std::process::Stdio;

use super::{Context, Outcome, failed, skip};
use crate::root;

/// Exit code of a program that could not do it here.
const SKIPPED: i32 = 77;
/// Lines of output that the report keeps.
const LINES_KEPT: usize = 40;

pub async fn commands_one_machine(c: &mut Context<'_>) -> Outcome {
    run(c, "hw-tests/rig/sync-commands", &["one"]).await
}

pub async fn commands_two_machines(c: &mut Context<'_>) -> Outcome {
    run(c, "hw-tests/rig/sync-commands", &["two"]).await
}

pub async fn file_rig(c: &mut Context<'_>) -> Outcome {
    run(c, "hw-tests/rig/file-rig", &[]).await
}

pub async fn foreign_stack(c: &mut Context<'_>) -> Outcome {
    run(c, "hw-tests/foreign/run", &[]).await
}

pub async fn errors(c: &mut Context<'_>) -> Outcome {
    run(c, "hw-tests/rig/errors", &[]).await
}

pub async fn others(c: &mut Context<'_>) -> Outcome {
    run(c, "hw-tests/rig/others", &[]).await
}

pub async fn adapters(c: &mut Context<'_>) -> Outcome {
    run(c, "hw-tests/rig/adapters", &[]).await
}

pub async fn privacy(c: &mut Context<'_>) -> Outcome {
    run(c, "hw-tests/rig/privacy", &[]).await
}

pub async fn adapter_faults(c: &mut Context<'_>) -> Outcome {
    only_virtual(c)?;
    if !c.full {
        return skip("takes minutes: --full runs it");
    }
    let gattway = std::env::var("GATTWAY").unwrap_or_else(|_| "target/debug/gattway".to_owned());
    run(c, "hw-tests/rig/adapter-faults", &[&gattway]).await
}

async fn run(c: &mut Context<'_>, program: &str, arguments: &[&str]) -> Outcome {
    only_virtual(c)?;
    let root = root();
    let path = root.join(program);
    if !Path::new(&path).exists() {
        return skip(format!("{program} is not there"));
    }
    let mut command = tokio::process::Command::new(&path);
    command.args(arguments).current_dir(&root).stdin(Stdio::null()).kill_on_drop(true);
    command.env("HW_TEST_FULL", if c.full { "1" } else { "" });
    let output = command.stderr(Stdio::piped()).output().await?;
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines {
        if let Some(metric) = line.strip_prefix("metric: ") {
            let mut words = metric.rsplitn(3, ' ');
            if let (Some(unit), Some(value), Some(name)) = (words.next(), words.next(), words.next())
                && let Ok(value) = value.parse()
            {
                c.metric(name, value, unit);
            }
        }
    }
    c.note(&lines[lines.len().saturating_sub(LINES_KEPT)..].join("\n"));
    match output.status.code() {
        Some(0) => Ok(()),
        Some(SKIPPED) => skip(lines.last().copied().unwrap_or("it did not say why")),
        _ => failed(format!("{program} {} ended with {}", arguments.join(" "), output.status)),
    }
}

/// The programs bring guests; elsewhere they would test something else than the rig.
fn only_virtual(c: &Context<'_>) -> Outcome {
    if c.rig.is_virtual() {
        Ok(())
    } else {
        skip("runs on the virtual rig alone: it starts guests of its own")
    }
}
