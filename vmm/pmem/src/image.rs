//! The mapping.
#![expect(unsafe_code, reason = "mmap by libc")]
// UNSAFETY: mappings are made at addresses that the kernel chooses, or over parts of such a mapping that this module has
// just made; they are taken down once, by their owner's Drop. Nothing here reads or writes them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;

use rustix::fs::{FileType, SeekFrom};

/// Address and length of an image are multiples of this: a page table's reach, so that the kernel can map large pages,
/// and what Linux's `memremap_pages` wants of a guest address.
pub const ALIGNMENT: usize = 2 << 20;

/// Why a file can't be an image.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// It is neither a file nor a block device.
    #[error("an image must be a file or a block device, this is {0:?}")]
    Kind(FileType),
    /// There is nothing in it.
    #[error("the image is empty")]
    Empty,
    /// It does not fit into any address space.
    #[error("the image of {0} bytes is too large to be mapped")]
    TooLarge(u64),
    /// The operating system refused.
    #[error("cannot {0} the image")]
    System(&'static str, #[source] io::Error),
}

/// A file in memory, read-only, as long as this lives. The memory slot that shows it to a guest must go first.
#[derive(Debug)]
pub struct Image {
    mapping: Mapping,
    file_length: u64,
}

impl Image {
    /// Maps a file or block device that is open for reading. The descriptor is not needed any more afterwards.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map(file: OwnedFd) -> Result<Self, MapError> {
        let kind = FileType::from_raw_mode(
            rustix::fs::fstat(&file)
                .map_err(|error| MapError::System("look at", error.into()))?
                .st_mode,
        );
        if !matches!(kind, FileType::RegularFile | FileType::BlockDevice) {
            return Err(MapError::Kind(kind));
        }
        // The one way that knows the size of both.
        let file_length = rustix::fs::seek(&file, SeekFrom::End(0))
            .map_err(|error| MapError::System("measure", error.into()))?;
        if file_length == 0 {
            return Err(MapError::Empty);
        }
        let too_large = || MapError::TooLarge(file_length);
        let bytes = usize::try_from(file_length).map_err(|_| too_large())?;
        let length = bytes
            .checked_next_multiple_of(ALIGNMENT)
            .filter(|&length| isize::try_from(length).is_ok())
            .ok_or_else(too_large)?;
        let mapping = Mapping::aligned(length)
            .and_then(|mapping| mapping.cover(&file, bytes).map(|()| mapping))
            .map_err(|error| MapError::System("map", error))?;
        Ok(Self {
            mapping,
            file_length,
        })
    }

    /// Where it is in this process: a multiple of [`ALIGNMENT`]. For the memory slot only; see the crate's head for why
    /// nobody else may touch it.
    #[must_use]
    pub fn address(&self) -> *const u8 {
        self.mapping.address.cast_const().cast()
    }

    /// How long it is, in bytes: a multiple of [`ALIGNMENT`].
    #[must_use]
    pub fn length(&self) -> usize {
        self.mapping.length
    }

    /// How long the file was.
    #[must_use]
    pub fn file_length(&self) -> u64 {
        self.file_length
    }
}

#[derive(Debug)]
struct Mapping {
    address: *mut libc::c_void,
    length: usize,
}

// SAFETY: it is a range of addresses that nobody dereferences; munmap may be called from any thread.
unsafe impl Send for Mapping {}
// SAFETY: nothing can be done with a shared reference but to read the two numbers.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeros that are never written: aligned, of a length that is aligned.
    fn aligned(length: usize) -> io::Result<Self> {
        // Of this a part is aligned; what is left over at both ends goes at once.
        let room = length
            .checked_add(ALIGNMENT)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let whole = Self {
            // SAFETY: the kernel chooses the address.
            address: check(unsafe {
                libc::mmap(
                    ptr::null_mut(),
                    room,
                    libc::PROT_READ,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                    -1,
                    0,
                )
            })?,
            length: room,
        };
        let before = whole.address.align_offset(ALIGNMENT);
        let after = room - before - length;
        let mapping = Self {
            address: whole.address.wrapping_byte_add(before),
            length,
        };
        // Its parts have other owners from here on.
        std::mem::forget(whole);
        let tail = mapping.address.wrapping_byte_add(length);
        for (address, length) in [
            (mapping.address.wrapping_byte_sub(before), before),
            (tail, after),
        ] {
            drop(Self { address, length });
        }
        Ok(mapping)
    }

    /// Puts a file over the first `bytes`.
    fn cover(&self, file: &impl AsFd, bytes: usize) -> io::Result<()> {
        // SAFETY: the range is a part of this mapping, which nobody has seen yet. The kernel rounds `bytes` up to its
        // pages, and so does not leave the mapping, whose length is a multiple of the largest.
        check(unsafe {
            libc::mmap(
                self.address,
                bytes,
                libc::PROT_READ,
                libc::MAP_SHARED | libc::MAP_FIXED,
                file.as_fd().as_raw_fd(),
                0,
            )
        })?;
        // An image is not worth being in a core file; an old kernel that doesn't know this loses nothing.
        // SAFETY: the range is this mapping.
        unsafe { libc::madvise(self.address, self.length, libc::MADV_DONTDUMP) };
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: the range is this mapping's own, and its owner is gone. It can't fail for a range that is mapped.
            unsafe { libc::munmap(self.address, self.length) };
        }
    }
}

fn check(address: *mut libc::c_void) -> io::Result<*mut libc::c_void> {
    if address == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};

    /// What the kernel finds at an offset, as it would for KVM: never by a load of our own.
    fn kernel_reads(image: &Image, offset: usize, length: usize) -> io::Result<Vec<u8>> {
        let (mut reader, writer) = io::pipe()?;
        assert!(offset + length <= image.length());
        // SAFETY: the range is in the image's mapping; where it has no page, the call fails.
        let count = unsafe {
            libc::write(
                writer.as_raw_fd(),
                image.address().add(offset).cast(),
                length,
            )
        };
        let Ok(count) = usize::try_from(count) else {
            return Err(io::Error::last_os_error());
        };
        let mut bytes = vec![0; count];
        reader.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("writes");
        file
    }

    #[test]
    fn the_file_is_there_and_zeros_behind_it() {
        for length in [1, 4095, 4096, 5000, ALIGNMENT, ALIGNMENT + 1] {
            let file = file(&vec![7; length]);
            let image = Image::map(file.try_clone().expect("a clone").into()).expect("maps");
            assert_eq!(image.address().align_offset(ALIGNMENT), 0);
            assert_eq!(image.length(), length.next_multiple_of(ALIGNMENT));
            assert_eq!(image.file_length(), length as u64);
            assert_eq!(kernel_reads(&image, length - 1, 1).expect("reads"), [7]);
            for offset in [length, image.length() - 1] {
                if (length..image.length()).contains(&offset) {
                    assert_eq!(
                        kernel_reads(&image, offset, 1).expect("reads"),
                        [0],
                        "{length} {offset}"
                    );
                }
            }
        }
    }

    #[test]
    fn it_is_the_hosts_page_cache() {
        use std::os::unix::fs::FileExt;
        let file = file(b"before");
        let image = Image::map(file.try_clone().expect("a clone").into()).expect("maps");
        file.write_all_at(b"behind", 0).expect("writes");
        assert_eq!(kernel_reads(&image, 0, 6).expect("reads"), b"behind");
    }

    #[test]
    fn nobody_can_write_it() {
        let image = Image::map(file(b"image").into()).expect("maps");
        let (reader, mut writer) = io::pipe().expect("a pipe");
        writer.write_all(b"other").expect("writes");
        for offset in [0, 4096] {
            // SAFETY: the range is in the mapping; it is read-only, so the call fails.
            let count = unsafe {
                libc::read(
                    reader.as_raw_fd(),
                    image.address().add(offset).cast_mut().cast(),
                    5,
                )
            };
            assert_eq!(count, -1);
            assert_eq!(
                io::Error::last_os_error().raw_os_error(),
                Some(libc::EFAULT)
            );
        }
    }

    #[test]
    fn a_file_that_shrinks_is_an_error_of_the_reader_and_no_signal() {
        let file = file(&vec![7; 3 * 4096]);
        let image = Image::map(file.try_clone().expect("a clone").into()).expect("maps");
        assert_eq!(kernel_reads(&image, 8192, 1).expect("reads"), [7]);
        file.set_len(4096).expect("shrinks");
        let error = kernel_reads(&image, 8192, 1).expect_err("there is no page");
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
        assert_eq!(kernel_reads(&image, 4095, 1).expect("reads"), [7]);
        // Our own zeros stay.
        assert_eq!(kernel_reads(&image, 3 * 4096, 1).expect("reads"), [0]);
    }

    #[test]
    fn what_can_be_no_image_is_refused() {
        assert!(matches!(Image::map(file(b"").into()), Err(MapError::Empty)));
        let (reader, _writer) = io::pipe().expect("a pipe");
        assert!(matches!(
            Image::map(reader.into()),
            Err(MapError::Kind(FileType::Fifo))
        ));
        let directory = File::open("/").expect("opens");
        assert!(matches!(
            Image::map(directory.into()),
            Err(MapError::Kind(FileType::Directory))
        ));
        let huge = file(b"");
        // As much as the filesystem allows: more than there are addresses for, or refused right here.
        if huge.set_len(1 << 62).is_ok() {
            assert!(matches!(
                Image::map(huge.into()),
                Err(MapError::System("map", _))
            ));
        }
    }

    #[test]
    fn nothing_stays_mapped() {
        let maps = || {
            let text = std::fs::read_to_string("/proc/self/maps").expect("maps");
            text.matches("this-image-goes").count()
        };
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("this-image-goes");
        std::fs::write(&path, b"image").expect("writes");
        let image = Image::map(File::open(&path).expect("opens").into()).expect("maps");
        assert_eq!(maps(), 1);
        drop(image);
        assert_eq!(maps(), 0);
    }
}
