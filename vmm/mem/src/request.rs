//! What the driver asks, and what it is answered (5.15.6).

use vm_memory::VolatileSlice;
use vmm_virtio::copy_from;

/// `struct virtio_mem_req`.
const REQUEST: usize = 24;

/// `struct virtio_mem_resp`.
pub(crate) const RESPONSE: usize = 10;

/// Blocks as the driver names them; nothing is checked yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) address: u64,
    pub(crate) blocks: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Plug(Place),
    Unplug(Place),
    UnplugAll,
    State(Place),
    /// Too short, or of a kind that there is not.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Response {
    Done,
    /// Of a question for the state.
    State(State),
    /// The driver has as much as it may have.
    Refused,
    /// Another time.
    Busy,
    Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Plugged,
    Unplugged,
    Mixed,
}

impl Request {
    /// Reads a request, once.
    pub(crate) fn read(slices: &[VolatileSlice<'_>]) -> Self {
        let mut bytes = [0; REQUEST];
        if copy_from(slices, &mut bytes) < REQUEST {
            return Self::Unknown;
        }
        let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let place = Place {
            address: u64::from_le_bytes(std::array::from_fn(|index| bytes[8 + index])),
            blocks: short(16),
        };
        match short(0) {
            0 => Self::Plug(place),
            1 => Self::Unplug(place),
            2 => Self::UnplugAll,
            3 => Self::State(place),
            _ => Self::Unknown,
        }
    }
}

impl Response {
    pub(crate) fn bytes(self) -> [u8; RESPONSE] {
        let (kind, state) = match self {
            Self::Done => (0, 0),
            Self::State(State::Plugged) => (0, 0),
            Self::State(State::Unplugged) => (0, 1),
            Self::State(State::Mixed) => (0, 2),
            Self::Refused => (1, 0),
            Self::Busy => (2, 0),
            Self::Error => (3, 0),
        };
        let mut bytes = [0; RESPONSE];
        bytes[0] = kind;
        bytes[8] = state;
        bytes
    }
}
