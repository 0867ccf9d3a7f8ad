//! A folded message unfolds to the plain one that it stands for, which is then read as ever.

use super::encode::RevsEncoder;
use super::fold::{COUNTER_BITS, HAS, KEPT, NUMBERS, Row};
use super::format::{Beginning, head};
use crate::replicator::extension::RevsFormat;
use crate::replicator::extension::folded::{self, ReadRows};

/// The plain message of a folded one; `None` if it is damaged, or would be larger than may be.
pub(super) fn unfold(beginning: &Beginning, columns: &[u8]) -> Option<Vec<u8>> {
    let Beginning { flags, from, through, count, sources } = beginning;
    let ReadRows { numbers, ids, further, bodies } = folded::read(columns, *count, NUMBERS, HAS)?;
    let mut encoder = RevsEncoder::of_sources(RevsFormat::TreeIds, flags & head::ASKED != 0, *from, sources);
    let (mut next_further, mut next_body) = (0, 0);
    for row in 0..*count {
        let number = |column: usize| numbers.get(column)?.get(row).copied();
        let flags = number(0)?;
        let further = match (HAS.further)(flags) {
            false => &[][..],
            true => further.get(next_further)?,
        };
        next_further += usize::from((HAS.further)(flags));
        let body = if (HAS.body)(flags) { Some(bodies.get(next_body)?) } else { None };
        next_body += usize::from(body.is_some());
        let counter = u64::try_from(number(4)?).ok().filter(|counter| counter >> COUNTER_BITS == 0)?;
        encoder.push_row(&Row {
            flags: u8::try_from(flags).ok().filter(|flags| flags & !KEPT == 0)?,
            sequence: from.wrapping_add(number(1)? as u64),
            id: std::str::from_utf8(ids.get(row)?).ok()?,
            source: usize::try_from(number(2)?).ok()?,
            time: (number(3)? as u64) << COUNTER_BITS | counter,
            further,
            body,
        });
    }
    Some(encoder.finish(*through, flags & head::LAST != 0))
}
