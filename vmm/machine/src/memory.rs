//! The guest's memory.
#![expect(unsafe_code, reason = "mappings that are aligned to huge pages")]
// UNSAFETY: mappings that are made here are never unmapped: a machine lives as long as its process. Regions of guest
// memory and KVM's memory slots may so hold plain pointers.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Address, FileOffset, GuestAddress, GuestMemory, GuestMemoryRegion, GuestRegionMmap,
};
use vmm_virtio::Memory;

use crate::Error;
use crate::x86_64::layout;

/// The size of the huge pages that memory is aligned to.
const HUGE: usize = 2 << 20;

/// What the memory is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// Anonymous memory of this process only: the quickest, as the host may use huge pages for it.
    Private,
    /// A file in memory that a device in another process maps as well.
    Shared,
}

/// The memory of one guest.
#[derive(Debug, Clone)]
pub struct GuestRam {
    memory: Arc<Memory>,
}

impl GuestRam {
    /// Reserves memory; the host gives it page by page as the guest touches it.
    ///
    /// # Errors
    /// [`Error::System`] when the host has no address space or no descriptor left.
    pub fn new(bytes: u64, backing: Backing) -> Result<Self, Error> {
        let regions = layout::ram(bytes)
            .into_iter()
            .map(|(start, size)| region(start, size, backing))
            .collect::<io::Result<Vec<_>>>()
            .map_err(Error::system("reserve the guest's memory"))?;
        let memory = Memory::from_regions(regions).map_err(|error| Error::System {
            action: "lay out the guest's memory",
            source: io::Error::other(error),
        })?;
        Ok(Self {
            memory: Arc::new(memory),
        })
    }

    /// As devices see it.
    #[must_use]
    pub fn shared(&self) -> Arc<Memory> {
        Arc::clone(&self.memory)
    }

    /// Guest address, length and host address of each region.
    pub(crate) fn regions(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        self.memory.iter().map(|region| {
            let start = region.start_addr();
            // A region has an address as long as it lives.
            let host = region.as_ptr() as u64;
            (start.raw_value(), region.len(), host)
        })
    }
}

fn region(start: GuestAddress, size: usize, backing: Backing) -> io::Result<GuestRegionMmap<()>> {
    let file = match backing {
        Backing::Private => None,
        Backing::Shared => {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let file = memfd_create(c"guest-memory", flags)?;
            ftruncate(&file, size as u64)?;
            // Who it is shared with could make it shorter else, and whoever touches what is gone is killed.
            fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
            Some(File::from(file))
        }
    };
    let pointer = map(size, file.as_ref())?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the mapping was made with this size and protection, and is never unmapped.
    let builder = unsafe { MmapRegionBuilder::new(size).with_raw_mmap_pointer(pointer) }
        .with_mmap_prot(protection);
    let builder = match file {
        Some(file) => builder
            .with_mmap_flags(libc::MAP_SHARED)
            .with_file_offset(FileOffset::new(file, 0)),
        None => builder.with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS),
    };
    let region = builder.build().map_err(io::Error::other)?;
    GuestRegionMmap::new(region, start).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Maps memory at an address that is aligned to a huge page, so that the host can use such pages: with them a guest
/// leaves its virtual CPU a tenth as often while it touches its memory for the first time.
fn map(size: usize, file: Option<&File>) -> io::Result<*mut u8> {
    let room = size.checked_add(HUGE).ok_or(io::ErrorKind::OutOfMemory)?;
    let reserve = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let base = unsafe { libc::mmap(ptr::null_mut(), room, libc::PROT_NONE, reserve, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let aligned = base.cast::<u8>().wrapping_add(base.align_offset(HUGE));
    let (flags, fd) = match file {
        Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
        None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
    };
    // SAFETY: the range lies in the reservation from above, which nobody else uses.
    let mapped = unsafe {
        libc::mmap(
            aligned.cast(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            flags | libc::MAP_FIXED | libc::MAP_NORESERVE,
            fd,
            0,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    for advice in [libc::MADV_HUGEPAGE, libc::MADV_DONTDUMP] {
        // SAFETY: the range was mapped above. That the host has no huge pages is no error: it goes on with small ones.
        let _ = unsafe { libc::madvise(mapped, size, advice) };
    }
    Ok(aligned)
}
