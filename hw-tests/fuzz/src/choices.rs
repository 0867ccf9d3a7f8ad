//! A fuzz input as a series of choices, and its inverse for seeds.

/// Reads choices from the front of an input; after its end every choice is zero and every text empty.
#[derive(Clone, Debug)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub fn new(input: &'a [u8]) -> Choices<'a> {
        Choices(input)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub fn bool(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `bound`, which is at most 256.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub fn u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        for byte in &mut bytes {
            *byte = self.byte();
        }
        u64::from_le_bytes(bytes)
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Up to `length` bytes.
    pub fn take(&mut self, length: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        head
    }

    /// Bytes whose length comes first: one byte, or 255 and two more.
    pub fn blob(&mut self) -> &'a [u8] {
        let length = match self.byte() {
            255 => self.u16().into(),
            short => usize::from(short),
        };
        self.take(length)
    }

    /// A blob as text; what is not UTF-8 is repaired.
    pub fn text(&mut self) -> std::borrow::Cow<'a, str> {
        String::from_utf8_lossy(self.blob())
    }

    /// Changes a byte of what is on its way.
    pub fn flip(&mut self, wire: &mut [u8]) {
        let (place, change) = (self.u16(), self.byte());
        let place = usize::from(place) % wire.len().max(1);
        if let Some(byte) = wire.get_mut(place) {
            *byte ^= change;
        }
    }

    /// Takes bytes of what is on its way out, repeats them, or puts others in.
    pub fn rearrange(&mut self, wire: &mut Vec<u8>) {
        let (kind, place, length) = (self.byte(), self.u16(), self.byte());
        let from = usize::from(place) % (wire.len() + 1);
        let to = (from + usize::from(length)).min(wire.len());
        match kind & 3 {
            0 => drop(wire.drain(from..to)),
            1 => {
                let again = wire[from..to].to_vec();
                wire.splice(to..to, again);
            }
            _ => drop(wire.splice(from..from, self.blob().iter().copied())),
        }
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// Writes an input that [`Choices`] reads: the seeds are made with it.
#[derive(Clone, Debug, Default)]
pub struct Script(pub Vec<u8>);

impl Script {
    pub fn bytes(mut self, bytes: &[u8]) -> Script {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn byte(self, byte: u8) -> Script {
        self.bytes(&[byte])
    }

    /// See [`Choices::blob`]; cut at 65,535 bytes.
    pub fn blob(self, blob: &[u8]) -> Script {
        let blob = &blob[..blob.len().min(usize::from(u16::MAX))];
        match blob.len() {
            length @ 0..255 => self.byte(length as u8).bytes(blob),
            length => self.byte(255).bytes(&(length as u16).to_le_bytes()).bytes(blob),
        }
    }
}
