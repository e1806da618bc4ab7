//! Headers of packets (virtio 1.3, 5.10.6).

use vm_memory::VolatileSlice;
use vmm_virtio::{copy_from, copy_to};

/// The length of a header, in bytes.
pub(crate) const HEADER: usize = 44;

/// The host's address.
pub(crate) const HOST_CID: u64 = 2;

/// The type of packets of stream sockets.
pub(crate) const STREAM: u16 = 1;

/// What a packet is for.
pub(crate) mod op {
    pub(crate) const REQUEST: u16 = 1;
    pub(crate) const RESPONSE: u16 = 2;
    pub(crate) const RST: u16 = 3;
    pub(crate) const SHUTDOWN: u16 = 4;
    pub(crate) const RW: u16 = 5;
    pub(crate) const CREDIT_UPDATE: u16 = 6;
    pub(crate) const CREDIT_REQUEST: u16 = 7;
}

/// The flags of a `SHUTDOWN`: what its sender will not do any more.
pub(crate) mod shut {
    pub(crate) const RECEIVE: u32 = 1;
    pub(crate) const SEND: u32 = 2;
    pub(crate) const BOTH: u32 = RECEIVE | SEND;
}

/// A header, in the order of its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) src_cid: u64,
    pub(crate) dst_cid: u64,
    pub(crate) src_port: u32,
    pub(crate) dst_port: u32,
    pub(crate) len: u32,
    pub(crate) kind: u16,
    pub(crate) op: u16,
    pub(crate) flags: u32,
    pub(crate) buf_alloc: u32,
    pub(crate) fwd_cnt: u32,
}

impl Header {
    /// Takes it from the beginning of what the guest has sent; `None` when that is too short.
    pub(crate) fn read(from: &[VolatileSlice<'_>]) -> Option<Self> {
        let mut bytes = [0; HEADER];
        if copy_from(from, &mut bytes) < HEADER {
            return None;
        }
        let mut fields = Fields(&bytes);
        Some(Self {
            src_cid: u64::from_le_bytes(fields.take()?),
            dst_cid: u64::from_le_bytes(fields.take()?),
            src_port: u32::from_le_bytes(fields.take()?),
            dst_port: u32::from_le_bytes(fields.take()?),
            len: u32::from_le_bytes(fields.take()?),
            kind: u16::from_le_bytes(fields.take()?),
            op: u16::from_le_bytes(fields.take()?),
            flags: u32::from_le_bytes(fields.take()?),
            buf_alloc: u32::from_le_bytes(fields.take()?),
            fwd_cnt: u32::from_le_bytes(fields.take()?),
        })
    }

    /// Puts it at the beginning of a buffer of the guest's, which is long enough.
    pub(crate) fn write(&self, into: &[VolatileSlice<'_>]) {
        let mut bytes = [0; HEADER];
        let fields: [&[u8]; 10] = [
            &self.src_cid.to_le_bytes(),
            &self.dst_cid.to_le_bytes(),
            &self.src_port.to_le_bytes(),
            &self.dst_port.to_le_bytes(),
            &self.len.to_le_bytes(),
            &self.kind.to_le_bytes(),
            &self.op.to_le_bytes(),
            &self.flags.to_le_bytes(),
            &self.buf_alloc.to_le_bytes(),
            &self.fwd_cnt.to_le_bytes(),
        ];
        let all = fields.into_iter().flatten();
        for (byte, value) in bytes.iter_mut().zip(all) {
            *byte = *value;
        }
        copy_to(into, &bytes);
    }

    /// The refusal of a packet.
    pub(crate) fn reset(&self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            len: 0,
            kind: self.kind,
            op: op::RST,
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        }
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }
}

/// What is left of these slices behind the first `count` bytes.
pub(crate) fn behind<'m>(slices: &[VolatileSlice<'m>], count: usize) -> Vec<VolatileSlice<'m>> {
    let mut skip = count;
    let mut rest = Vec::with_capacity(slices.len());
    for slice in slices {
        let here = skip.min(slice.len());
        skip -= here;
        if let Ok(part) = slice.offset(here)
            && !part.is_empty()
        {
            rest.push(part);
        }
    }
    rest
}

/// The first `count` bytes of these slices.
pub(crate) fn first<'m>(slices: &[VolatileSlice<'m>], count: usize) -> Vec<VolatileSlice<'m>> {
    let mut left = count;
    let mut taken = Vec::new();
    for slice in slices {
        let here = left.min(slice.len());
        if here == 0 {
            if left == 0 {
                break;
            }
            continue;
        }
        left -= here;
        if let Ok(part) = slice.subslice(0, here) {
            taken.push(part);
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_any_cut_of_its_bytes() {
        let header = Header {
            src_cid: 3,
            dst_cid: 2,
            src_port: 0x0102_0304,
            dst_port: 0x0506_0708,
            len: 9,
            kind: 1,
            op: op::RW,
            flags: 3,
            buf_alloc: 0x1000,
            fwd_cnt: u32::MAX,
        };
        let mut memory = [0_u8; HEADER + 6];
        for cut in 0..HEADER {
            memory.fill(0xff);
            let (one, two) = memory.split_at_mut(cut);
            let slices = [VolatileSlice::from(one), VolatileSlice::from(two)];
            header.write(&slices);
            assert_eq!(Header::read(&slices), Some(header), "{cut}");
            assert_eq!(vmm_virtio::total(&behind(&slices, HEADER)), 6);
            assert_eq!(vmm_virtio::total(&first(&slices, HEADER)), HEADER);
            assert_eq!(Header::read(&first(&slices, HEADER - 1)), None);
        }
        assert_eq!(memory[24..28], [9, 0, 0, 0]);
        assert_eq!(memory[28..32], [1, 0, 5, 0]);
        assert_eq!(memory[HEADER..], [0xff; 6]);
    }
}
