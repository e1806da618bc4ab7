//! An OCI image layout in a directory.

use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::files::{Content, Files};
use crate::ImageError;

/// A layout directory.
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Self, ImageError> {
        let directory = Self {
            path: path.to_owned(),
        };
        match directory.read("oci-layout", 4096)? {
            Some(_) => Ok(directory),
            None => Err(ImageError::NotAnImage {
                path: path.to_owned(),
                reason: "it has no oci-layout file".to_owned(),
            }),
        }
    }
}

impl Files for Directory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self, name: &str) -> Result<Option<Content<'_>>, ImageError> {
        let path = self.path.join(name);
        // Without blocking: a fifo in place of a blob must not hang the import.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(ImageError::io("open", path)(errno.into())),
        };
        let stat = rustix::fs::fstat(&file)
            .map_err(|errno| ImageError::io("look at", &path)(errno.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(ImageError::NotAnImage {
                path,
                reason: "it is not a regular file".to_owned(),
            });
        }
        Ok(Some(Box::new(std::fs::File::from(file))))
    }
}
