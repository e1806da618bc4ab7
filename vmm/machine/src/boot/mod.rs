//! Loading what is booted.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::{self, KernelLoader, bzimage::BzImage, elf::Elf};
use vm_memory::{Address, Bytes, GuestAddress};
use vmm_virtio::Memory;

use crate::Error;
use crate::memory::GuestRam;
use crate::x86_64::mptable::Shape;
use crate::x86_64::{layout, mptable, params};

/// What a guest is booted from.
#[derive(Debug)]
pub struct Guest {
    /// An ELF kernel or a bzImage.
    pub kernel: File,
    /// A cpio archive, if the kernel gets one.
    pub image: Option<File>,
}

/// A guest that is being loaded, while KVM makes the machine: that waits for other processors of the host, and this for
/// memory.
pub(crate) struct Loading(JoinHandle<Result<Loaded, Error>>);

/// A guest in memory.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Where the first virtual CPU begins.
    pub entry: u64,
    /// Where the image is, and how long.
    image: (u32, u32),
    /// What a bzImage begins with.
    header: Option<setup_header>,
    /// How long it took.
    pub took: Duration,
}

/// Where a bzImage has its 64-bit entry, from its beginning.
const BZIMAGE_ENTRY: u64 = 0x200;

const PAGE: u64 = 4096;

/// Where kernels are that have no reason to be elsewhere (`CONFIG_PHYSICAL_START`), and what ours gives away first, below.
const USUAL: u64 = 16 << 20;
const BELOW: u64 = 8 << 20;

/// What a kernel takes itself is right below its image: 1/64 of memory to describe the rest, and tables.
const DESCRIBED: u64 = 64;
const TABLES: u64 = 2 << 20;

impl Loading {
    /// Begins.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(ram: GuestRam, mut guest: Guest) -> Result<Self, Error> {
        let thread = thread::Builder::new()
            .name("loader".to_owned())
            .spawn(move || load(&ram, &mut guest));
        thread.map(Self).map_err(Error::system("load the guest"))
    }

    /// Waits until it is done.
    ///
    /// # Errors
    /// What [`load`] answers.
    pub fn wait(self) -> Result<Loaded, Error> {
        let panicked = |_| Error::Shape("the guest's loader has failed");
        self.0.join().map_err(panicked)?
    }
}

/// Loads kernel and image.
///
/// # Errors
/// When they are not what they should be, do not fit, or cannot be read.
pub(crate) fn load(ram: &GuestRam, guest: &mut Guest) -> Result<Loaded, Error> {
    let begun = Instant::now();
    let memory = ram.shared();
    let low_end = ram.at_boot().next().map_or(0, |(start, size)| start + size);
    // A file whose length is not known is read all the same.
    let length = |file: &File| file.metadata().map_or(0, |data| data.len());
    ram.expect(USUAL - BELOW, BELOW + length(&guest.kernel));
    let first = guest.image.as_ref().map_or(0, length) + low_end / DESCRIBED + TABLES;
    ram.expect(low_end.saturating_sub(first), first.min(low_end));
    let (entry, end, header) = kernel(&memory, &mut guest.kernel)?;
    let image = match &mut guest.image {
        Some(file) => image(&memory, file, end, low_end)?,
        None => (0, 0),
    };
    Ok(Loaded {
        entry,
        image,
        header,
        took: begun.elapsed(),
    })
}

/// Writes what tells a loaded guest of its machine: the command line with the devices, boot parameters and tables.
///
/// # Errors
/// When the command line is too long, or memory is too small.
pub(crate) fn describe(
    ram: &GuestRam,
    loaded: &Loaded,
    mut line: String,
    shape: Shape,
    devices: &[String],
) -> Result<(), Error> {
    let memory = ram.shared();
    for device in devices {
        line.push(' ');
        line.push_str(device);
    }
    if line.len() >= layout::COMMAND_LINE_SIZE {
        return Err(Error::TooLarge {
            what: "the command line",
            size: line.len() as u64,
        });
    }
    let written = memory
        .write_slice(line.as_bytes(), GuestAddress(layout::COMMAND_LINE))
        .and_then(|()| {
            let end = GuestAddress(layout::COMMAND_LINE + line.len() as u64);
            memory.write_obj(0_u8, end)
        })
        .and_then(|()| mptable::write(&memory, shape))
        .and_then(|()| {
            params::write(
                &memory,
                loaded.header,
                line.len(),
                loaded.image,
                ram.at_boot(),
            )
        });
    written.map_err(|error| Error::System {
        action: "write the boot parameters",
        source: std::io::Error::other(error),
    })
}

/// Its entry, its end, and a bzImage's header.
fn kernel(memory: &Memory, file: &mut File) -> Result<(u64, u64, Option<setup_header>), Error> {
    let high = Some(GuestAddress(layout::HIGH));
    match Elf::load(memory, None, file, high) {
        Ok(loaded) => Ok((loaded.kernel_load.raw_value(), loaded.kernel_end, None)),
        Err(loader::Error::Elf(loader::elf::Error::InvalidElfMagicNumber)) => {
            let loaded = BzImage::load(memory, None, file, high).map_err(Error::Kernel)?;
            let entry = loaded
                .kernel_load
                .checked_add(BZIMAGE_ENTRY)
                .ok_or(Error::Shape("the kernel's entry is nowhere"))?;
            Ok((entry.raw_value(), loaded.kernel_end, loaded.setup_header))
        }
        Err(error) => Err(Error::Kernel(error)),
    }
}

/// Loads the image as high as the kernel's first page tables reach, away from where the kernel unpacks itself.
fn image(
    memory: &Memory,
    file: &mut File,
    kernel_end: u64,
    low_end: u64,
) -> Result<(u32, u32), Error> {
    let size = file
        .seek(SeekFrom::End(0))
        .and_then(|size| file.rewind().map(|()| size))
        .map_err(Error::system("read the guest image"))?;
    let too_large = || Error::TooLarge {
        what: "the guest image",
        size,
    };
    let start = low_end.checked_sub(size).ok_or_else(too_large)? / PAGE * PAGE;
    let (start32, size32) = match (u32::try_from(start), u32::try_from(size)) {
        (Ok(start), Ok(size)) if u64::from(start) >= kernel_end.max(layout::HIGH) => (start, size),
        _ => return Err(too_large()),
    };
    memory
        .read_exact_volatile_from(GuestAddress(start), file, size as usize)
        .map_err(|error| Error::System {
            action: "load the guest image",
            source: std::io::Error::other(error),
        })?;
    Ok((start32, size32))
}
