//! The fuzzer's bytes, taken piece by piece. At their end everything is zero.

/// What is left of them.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of them.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether they are used up.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next bytes, at most so many.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// All that are left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.bytes(usize::MAX)
    }

    fn fixed<const N: usize>(&mut self) -> [u8; N] {
        let mut fixed = [0; N];
        let bytes = self.bytes(N);
        fixed[..bytes.len()].copy_from_slice(bytes);
        fixed
    }

    /// A number.
    pub fn byte(&mut self) -> u8 {
        u8::from_le_bytes(self.fixed())
    }

    /// One of the numbers below `end`, which is not zero.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    /// Yes or no.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    /// A number.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.fixed())
    }

    /// A number.
    pub fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.fixed())
    }

    /// A number.
    pub fn long(&mut self) -> u64 {
        u64::from_le_bytes(self.fixed())
    }

    /// A number that is mostly small.
    pub fn length(&mut self) -> u32 {
        match self.byte() {
            small @ 0..=199 => u32::from(small),
            200..=239 => u32::from(self.short()),
            _ => self.word(),
        }
    }
}
