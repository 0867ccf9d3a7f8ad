//! Texts of one length, letter by letter: for each place which letters are there, and how often.

use super::coder::Coder;
use super::mixer::Slot;

/// Letters that are told as they are.
const LETTERS: &[u8] = b"0123456789abcdef";

/// One place of texts of one length.
pub(super) struct Place {
    letters: Vec<u8>,
    index: [u8; 256],
    chances: Vec<Slot>,
    alike: Slot,
    /// Each is as frequent as the others: what is random, or looks so.
    is_even: bool,
}

impl Place {
    fn new(letters: Vec<u8>, is_even: bool) -> Place {
        let mut index = [0; 256];
        letters.iter().enumerate().for_each(|(at, letter)| index[usize::from(*letter)] = at as u8);
        let chances = vec![Slot::FRESH; letters.len().next_power_of_two()];
        Place { letters, index, chances, alike: Slot::FRESH, is_even }
    }

    /// Writes what is known of a place before; which letter is there how often.
    pub(super) fn write<C: Coder>(coder: &mut C, frequent: &[u32; 256]) -> Place {
        let of_all = LETTERS.iter().filter(|letter| frequent[usize::from(**letter)] > 0).count();
        let count = frequent.iter().filter(|count| **count > 0).count();
        let is_usual = count == of_all && count > 4;
        coder.plain(is_usual.into(), 1);
        if is_usual {
            let is_even = is_even(frequent);
            coder.plain(is_even.into(), 1);
            return Place::new(LETTERS.to_vec(), is_even);
        }
        let letters: Vec<u8> = (0..=255).filter(|letter| frequent[usize::from(*letter)] > 0).collect();
        coder.plain(letters.len() as u64 - 1, 8);
        for letter in &letters {
            coder.plain(u64::from(*letter), 8);
        }
        Place::new(letters, false)
    }

    pub(super) fn read<C: Coder>(coder: &mut C) -> Option<Place> {
        if coder.plain(0, 1) != 0 {
            let is_even = coder.plain(0, 1) != 0;
            return Some(Place::new(LETTERS.to_vec(), is_even));
        }
        let count = coder.plain(0, 8) + 1;
        let letters: Vec<u8> = (0..count).map(|_| coder.plain(0, 8) as u8).collect();
        letters.is_sorted().then(|| Place::new(letters, false))
    }

    /// Codes a letter; `above` is the one of the text before if both are alike up to here.
    pub(super) fn code<C: Coder>(&mut self, coder: &mut C, letter: u8, above: Option<u8>) -> u8 {
        if self.letters.len() == 1 {
            return self.letters[0];
        }
        if let Some(above) = above
            && self.alike.code(coder, letter == above)
        {
            return above;
        }
        let symbol = usize::from(self.index[usize::from(letter)]);
        let bits = usize::BITS - (self.letters.len() - 1).leading_zeros();
        if self.is_even {
            let symbol = coder.plain(symbol as u64, bits) as usize;
            return self.letters[symbol.min(self.letters.len() - 1)];
        }
        let mut node = 1;
        for bit in (0..bits).rev() {
            node = node << 1 | usize::from(self.chances[node].code(coder, symbol >> bit & 1 != 0));
        }
        self.letters[(node - (1 << bits)).min(self.letters.len() - 1)]
    }
}

/// Whether knowing how frequent each letter is would save no more than it takes to learn.
fn is_even(frequent: &[u32; 256]) -> bool {
    let all: u32 = frequent.iter().sum();
    let entropy = |count: &u32| f64::from(*count) * (f64::from(all) / f64::from(*count)).log2();
    let bits: f64 = frequent.iter().filter(|count| **count > 0).map(entropy).sum();
    bits + 32.0 > f64::from(all) * (LETTERS.len() as f64).log2()
}
