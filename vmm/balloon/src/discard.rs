//! Memory that nobody needs goes back to the host.
#![expect(unsafe_code, reason = "madvise by libc")]
// UNSAFETY: one call on a range that lies in a region of guest memory, which is mapped as long as it is borrowed and
// holds no value of Rust's: the guest changes it at any time.

use std::io;

use rustix::fs::{FallocateFlags, fallocate};
use vm_memory::{
    Address, GuestAddress, GuestMemory, GuestMemoryRegion, GuestRegionMmap, MemoryRegionAddress,
};
use vmm_virtio::Memory;

/// Gives pages of a guest back to the host.
pub trait Discard: Send + Sync {
    /// Gives a range back, whose ends are multiples of 4096: what the guest reads there next are zeros. Ranges come
    /// from the guest: any may be asked for.
    ///
    /// # Errors
    /// The range is not all memory, or the operating system refuses. The device counts it and goes on.
    fn discard(&self, address: GuestAddress, length: u64) -> io::Result<()>;
}

/// Private memory is dropped; shared memory is cut out of its file, for all who map it. A private mapping of a file has
/// something else than zeros below it: that is refused.
impl Discard for Memory {
    fn discard(&self, address: GuestAddress, length: u64) -> io::Result<()> {
        let whole = usize::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
        if !self.check_range(address, whole) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut at = address;
        let mut left = length;
        while left > 0 {
            let (region, offset) = self.to_region_addr(at).ok_or(io::ErrorKind::InvalidInput)?;
            let part = left.min(region.len() - offset.raw_value());
            discard(region, offset, part)?;
            left -= part;
            at = GuestAddress(at.raw_value().saturating_add(part));
        }
        Ok(())
    }
}

fn discard(region: &GuestRegionMmap, offset: MemoryRegionAddress, length: u64) -> io::Result<()> {
    match region.file_offset() {
        Some(file) if region.flags() & libc::MAP_SHARED != 0 => {
            let start = file
                .start()
                .checked_add(offset.raw_value())
                .ok_or(io::ErrorKind::InvalidInput)?;
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            Ok(fallocate(file.file(), hole, start, length)?)
        }
        Some(_) => Err(io::ErrorKind::Unsupported.into()),
        None => {
            let length = usize::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
            let slice = region
                .get_slice(offset, length)
                .map_err(|_| io::ErrorKind::InvalidInput)?;
            let begin = slice.ptr_guard_mut();
            // SAFETY: the slice is mapped, see the head of this file, and was checked to be as long as that.
            let result =
                unsafe { libc::madvise(begin.as_ptr().cast(), length, libc::MADV_DONTNEED) };
            if result == 0 {
                Ok(())
            } else {
                Err(io::Error::last_os_error())
            }
        }
    }
}
