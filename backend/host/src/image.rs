//! The files that a guest is started from.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use backend_api::BackendError;
use rustix::fs::{MemfdFlags, memfd_create};

/// A file that is handed to a VMM as a descriptor: the folders on the way to it may be closed to the VMM's user.
#[derive(Debug)]
pub struct Image {
    what: &'static str,
    path: PathBuf,
    file: File,
}

impl Image {
    /// Opens a file. `reader` is the user and group that will open it again by descriptor; a file that they may not
    /// read is copied into memory for them.
    ///
    /// # Errors
    /// [`BackendError::File`] and [`BackendError::BadFile`].
    pub fn open(
        what: &'static str,
        path: &Path,
        reader: Option<(u32, u32)>,
    ) -> Result<Self, BackendError> {
        let fail = |source| BackendError::File {
            what,
            path: path.to_owned(),
            source,
        };
        let bad = |reason| BackendError::BadFile {
            what,
            path: path.to_owned(),
            reason,
        };
        let file = File::open(path).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if !metadata.is_file() {
            return Err(bad("is not a regular file"));
        }
        if metadata.len() == 0 {
            return Err(bad("is empty"));
        }
        let readable = reader.is_none_or(|(uid, gid)| {
            let bit = match (metadata.uid() == uid, metadata.gid() == gid) {
                (true, _) => 0o400,
                (false, true) => 0o040,
                (false, false) => 0o004,
            };
            metadata.mode() & bit != 0
        });
        let file = if readable {
            file
        } else {
            copy(file).map_err(fail)?
        };
        Ok(Self {
            what,
            path: path.to_owned(),
            file,
        })
    }

    /// The descriptor to hand over.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.file.into()
    }
}

/// A copy that anyone who has the descriptor may open again.
fn copy(mut file: File) -> io::Result<File> {
    let mut copy = File::from(memfd_create("image", MemfdFlags::CLOEXEC)?);
    io::copy(&mut file, &mut copy)?;
    copy.seek(SeekFrom::Start(0))?;
    Ok(copy)
}

/// Refuses what is neither an ELF file for this machine nor a bzImage that can be entered in 64-bit mode (Linux
/// `Documentation/arch/x86/boot.rst`, `XLF_KERNEL_64`): a VMM would say so less clearly, or run it.
///
/// # Errors
/// [`BackendError::BadFile`].
pub fn check_kernel(image: &Image) -> Result<(), BackendError> {
    const ELF_64_LITTLE: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1];
    const X86_64: [u8; 2] = 62_u16.to_le_bytes();
    // What is shorter than this can be the first of them only, and has zeros then.
    let mut head = [0; 0x238];
    let read = image.file.read_at(&mut head, 0);
    let is_elf = head[..6] == ELF_64_LITTLE && head[18..20] == X86_64;
    let version = u16::from_le_bytes([head[0x206], head[0x207]]);
    let is_bzimage = head[0x202..0x206] == *b"HdrS" && version >= 0x20c && head[0x236] & 1 != 0;
    if read.is_err() || !(is_elf || is_bzimage) {
        return Err(BackendError::BadFile {
            what: image.what,
            path: image.path.clone(),
            reason: "is neither an uncompressed x86-64 ELF kernel (vmlinux) nor a bzImage for 64 bits",
        });
    }
    Ok(())
}
