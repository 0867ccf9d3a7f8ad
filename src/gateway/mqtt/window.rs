//! What is under way to a broker, and up to where all of each collection was published. No I/O, no clock.
//!
//! A broker confirms messages in any order; the position of a feed moves up to the last change before which nothing is missing.

use std::collections::VecDeque;

/// One change of a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    feed: usize,
    sequence: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Given to the client, which has not said under which number it travels.
    Given,
    /// On its way under this number.
    Sent(u16),
    /// The broker has it, or there was nothing to send.
    Done,
}

/// Changes under way, of one connection.
#[derive(Debug)]
pub(super) struct Window {
    /// In the order in which they were given.
    items: VecDeque<Item>,
    limit: usize,
    under_way: usize,
}

/// What is no change of a feed: that the gateway is there, what it has.
pub(super) const NO_FEED: usize = usize::MAX;

impl Window {
    pub(super) fn new(limit: usize) -> Window {
        Window { items: VecDeque::new(), limit, under_way: 0 }
    }

    /// How many messages more may be given.
    pub(super) fn room(&self) -> usize {
        // Those that are done wait for an older one; they are held in memory too.
        self.limit.saturating_sub(self.under_way).min((self.limit * 4).saturating_sub(self.items.len()))
    }

    /// Whether all is confirmed.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// A message was given to the client.
    pub(super) fn give(&mut self, feed: usize, sequence: u64) {
        self.items.push_back(Item { feed, sequence, state: State::Given });
        self.under_way += 1;
    }

    /// A change that is not published.
    pub(super) fn pass_over(&mut self, feed: usize, sequence: u64) -> Vec<(usize, u64)> {
        self.items.push_back(Item { feed, sequence, state: State::Done });
        self.settle()
    }

    /// The oldest message that was given has gone under this number; false: there is none.
    pub(super) fn sent(&mut self, number: u16) -> bool {
        let given = self.items.iter_mut().find(|item| item.state == State::Given);
        given.map(|item| item.state = State::Sent(number)).is_some()
    }

    /// The broker has confirmed a message: feeds with their new positions, up to which nothing is missing.
    pub(super) fn confirmed(&mut self, number: u16) -> Vec<(usize, u64)> {
        let sent = self.items.iter_mut().find(|item| item.state == State::Sent(number));
        if let Some(item) = sent {
            item.state = State::Done;
            self.under_way -= 1;
        }
        self.settle()
    }

    fn settle(&mut self) -> Vec<(usize, u64)> {
        let mut positions: Vec<(usize, u64)> = Vec::new();
        while let Some(item) = self.items.front().filter(|item| item.state == State::Done) {
            if item.feed != NO_FEED {
                match positions.iter_mut().find(|(feed, _)| *feed == item.feed) {
                    Some((_, position)) => *position = item.sequence,
                    None => positions.push((item.feed, item.sequence)),
                }
            }
            self.items.pop_front();
        }
        positions
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_position_waits_for_what_is_before_it() {
        let mut window = Window::new(3);
        window.give(0, 5);
        window.give(1, 9);
        assert_eq!(window.room(), 1);
        assert!(window.pass_over(0, 6).is_empty());
        window.give(0, 7);
        assert_eq!(window.room(), 0);
        assert!(window.sent(1) && window.sent(2) && window.sent(3) && !window.sent(4));
        assert!(window.confirmed(2).is_empty());
        assert_eq!(window.room(), 1);
        assert_eq!(window.confirmed(1), [(0, 6), (1, 9)]);
        assert!(window.confirmed(1).is_empty(), "a second time it means nothing");
        assert_eq!(window.confirmed(3), [(0, 7)]);
        assert!(window.is_empty());
        window.give(NO_FEED, 0);
        window.sent(4);
        assert!(window.confirmed(4).is_empty() && window.is_empty());
    }

    /// Whatever order a broker confirms in, nothing unconfirmed is ever below a position, and in the end all is.
    #[test]
    fn nothing_is_published_by_a_position_alone() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut window = Window::new(random.usize(1..20));
            let (mut next, mut number) = ([0_u64; 3], 0_u16);
            let mut open: Vec<(u16, usize, u64)> = Vec::new();
            let mut positions: BTreeMap<usize, u64> = BTreeMap::new();
            let mut given = 0;
            while given < 300 || !window.is_empty() {
                let moved = if window.room() > 0 && given < 300 && random.bool() {
                    let feed = random.usize(..3);
                    next[feed] += 1 + random.u64(..3);
                    given += 1;
                    if random.u8(..5) == 0 {
                        window.pass_over(feed, next[feed])
                    } else {
                        window.give(feed, next[feed]);
                        number = number % 20 + 1;
                        while open.iter().any(|(other, ..)| *other == number) {
                            number = number % 20 + 1;
                        }
                        assert!(window.sent(number));
                        open.push((number, feed, next[feed]));
                        Vec::new()
                    }
                } else if open.is_empty() {
                    Vec::new()
                } else {
                    let (number, ..) = open.swap_remove(random.usize(..open.len()));
                    window.confirmed(number)
                };
                for (feed, position) in moved {
                    assert!(positions.insert(feed, position).is_none_or(|old| old < position), "seed {seed}");
                    let missing = open.iter().any(|(_, of, sequence)| *of == feed && *sequence <= position);
                    assert!(!missing, "seed {seed}");
                }
            }
            for (feed, last) in next.iter().enumerate().filter(|(_, last)| **last > 0) {
                assert_eq!(positions.get(&feed), Some(last), "seed {seed}");
            }
        }
    }
}
