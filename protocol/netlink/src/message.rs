//! Messages: a header, the fixed part of their kind, and attributes.

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of `struct nlattr`.
const ATTRIBUTE: usize = 4;
/// The upper bits of an attribute's type are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const KIND_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;

/// A message to the kernel.
#[derive(Debug, Clone)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message of this kind (`RTM_…`) with these flags beside `NLM_F_REQUEST`; `fixed` is the structure that begins
    /// messages of the kind.
    #[must_use]
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        const REQUEST: u16 = 1;
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | REQUEST).to_ne_bytes());
        bytes.resize(HEADER, 0);
        let mut message = Self { bytes };
        message.pad(fixed);
        message
    }

    /// Adds an attribute.
    ///
    /// # Panics
    /// When the value is longer than an attribute can be (64 KiB): no caller has one.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(ATTRIBUTE + value.len()).expect("a short attribute");
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.pad(value);
        self
    }

    /// Adds a structure that stands in front of attributes inside an attribute.
    #[must_use]
    pub fn with_fixed(mut self, fixed: &[u8]) -> Self {
        self.pad(fixed);
        self
    }

    /// Adds a number of 32 bits.
    #[must_use]
    pub fn with_u32(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_ne_bytes())
    }

    /// Adds text, which the kernel wants to end with a zero.
    #[must_use]
    pub fn with_text(self, kind: u16, text: &str) -> Self {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.with(kind, &value)
    }

    /// Adds an attribute that holds attributes.
    ///
    /// # Panics
    /// As [`with`](Self::with).
    #[must_use]
    pub fn with_nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend((kind | NESTED).to_ne_bytes());
        let mut filled = fill(self);
        let length = u16::try_from(filled.bytes.len() - start).expect("a short attribute");
        filled.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled
    }

    /// The bytes to send, with this sequence number and flags added.
    pub(crate) fn finish(mut self, sequence: u32, flags: u16) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("a short message");
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        let all = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flags;
        self.bytes[6..8].copy_from_slice(&all.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }

    fn pad(&mut self, value: &[u8]) {
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A message from the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// `RTM_…`, or one of netlink's own kinds.
    pub kind: u16,
    /// `NLM_F_…`.
    pub flags: u16,
    /// Of the request that it answers.
    pub sequence: u32,
    /// All behind the header.
    pub payload: Vec<u8>,
}

impl Received {
    /// The first `N` bytes, the fixed structure of the kind, and the attributes behind it.
    #[must_use]
    pub fn split<const N: usize>(&self) -> Option<(&[u8; N], Attributes<'_>)> {
        let (fixed, rest) = self.payload.split_first_chunk::<N>()?;
        Some((fixed, Attributes { rest }))
    }
}

/// Takes the messages of one datagram apart; what is cut short ends the list.
pub(crate) fn parse(mut datagram: &[u8]) -> Vec<Received> {
    let mut messages = Vec::new();
    while let Some(header) = datagram.first_chunk::<HEADER>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some(payload) = datagram.get(HEADER..length) else {
            break;
        };
        messages.push(Received {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            payload: payload.to_vec(),
        });
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    messages
}

/// Attributes, one after the other, as (type without flags, value).
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The attributes inside the value of one.
    #[must_use]
    pub fn inside(value: &'a [u8]) -> Self {
        Self { rest: value }
    }

    /// All bytes that have not been read yet.
    #[must_use]
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// The first of this type.
    #[must_use]
    pub fn find(self, kind: u16) -> Option<&'a [u8]> {
        self.into_iter()
            .find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// A number of 32 bits.
    #[must_use]
    pub fn find_u32(self, kind: u16) -> Option<u32> {
        let value = self.find(kind)?.first_chunk()?;
        Some(u32::from_ne_bytes(*value))
    }

    /// Text without the zero at its end.
    #[must_use]
    pub fn find_text(self, kind: u16) -> Option<String> {
        let value = self.find(kind)?;
        let text = value.strip_suffix(&[0]).unwrap_or(value);
        Some(String::from_utf8_lossy(text).into_owned())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.rest.first_chunk::<ATTRIBUTE>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & KIND_MASK;
        let value = self.rest.get(ATTRIBUTE..length)?;
        self.rest = self
            .rest
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_taken_apart() {
        let bytes = Message::new(16, 0x300, &[7; 5])
            .with_text(3, "eth0")
            .with_nested(18, |inside| inside.with_u32(1, 99).with(2, &[1, 2, 3]))
            .finish(42, 4);
        assert_eq!(bytes.len() % 4, 0);
        let [message] = &parse(&bytes)[..] else {
            panic!("one message")
        };
        assert_eq!(
            (message.kind, message.flags, message.sequence),
            (16, 0x305, 42)
        );
        let (fixed, attributes) = message.split::<8>().unwrap();
        assert_eq!(fixed, &[7, 7, 7, 7, 7, 0, 0, 0]);
        assert_eq!(attributes.find_text(3).unwrap(), "eth0");
        let inside = Attributes::inside(attributes.find(18).unwrap());
        assert_eq!(inside.find_u32(1), Some(99));
        assert_eq!(inside.find(2), Some(&[1, 2, 3][..]));
        assert_eq!(attributes.count(), 2);
    }

    #[test]
    fn lengths_that_lie_end_the_list() {
        for length in [0_u32, 3, 15, 17, 4096, u32::MAX] {
            let mut bytes = vec![0; 16];
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(parse(&bytes).is_empty(), "{length}");
        }
        for length in [0_u16, 3, 9, u16::MAX] {
            let mut value = vec![0; 8];
            value[..2].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(Attributes::inside(&value).count(), 0, "{length}");
        }
    }
}
