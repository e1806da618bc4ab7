//! Guest memory that the host reads or writes while nobody here holds a borrow of it.
#![expect(
    unsafe_code,
    reason = "pointers into guest memory that outlive a borrow"
)]
// UNSAFETY: a request is on its way longer than any borrow of the guest's memory. So a `Buffers` holds pointers, and
// beside them the `Arc` of the memory that they point into, whose regions stay mapped as long as it lives (that they
// point into it is checked when it is made). The guest may change the bytes at any time: nothing here looks at them.

use std::sync::Arc;

use vm_memory::{GuestMemory, GuestMemoryRegion, VolatileSlice};
use vmm_virtio::Memory;

/// The most pieces that one call takes (`IOV_MAX`, Linux `limits.h`).
const MOST: usize = 1024;

/// What disks write where zeros are wanted and the file system has no better way. Page-aligned for `O_DIRECT`.
#[repr(align(4096))]
struct Zeroes([u8; 16 << 10]);

/// Never written: it is constant, and if the kernel were told to, it would fail.
static ZEROES: Zeroes = Zeroes([0; 16 << 10]);

/// The most that [`Buffers::zeroes`] are.
pub(crate) const MOST_ZEROES: u64 = (MOST * (16 << 10)) as u64;

/// Pieces of memory for `readv` and `writev`, what is left of them.
pub(crate) struct Buffers {
    vectors: Box<[libc::iovec]>,
    first: usize,
    left: u64,
    // What the vectors point into; none for zeros.
    _memory: Option<Arc<Memory>>,
}

// SAFETY: the vectors are addresses of memory that is kept mapped by the `Arc`, from whatever thread.
unsafe impl Send for Buffers {}

impl Buffers {
    /// No memory, for what moves no bytes.
    pub(crate) fn none() -> Self {
        Self {
            vectors: Box::default(),
            first: 0,
            left: 0,
            _memory: None,
        }
    }

    /// These pieces of this memory. None if there are more than a call takes, or if they are not of this memory.
    pub(crate) fn of(memory: &Arc<Memory>, slices: &[VolatileSlice<'_>]) -> Option<Self> {
        if slices.len() > MOST {
            return None;
        }
        let mut left = 0_u64;
        let mut vectors = Vec::with_capacity(slices.len());
        for slice in slices {
            let base = address_in(memory, slice)?;
            left = left.checked_add(slice.len() as u64)?;
            vectors.push(libc::iovec {
                iov_base: base.cast(),
                iov_len: slice.len(),
            });
        }
        Some(Self {
            vectors: vectors.into(),
            first: 0,
            left,
            _memory: Some(Arc::clone(memory)),
        })
    }

    /// So many zeros to be written, at most [`MOST_ZEROES`].
    pub(crate) fn zeroes(length: u64) -> Self {
        let left = length.min(MOST_ZEROES);
        let mut vectors = Vec::new();
        let mut rest = left;
        while rest > 0 {
            let piece = rest.min(ZEROES.0.len() as u64);
            vectors.push(libc::iovec {
                iov_base: ZEROES.0.as_ptr().cast_mut().cast(),
                // At most the length of ZEROES.
                iov_len: piece as usize,
            });
            rest -= piece;
        }
        Self {
            vectors: vectors.into(),
            first: 0,
            left,
            _memory: None,
        }
    }

    /// How many bytes are left.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// What is left, for a system call. Valid as long as this lives and is not changed.
    pub(crate) fn vectors(&self) -> &[libc::iovec] {
        self.vectors.get(self.first..).unwrap_or(&[])
    }

    /// Takes so many bytes off the front.
    pub(crate) fn advance(&mut self, count: u64) {
        let mut count = count.min(self.left);
        self.left -= count;
        for vector in self.vectors.iter_mut().skip(self.first) {
            let length = vector.iov_len as u64;
            if count < length {
                // Less than the piece, so it fits, and stays within it.
                vector.iov_base = vector.iov_base.wrapping_byte_add(count as usize);
                vector.iov_len -= count as usize;
                return;
            }
            count -= length;
            self.first += 1;
        }
    }
}

/// The byte into which a request's status goes.
pub(crate) struct StatusByte {
    address: *mut u8,
    _memory: Arc<Memory>,
}

// SAFETY: the address of a byte that is kept mapped by the `Arc`, from whatever thread.
unsafe impl Send for StatusByte {}

impl StatusByte {
    /// This one byte of this memory; none if it is anything else.
    pub(crate) fn of(memory: &Arc<Memory>, slice: &VolatileSlice<'_>) -> Option<Self> {
        if slice.len() != 1 {
            return None;
        }
        Some(Self {
            address: address_in(memory, slice)?,
            _memory: Arc::clone(memory),
        })
    }

    /// Writes it.
    pub(crate) fn set(&self, value: u8) {
        // SAFETY: one byte of guest memory that is mapped as long as `_memory` lives; bytes have no alignment. Others
        // may write it at the same time, hence volatile; nobody here has a reference to it.
        unsafe { self.address.write_volatile(value) };
    }
}

/// The address of a slice that lies within one region of the memory.
fn address_in(memory: &Memory, slice: &VolatileSlice<'_>) -> Option<*mut u8> {
    let guard = slice.ptr_guard_mut();
    let address = guard.as_ptr();
    let begin = address as usize;
    let end = begin.checked_add(slice.len())?;
    memory
        .iter()
        .any(|region| {
            let base = region.as_ptr() as usize;
            let size = usize::try_from(region.len()).unwrap_or(0);
            base <= begin && end - base <= size
        })
        .then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestAddress};
    use vmm_virtio::testing::Driver;

    fn lengths(buffers: &Buffers) -> Vec<usize> {
        buffers.vectors().iter().map(|one| one.iov_len).collect()
    }

    #[test]
    fn what_was_moved_is_taken_off_the_front() {
        let memory = Driver::memory();
        let slices: Vec<_> = [(0, 3), (8, 0), (10, 5)]
            .into_iter()
            .map(|(address, length)| {
                memory
                    .get_slice(GuestAddress(address), length)
                    .expect("memory")
            })
            .collect();
        let mut buffers = Buffers::of(&memory, &slices).expect("buffers");
        assert_eq!((buffers.left(), lengths(&buffers)), (8, vec![3, 0, 5]));
        buffers.advance(2);
        assert_eq!((buffers.left(), lengths(&buffers)), (6, vec![1, 0, 5]));
        buffers.advance(1);
        assert_eq!(buffers.left(), 5);
        assert_eq!(lengths(&buffers).iter().sum::<usize>(), 5);
        buffers.advance(4);
        assert_eq!((buffers.left(), lengths(&buffers)), (1, vec![1]));
        buffers.advance(u64::MAX);
        assert_eq!((buffers.left(), lengths(&buffers)), (0, vec![]));
        buffers.advance(1);
        assert_eq!(buffers.left(), 0);
    }

    #[test]
    fn zeroes_are_as_many_as_asked_for() {
        for length in [0, 1, 16 << 10, (16 << 10) + 1, MOST_ZEROES] {
            let buffers = Buffers::zeroes(length);
            assert_eq!(buffers.left(), length);
            assert_eq!(lengths(&buffers).iter().sum::<usize>() as u64, length);
            assert!(buffers.vectors().len() <= MOST);
        }
        assert_eq!(Buffers::zeroes(u64::MAX).left(), MOST_ZEROES);
    }

    #[test]
    fn other_memory_and_too_many_pieces_are_refused() {
        let (memory, other) = (Driver::memory(), Driver::memory());
        let slice = |memory| Memory::get_slice(memory, GuestAddress(0), 1).expect("memory");
        assert!(Buffers::of(&memory, &[slice(&other)]).is_none());
        assert!(StatusByte::of(&memory, &slice(&other)).is_none());
        assert!(Buffers::of(&memory, &vec![slice(&memory); MOST]).is_some());
        assert!(Buffers::of(&memory, &vec![slice(&memory); MOST + 1]).is_none());
        let status = StatusByte::of(&memory, &slice(&memory)).expect("a byte");
        status.set(7);
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0)).expect("memory"), 7);
    }
}
