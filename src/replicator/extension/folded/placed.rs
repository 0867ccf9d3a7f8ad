//! Texts of one length, letter by letter: for each place which letters are there, and how often.

use super::coder::{CHANCE_BITS, Coder};

/// Letters that are told as they are.
const LETTERS: &[u8] = b"0123456789abcdef";

/// One place of texts of one length.
pub(super) struct Place {
    letters: Vec<u8>,
    index: [u8; 256],
    chances: Vec<Chance>,
    alike: Chance,
}

impl Place {
    fn new(letters: Vec<u8>) -> Place {
        let mut index = [0; 256];
        letters.iter().enumerate().for_each(|(at, letter)| index[usize::from(*letter)] = at as u8);
        let chances = vec![Chance::default(); letters.len().next_power_of_two()];
        Place { letters, index, chances, alike: Chance::default() }
    }

    pub(super) fn write<C: Coder>(coder: &mut C, is_there: &[bool; 256]) -> Place {
        let of_all = LETTERS.iter().filter(|letter| is_there[usize::from(**letter)]).count();
        let count = is_there.iter().filter(|is_there| **is_there).count();
        let is_usual = count == of_all && count > 4;
        coder.plain(is_usual.into(), 1);
        if is_usual {
            return Place::new(LETTERS.to_vec());
        }
        let letters: Vec<u8> = (0..=255).filter(|letter| is_there[usize::from(*letter)]).collect();
        coder.plain(letters.len() as u64 - 1, 8);
        for letter in &letters {
            coder.plain(u64::from(*letter), 8);
        }
        Place::new(letters)
    }

    pub(super) fn read<C: Coder>(coder: &mut C) -> Option<Place> {
        if coder.plain(0, 1) != 0 {
            return Some(Place::new(LETTERS.to_vec()));
        }
        let count = coder.plain(0, 8) + 1;
        let letters: Vec<u8> = (0..count).map(|_| coder.plain(0, 8) as u8).collect();
        letters.is_sorted().then(|| Place::new(letters))
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
        let mut node = 1;
        for bit in (0..bits).rev() {
            node = node << 1 | usize::from(self.chances[node].code(coder, symbol >> bit & 1 != 0));
        }
        self.letters[(node - (1 << bits)).min(self.letters.len() - 1)]
    }
}

/// The chance of a one, by those before.
#[derive(Clone, Copy)]
struct Chance {
    ones: u32,
    all: u32,
}

impl Default for Chance {
    fn default() -> Chance {
        Chance { ones: 1, all: 2 }
    }
}

impl Chance {
    fn code<C: Coder>(&mut self, coder: &mut C, bit: bool) -> bool {
        let chance = ((self.ones << CHANCE_BITS) / self.all).clamp(1, (1 << CHANCE_BITS) - 1);
        let bit = coder.bit(bit, chance);
        self.ones += u32::from(bit);
        self.all += 1;
        if self.all >= 1 << 14 {
            self.ones = (self.ones / 2).max(1);
            self.all /= 2;
        }
        bit
    }
}
