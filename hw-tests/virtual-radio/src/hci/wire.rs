//! Reading and writing little-endian parameters.

use super::{Address, PeerAddress};

/// Reads parameters in order. `None` once they run out: a short command is refused, never guessed.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// One octet.
    pub fn u8(&mut self) -> Option<u8> {
        Some(self.array::<1>()?[0])
    }

    /// Two octets.
    pub fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.array()?))
    }

    /// Three octets.
    pub fn u24(&mut self) -> Option<u32> {
        let [a, b, c] = self.array()?;
        Some(u32::from_le_bytes([a, b, c, 0]))
    }

    /// Eight octets.
    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }

    /// A long-term key.
    pub fn key(&mut self) -> Option<[u8; 16]> {
        self.array()
    }

    /// A device address.
    pub fn address(&mut self) -> Option<Address> {
        Some(Address(self.array()?))
    }

    /// Address type and address. Identity types (2, 3) count as public and random.
    pub fn peer(&mut self) -> Option<PeerAddress> {
        Some(PeerAddress { kind: self.u8()? & 1, address: self.address()? })
    }

    /// A length octet and as many octets.
    pub fn counted(&mut self) -> Option<&'a [u8]> {
        let count = self.u8()?;
        self.take(count.into())
    }
}

/// Builds parameters by appending.
#[derive(Default, Clone)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// Nothing yet.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// One octet.
    #[must_use]
    pub fn u8(mut self, value: u8) -> Writer {
        self.0.push(value);
        self
    }

    /// Two octets.
    #[must_use]
    pub fn u16(self, value: u16) -> Writer {
        self.bytes(&value.to_le_bytes())
    }

    /// Eight octets.
    #[must_use]
    pub fn u64(self, value: u64) -> Writer {
        self.bytes(&value.to_le_bytes())
    }

    /// Octets as they are.
    #[must_use]
    pub fn bytes(mut self, value: &[u8]) -> Writer {
        self.0.extend_from_slice(value);
        self
    }

    /// Address type and address.
    #[must_use]
    pub fn peer(self, value: PeerAddress) -> Writer {
        self.u8(value.kind).bytes(&value.address.0)
    }
}
