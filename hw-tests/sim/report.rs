//! Sums of many runs, as a table and as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::plan::FaultKind;
use super::run::Outcome;

/// Sums of runs.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    pub runs: u64,
    /// Runs in which something was found wrong, with the seed and what it was.
    pub failed: Vec<(u64, String)>,
    pub nodes: u64,
    pub nodes_max: usize,
    pub simulated: Duration,
    pub convergence_max: Duration,
    pub edits: u64,
    pub deletions: u64,
    pub removals: u64,
    pub removals_by_rule: u64,
    pub tombstones_removed: u64,
    pub blobs_saved: u64,
    pub blobs_removed: u64,
    pub blob_parts: u64,
    pub events: u64,
    pub one_shot_runs: u64,
    pub acknowledgements: u64,
    pub crashes_with_loss: u64,
    pub resumes: u64,
    pub crossings: u64,
    pub packets: u64,
    pub heap_peak_max: u64,
    pub heap_node_max: u64,
    pub heap_left_max: u64,
    pub faults: BTreeMap<FaultKind, u64>,
}

impl Sums {
    /// Adds a run.
    pub fn add(&mut self, outcome: &Outcome) {
        let counts = &outcome.counts;
        self.runs += 1;
        if let Some(first) = outcome.violations.first() {
            self.failed.push((outcome.plan.seed, first.clone()));
        }
        self.nodes += outcome.plan.nodes as u64;
        self.nodes_max = self.nodes_max.max(outcome.plan.nodes);
        self.simulated += counts.simulated;
        self.convergence_max = self.convergence_max.max(counts.convergence);
        self.edits += counts.edits;
        self.deletions += counts.deletions;
        self.removals += counts.removals;
        self.removals_by_rule += counts.removals_by_rule;
        self.tombstones_removed += counts.tombstones_removed;
        self.blobs_saved += counts.blobs_saved;
        self.blobs_removed += counts.blobs_removed;
        self.blob_parts += counts.blob_parts;
        self.events += counts.events;
        self.one_shot_runs += counts.one_shot_runs;
        self.acknowledgements += counts.acknowledgements;
        self.crashes_with_loss += counts.crashes_with_loss;
        self.resumes += counts.resumes;
        self.crossings += counts.crossings;
        self.packets += counts.packets;
        self.heap_peak_max = self.heap_peak_max.max(counts.heap_peak);
        self.heap_node_max = self.heap_node_max.max(counts.heap_peak / outcome.plan.nodes as u64);
        self.heap_left_max = self.heap_left_max.max(counts.heap_left);
        for (kind, count) in &counts.faults {
            *self.faults.entry(*kind).or_default() += count;
        }
    }

    /// Hours of all nodes together.
    pub fn hours(&self) -> f64 {
        self.simulated.as_secs_f64() / 3600.0
    }

    /// One line of progress.
    pub fn line(&self) -> String {
        let faults: u64 = self.faults.values().sum();
        format!(
            "{} runs, {:.1} simulated hours, {} revisions acknowledged, {faults} faults, {} failed",
            self.runs,
            self.hours(),
            self.acknowledgements,
            self.failed.len()
        )
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut rows = vec![
            ("runs".to_owned(), self.runs.to_string()),
            ("nodes, all runs; most in one".into(), format!("{}; {}", self.nodes, self.nodes_max)),
            ("simulated hours".into(), format!("{:.1}", self.hours())),
            ("edits and deletions acknowledged".into(), (self.edits + self.deletions).to_string()),
            ("documents removed by nodes for themselves".into(), self.removals.to_string()),
            ("of those by rules of age and bytes".into(), self.removals_by_rule.to_string()),
            ("of those tombstones".into(), self.tombstones_removed.to_string()),
            ("blobs saved".into(), self.blobs_saved.to_string()),
            ("blobs removed to which nothing referred".into(), self.blobs_removed.to_string()),
            ("parts of blobs that were gone on with".into(), self.blob_parts.to_string()),
            ("revisions acknowledged, to applications and peers".into(), self.acknowledgements.to_string()),
            ("one-shot replications".into(), self.one_shot_runs.to_string()),
            ("conflicts of revisions kept against each other".into(), self.crossings.to_string()),
            ("packets seen".into(), self.packets.to_string()),
            ("crashes that took unsynced writes".into(), self.crashes_with_loss.to_string()),
            ("longest time to be equal, s".into(), format!("{:.0}", self.convergence_max.as_secs_f64())),
            ("most heap of one run, KiB".into(), (self.heap_peak_max / 1024).to_string()),
            ("the same for each node of a run, KiB".into(), (self.heap_node_max / 1024).to_string()),
            ("most heap left after a run, KiB".into(), (self.heap_left_max / 1024).to_string()),
        ];
        rows.extend(
            self.faults.iter().map(|(kind, count)| (format!("fault: {}", kind.name()), count.to_string())),
        );
        rows.push(("runs with a loss or another violation".into(), self.failed.len().to_string()));
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut table = String::new();
        for (name, value) in rows {
            table.push_str(&format!("{name:width$}  {value:>12}\n"));
        }
        for (seed, problem) in &self.failed {
            table.push_str(&format!("seed {seed}: {problem}\n"));
        }
        table
    }

    /// For scripts.
    pub fn json(&self) -> Value {
        let faults: serde_json::Map<String, Value> =
            self.faults.iter().map(|(kind, count)| (kind.name().replace(' ', "_"), json!(count))).collect();
        json!({
            "runs": self.runs,
            "nodes": self.nodes,
            "nodes_max": self.nodes_max,
            "simulated_hours": self.hours(),
            "edits": self.edits,
            "deletions": self.deletions,
            "removals": self.removals,
            "removals_by_rule": self.removals_by_rule,
            "tombstones_removed": self.tombstones_removed,
            "blobs_saved": self.blobs_saved,
            "blobs_removed": self.blobs_removed,
            "blob_parts": self.blob_parts,
            "acknowledgements": self.acknowledgements,
            "one_shot_runs": self.one_shot_runs,
            "crossing_conflicts": self.crossings,
            "packets": self.packets,
            "crashes_with_loss": self.crashes_with_loss,
            "convergence_s_max": self.convergence_max.as_secs_f64(),
            "heap_bytes_max": self.heap_peak_max,
            "heap_bytes_node_max": self.heap_node_max,
            "heap_bytes_left_max": self.heap_left_max,
            "faults": faults,
            "failed": self.failed.iter().map(|(seed, what)| json!({"seed": seed, "violation": what})).collect::<Vec<_>>(),
        })
    }
}
