//! Moving bytes between guest memory and descriptors or buffers, without copies in between.
#![expect(unsafe_code, reason = "readv and writev on guest memory")]
// UNSAFETY: a `VolatileSlice` is memory that stays mapped as long as it is borrowed; the kernel reads or writes exactly
// that. The guest may change the bytes at the same time: nothing here looks at them.

use std::io;
use std::os::fd::AsRawFd;

use vm_memory::VolatileSlice;

/// The most pieces that one call passes (`IOV_MAX`, Linux `limits.h`).
const MOST: usize = 1024;

/// How many bytes the slices hold together.
#[must_use]
pub fn total(slices: &[VolatileSlice<'_>]) -> usize {
    slices
        .iter()
        .map(VolatileSlice::len)
        .fold(0, usize::saturating_add)
}

/// Reads once from a descriptor into the slices, in order: a packet of a tap as a whole.
///
/// # Errors
/// The operating system's; `InvalidInput` for more than 1024 slices.
pub fn read_vectored(fd: &impl AsRawFd, slices: &[VolatileSlice<'_>]) -> io::Result<usize> {
    let (vectors, _guards) = vectors(slices)?;
    // SAFETY: the vectors point to guest memory that is mapped, see the head of this file.
    let count = unsafe { libc::readv(fd.as_raw_fd(), vectors.as_ptr(), vectors.len() as i32) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Writes the slices to a descriptor once, in order.
///
/// # Errors
/// The operating system's; `InvalidInput` for more than 1024 slices.
pub fn write_vectored(fd: &impl AsRawFd, slices: &[VolatileSlice<'_>]) -> io::Result<usize> {
    let (vectors, _guards) = vectors(slices)?;
    // SAFETY: the vectors point to guest memory that is mapped, see the head of this file.
    let count = unsafe { libc::writev(fd.as_raw_fd(), vectors.as_ptr(), vectors.len() as i32) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Copies out of the slices until `into` is full or they end; the number of bytes copied.
pub fn copy_from(slices: &[VolatileSlice<'_>], into: &mut [u8]) -> usize {
    let mut done = 0;
    for slice in slices {
        if done == into.len() {
            break;
        }
        done += slice.copy_to(&mut into[done..]);
    }
    done
}

/// Copies into the slices until `from` is used up or they are full; the number of bytes copied.
pub fn copy_to(slices: &[VolatileSlice<'_>], from: &[u8]) -> usize {
    let mut done = 0;
    for slice in slices {
        let rest = &from[done..];
        let count = rest.len().min(slice.len());
        slice.copy_from(&rest[..count]);
        done += count;
    }
    done
}

fn vectors(
    slices: &[VolatileSlice<'_>],
) -> io::Result<(
    Vec<libc::iovec>,
    Vec<vm_memory::volatile_memory::PtrGuardMut>,
)> {
    if slices.len() > MOST {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let guards: Vec<_> = slices.iter().map(VolatileSlice::ptr_guard_mut).collect();
    let vectors = guards
        .iter()
        .zip(slices)
        .map(|(guard, slice)| libc::iovec {
            iov_base: guard.as_ptr().cast(),
            iov_len: slice.len(),
        })
        .collect();
    Ok((vectors, guards))
}
