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
    /// The same of huge pages of 2 MiB, which the host has set aside (Linux `Documentation/admin-guide/mm/hugetlbpage.rst`):
    /// all that the memory needs are taken when it is made. Memory that comes later is not of them.
    Huge,
}

/// The memory of one guest.
#[derive(Debug, Clone)]
pub struct GuestRam {
    memory: Arc<Memory>,
    growth: Option<Growth>,
}

/// Memory that comes while the guest runs. It is one file in memory, whose length is 0 at first: nobody gets at what is
/// behind its end, neither the guest nor a device, wherever that runs; who tries all the same comes to harm.
#[derive(Debug, Clone)]
pub struct Growth {
    /// Where the guest will find it.
    pub address: GuestAddress,
    /// How many bytes there can be.
    pub size: u64,
    /// The file, mapped as a whole.
    pub file: Arc<File>,
}

impl GuestRam {
    /// Reserves memory; the host gives it page by page as the guest touches it. `more` bytes can come later.
    ///
    /// # Errors
    /// [`Error::System`] when the host has no address space or no descriptor left.
    pub fn new(bytes: u64, more: u64, backing: Backing) -> Result<Self, Error> {
        let mut regions = layout::ram(bytes)
            .into_iter()
            .map(|(start, size)| region(start, size, backing))
            .collect::<io::Result<Vec<_>>>()
            .map_err(Error::system("reserve the guest's memory"))?;
        let mut growth = None;
        if more > 0 {
            let (region, place) =
                growing(bytes, more).map_err(Error::system("reserve memory that comes later"))?;
            regions.push(region);
            growth = Some(place);
        }
        let memory = Memory::from_regions(regions).map_err(|error| Error::System {
            action: "lay out the guest's memory",
            source: io::Error::other(error),
        })?;
        Ok(Self {
            memory: Arc::new(memory),
            growth,
        })
    }

    /// What can come later.
    #[must_use]
    pub fn growth(&self) -> Option<&Growth> {
        self.growth.as_ref()
    }

    /// As devices see it.
    #[must_use]
    pub fn shared(&self) -> Arc<Memory> {
        Arc::clone(&self.memory)
    }

    /// Has the host take huge pages, at once, for what a boot is about to fill: guest address and length of it. For memory of
    /// this process alone it does so by itself. For a file in memory most hosts take small ones when they are touched
    /// (`shmem_enabled`), and the guest leaves its virtual CPU for each; this is heeded all the same, since Linux 6.1
    /// (`MADV_COLLAPSE`). Whatever the host cannot do, it does when the memory is touched.
    pub(crate) fn expect(&self, start: u64, size: u64) {
        let huge = HUGE as u64;
        let end = start
            .saturating_add(size)
            .div_ceil(huge)
            .saturating_mul(huge);
        for region in self.memory.iter() {
            let (first, length) = (region.start_addr().raw_value(), region.len());
            let begin = start.max(first) / huge * huge;
            let end = end.min(first.saturating_add(length));
            if region.file_offset().is_none() || begin < first || begin >= end {
                continue;
            }
            let (offset, size) = ((begin - first) as usize, (end - begin) as usize);
            let host = region.as_ptr().wrapping_add(offset);
            for page in (0..size).step_by(HUGE) {
                // Where there is nothing at all, the host takes the file for cut.
                // SAFETY: the range lies in the region's mapping, whose file has its whole length.
                let _there = unsafe { host.wrapping_add(page).read_volatile() };
            }
            // SAFETY: as above, and what is there stays.
            let _ = unsafe { libc::madvise(host.cast(), size, libc::MADV_COLLAPSE) };
        }
    }

    /// Guest address and length of each region that is memory from the beginning.
    pub(crate) fn at_boot(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let later = self.growth.as_ref().map(|growth| growth.address.0);
        self.regions()
            .map(|(start, size, _)| (start, size))
            .filter(move |&(start, _)| Some(start) != later)
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
        Backing::Shared | Backing::Huge => {
            let huge = MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
            let kind = match backing {
                Backing::Huge => huge,
                Backing::Private | Backing::Shared => MemfdFlags::empty(),
            };
            let file = file(MemfdFlags::ALLOW_SEALING | kind)?;
            ftruncate(&file, size as u64)?;
            // Who it is shared with could make it shorter else, and whoever touches what is gone is killed.
            fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
            Some(Arc::new(file))
        }
    };
    // Without a reserve the guest would find out that a page is missing, and end by it.
    let reserve = match backing {
        Backing::Huge => Reserve::All,
        Backing::Private | Backing::Shared => Reserve::None,
    };
    mapped(start, size, file, reserve)
}

/// What the host promises of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reserve {
    /// That every page will be there.
    All,
    /// Nothing: pages are there if the host has them when they are touched.
    None,
}

/// Room for memory that comes later, all of it behind the end of its file.
fn growing(bytes: u64, more: u64) -> io::Result<(GuestRegionMmap<()>, Growth)> {
    let address = layout::growth(bytes).ok_or(io::ErrorKind::OutOfMemory)?;
    let size = usize::try_from(more).map_err(|_| io::ErrorKind::OutOfMemory)?;
    // Its length changes, so it cannot be sealed: whoever it is shared with can end the machine by cutting it.
    let file = Arc::new(file(MemfdFlags::empty())?);
    let growth = Growth {
        address,
        size: more,
        file: Arc::clone(&file),
    };
    let region = mapped(address, size, Some(file), Reserve::None)?;
    Ok((region, growth))
}

fn file(flags: MemfdFlags) -> io::Result<File> {
    Ok(memfd_create(c"guest-memory", flags | MemfdFlags::CLOEXEC)?.into())
}

fn mapped(
    start: GuestAddress,
    size: usize,
    file: Option<Arc<File>>,
    reserve: Reserve,
) -> io::Result<GuestRegionMmap<()>> {
    let pointer = map(size, file.as_deref(), reserve)?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the mapping was made with this size and protection, and is never unmapped.
    let builder = unsafe { MmapRegionBuilder::new(size).with_raw_mmap_pointer(pointer) }
        .with_mmap_prot(protection);
    let builder = match file {
        Some(file) => builder
            .with_mmap_flags(libc::MAP_SHARED)
            .with_file_offset(FileOffset::from_arc(file, 0)),
        None => builder.with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS),
    };
    let region = builder.build().map_err(io::Error::other)?;
    GuestRegionMmap::new(region, start).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Maps memory at an address that is aligned to a huge page, so that the host can use such pages: with them a guest
/// leaves its virtual CPU a tenth as often while it touches its memory for the first time.
fn map(size: usize, file: Option<&File>, reserve: Reserve) -> io::Result<*mut u8> {
    let room = size.checked_add(HUGE).ok_or(io::ErrorKind::OutOfMemory)?;
    let unused = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let base = unsafe { libc::mmap(ptr::null_mut(), room, libc::PROT_NONE, unused, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let aligned = base.cast::<u8>().wrapping_add(base.align_offset(HUGE));
    let (flags, fd) = match file {
        Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
        None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
    };
    let promise = match reserve {
        Reserve::All => 0,
        Reserve::None => libc::MAP_NORESERVE,
    };
    // SAFETY: the range lies in the reservation from above, which nobody else uses.
    let mapped = unsafe {
        libc::mmap(
            aligned.cast(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            flags | libc::MAP_FIXED | promise,
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn what_is_expected_is_there_at_once_and_nothing_is_lost() {
        let ram = GuestRam::new(64 << 20, 0, Backing::Shared).expect("memory");
        let memory = ram.shared();
        let place = GuestAddress((9 << 20) + 5);
        memory.write_obj(0x55_u8, place).expect("writes");
        // Also what is partly or wholly outside.
        for (start, size) in [(8 << 20, 5 << 20), (62 << 20, 1 << 30), (u64::MAX, 7)] {
            ram.expect(start, size);
        }
        assert_eq!(memory.read_obj::<u8>(place).expect("reads"), 0x55);
        let region = memory.iter().next().expect("a region");
        let file = region.file_offset().expect("a file").file();
        // In units of 512 bytes: three huge pages and one; or a small page for each that the host has no huge one for.
        let taken = file.metadata().expect("a file").blocks() * 512;
        assert!(
            (5 * 4096..=4 * HUGE as u64).contains(&taken),
            "{taken} bytes"
        );
        // There is no file to be prepared.
        let private = GuestRam::new(64 << 20, 0, Backing::Private).expect("memory");
        private.expect(0, 64 << 20);
    }

    #[test]
    fn memory_that_comes_later_is_none_yet() {
        let ram = GuestRam::new(64 << 20, 1 << 30, Backing::Private).expect("memory");
        assert_eq!(ram.at_boot().collect::<Vec<_>>(), [(0, 64 << 20)]);
        let regions: Vec<_> = ram
            .regions()
            .map(|(start, size, _)| (start, size))
            .collect();
        assert_eq!(regions, [(0, 64 << 20), (4 << 30, 1 << 30)]);
        let growth = ram.growth().expect("it can grow");
        assert_eq!(growth.file.metadata().expect("a file").len(), 0);
        let fixed = GuestRam::new(64 << 20, 0, Backing::Private).expect("memory");
        assert!(fixed.growth().is_none());
    }
}
