//! Blocks of the store as it makes them from documents: what is read is what went in, in columns too.

use gattway::lab::fuzzing::store::documents_in_a_block;

use super::super::choices::Choices;
use super::folded;

/// Rows of a block that is made here.
const ROWS_MAX: usize = 64;

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let (rows, step) = (1 + choices.below(ROWS_MAX), choices.byte());
    let document = |n| {
        let id = match choices.below(3) {
            0 => choices.text().chars().take(20).collect(),
            _ => format!("r-{n:03}"),
        };
        (id, folded::body(&mut choices, n))
    };
    let documents: Vec<(String, Vec<u8>)> = (0..rows).map(document).collect();
    documents_in_a_block(&documents, step);
}
