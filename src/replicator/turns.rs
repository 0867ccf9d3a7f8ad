//! Who sends first: collections share the limits of their session, so they take turns.

/// The turn of each collection.
#[derive(Debug, Default)]
pub struct Turns {
    /// Which is next to send first.
    first: usize,
}

impl Turns {
    /// All of `count` collections, each once, in the order in which they may send now.
    pub fn order(&self, count: usize) -> impl Iterator<Item = usize> + use<> {
        let first = self.first;
        (0..count).map(move |n| (first + n) % count)
    }

    /// They have. If that was as much as the session may send, another one is first the next time.
    pub fn taken(&mut self, count: usize, is_at_limit: bool) {
        if is_at_limit && count > 0 {
            self.first = (self.first + 1) % count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_first_in_its_turn_while_there_is_more_than_may_be_sent() {
        let mut turns = Turns::default();
        let mut firsts = Vec::new();
        for _ in 0..6 {
            let order: Vec<usize> = turns.order(3).collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2], "nobody is left out");
            firsts.extend(order.first().copied());
            turns.taken(3, true);
        }
        assert_eq!(firsts, [0, 1, 2, 0, 1, 2]);
        turns.taken(3, false);
        assert_eq!(turns.order(3).next(), Some(0), "all were served, so nobody waits");
        // Fewer than before, as when nothing is agreed upon any more.
        turns.taken(0, true);
        assert_eq!(turns.order(0).count(), 0);
    }
}
