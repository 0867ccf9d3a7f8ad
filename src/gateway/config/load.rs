//! Files, sections and what is wrong with them, put together.

use std::path::Path;

use super::build;
use super::problem::{Problem, Problems};
use super::tree::Tree;
use super::types::Config;

/// Reads the configuration at `path` and in the folder beside it.
///
/// # Errors
/// All that is wrong with it, in the order of the files.
pub(crate) fn load(path: &Path) -> Result<Config, Vec<Problem>> {
    load_tree(&Tree::read(path))
}

pub(super) fn load_tree(tree: &Tree) -> Result<Config, Vec<Problem>> {
    let problems = Problems::new(&tree.sources, tree.problems.clone());
    let config = build::config(&tree.table, &problems, tree.problems.is_empty());
    let problems = problems.into_list();
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}
