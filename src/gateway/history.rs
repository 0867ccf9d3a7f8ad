//! How a database did over the last hour and the last day: what went over and what it held, in slots of one length. In memory
//! alone, and of one size whatever happens.

use std::collections::VecDeque;

use serde::Serialize;
use utoipa::ToSchema;

/// Length and number of slots: an hour, and a day.
const HOUR: (u64, usize) = (60, 60);
const DAY: (u64, usize) = (300, 288);

/// What was measured of one database.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct DatabaseHistory {
    pub(crate) name: String,
    /// A slot for each minute.
    pub(crate) hour: Series,
    /// A slot for each five minutes.
    pub(crate) day: Series,
}

/// One value for each slot, the oldest first.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Series {
    /// Length of a slot.
    pub(crate) slot_s: u64,
    /// When the newest ends, in seconds since 1970.
    pub(crate) end_s: u64,
    /// Documents that went over with peers.
    pub(crate) exchanged: Vec<u32>,
    /// Documents that the database held at its end; null: it was not measured.
    pub(crate) documents: Vec<Option<u32>>,
}

/// Both rings of one database.
#[derive(Debug)]
pub(super) struct History {
    hour: Ring,
    day: Ring,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    exchanged: u32,
    documents: u32,
}

/// No number of documents.
const UNKNOWN: u32 = u32::MAX;

#[derive(Debug)]
struct Ring {
    slot_s: u64,
    len: usize,
    slots: VecDeque<Slot>,
    /// Of the newest, counted from 1970.
    number: u64,
}

impl Default for History {
    fn default() -> History {
        History { hour: Ring::new(HOUR), day: Ring::new(DAY) }
    }
}

impl History {
    /// So many documents went over since the last note, and so many are there.
    pub(super) fn note(&mut self, now_s: u64, exchanged: u64, documents: Option<u64>) {
        let exchanged = u32::try_from(exchanged).unwrap_or(u32::MAX);
        let documents = documents.map(|documents| u32::try_from(documents).unwrap_or(UNKNOWN - 1));
        self.hour.note(now_s, exchanged, documents);
        self.day.note(now_s, exchanged, documents);
    }

    pub(super) fn told(&self, name: &str) -> DatabaseHistory {
        DatabaseHistory { name: name.to_owned(), hour: self.hour.told(), day: self.day.told() }
    }
}

impl Ring {
    fn new((slot_s, len): (u64, usize)) -> Ring {
        Ring { slot_s, len, slots: VecDeque::with_capacity(len), number: 0 }
    }

    fn note(&mut self, now_s: u64, exchanged: u32, documents: Option<u32>) {
        let number = now_s / self.slot_s;
        let empty = Slot { exchanged: 0, documents: UNKNOWN };
        // A clock that was set back goes on in the newest slot, until it has come there again.
        let passed = match self.slots.is_empty() {
            true => self.len as u64,
            false => number.saturating_sub(self.number),
        };
        for _ in 0..passed.min(self.len as u64) {
            if self.slots.len() >= self.len {
                self.slots.pop_front();
            }
            self.slots.push_back(empty);
        }
        self.number = self.number.max(number);
        if let Some(newest) = self.slots.back_mut() {
            newest.exchanged = newest.exchanged.saturating_add(exchanged);
            newest.documents = documents.unwrap_or(newest.documents);
        }
    }

    fn told(&self) -> Series {
        let known = |slot: &Slot| (slot.documents != UNKNOWN).then_some(slot.documents);
        Series {
            slot_s: self.slot_s,
            end_s: (self.number + 1) * self.slot_s,
            exchanged: self.slots.iter().map(|slot| slot.exchanged).collect(),
            documents: self.slots.iter().map(known).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(series: &Series, slots: usize) -> (Vec<u32>, Vec<Option<u32>>) {
        let at = series.exchanged.len() - slots;
        (series.exchanged[at..].to_vec(), series.documents[at..].to_vec())
    }

    #[test]
    fn what_was_measured_stands_in_its_slot_and_goes_with_it() {
        let mut history = History::default();
        let begin = 1_000 * 300;
        history.note(begin, 3, Some(10));
        history.note(begin + 59, 4, Some(12));
        history.note(begin + 60, 5, Some(11));
        history.note(begin + 200, 1, None);
        let told = history.told("plant");
        assert_eq!(last(&told.hour, 4), (vec![7, 5, 0, 1], vec![Some(12), Some(11), None, None]));
        assert_eq!(told.hour.end_s, begin + 240);
        assert_eq!(last(&told.day, 2), (vec![0, 13], vec![None, Some(11)]));
        // A clock that goes back loses nothing, one that goes far ahead leaves nothing of before.
        history.note(begin, 100, Some(50));
        assert_eq!(last(&history.told("plant").hour, 1), (vec![101], vec![Some(50)]));
        history.note(u64::MAX / 2, 6, Some(1));
        let told = history.told("plant");
        assert_eq!(told.hour.exchanged.iter().sum::<u32>(), 6);
        assert_eq!((told.hour.exchanged.len(), told.day.exchanged.len()), (60, 288));
    }
}
