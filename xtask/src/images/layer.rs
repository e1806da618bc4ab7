//! The file system layer of an image, as a tar archive with nothing in it that changes by itself.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

/// All files carry this time: 2024-01-01, as a whole number of seconds.
pub const TIME: u64 = 1_704_067_200;

/// Owner and permissions.
#[derive(Clone, Copy)]
pub struct Owner {
    /// Permission bits.
    pub mode: u32,
    /// User.
    pub uid: u64,
    /// Group.
    pub gid: u64,
}

impl Owner {
    /// Root's, with these permission bits.
    pub fn root(mode: u32) -> Self {
        Self {
            mode,
            uid: 0,
            gid: 0,
        }
    }
}

/// A layer being written.
pub struct Layer<W: Write>(Builder<W>);

impl<W: Write> Layer<W> {
    /// Starts a layer.
    pub fn new(writer: W) -> Self {
        Self(Builder::new(writer))
    }

    /// Adds a folder.
    pub fn directory(&mut self, path: impl AsRef<Path>, owner: Owner) -> Result<()> {
        let mut header = header(EntryType::Directory, owner, 0);
        let path = path.as_ref();
        self.0
            .append_data(&mut header, path, std::io::empty())
            .with_context(|| format!("pack {}", path.display()))
    }

    /// Adds a file.
    pub fn file(&mut self, path: impl AsRef<Path>, owner: Owner, content: &[u8]) -> Result<()> {
        let mut header = header(EntryType::Regular, owner, content.len() as u64);
        let path = path.as_ref();
        self.0
            .append_data(&mut header, path, content)
            .with_context(|| format!("pack {}", path.display()))
    }

    /// Adds a symbolic link.
    pub fn symlink(
        &mut self,
        path: impl AsRef<Path>,
        owner: Owner,
        target: impl AsRef<Path>,
    ) -> Result<()> {
        self.link(EntryType::Symlink, path.as_ref(), owner, target.as_ref())
    }

    /// Adds another name of a file that is already in the layer.
    pub fn hard_link(
        &mut self,
        path: impl AsRef<Path>,
        owner: Owner,
        target: impl AsRef<Path>,
    ) -> Result<()> {
        self.link(EntryType::Link, path.as_ref(), owner, target.as_ref())
    }

    fn link(&mut self, kind: EntryType, path: &Path, owner: Owner, target: &Path) -> Result<()> {
        let mut header = header(kind, owner, 0);
        self.0
            .append_link(&mut header, path, target)
            .with_context(|| format!("pack {}", path.display()))
    }

    /// Ends the layer.
    pub fn finish(self) -> Result<W> {
        self.0.into_inner().context("finish the layer")
    }
}

fn header(kind: EntryType, owner: Owner, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(owner.mode);
    header.set_uid(owner.uid);
    header.set_gid(owner.gid);
    header.set_mtime(TIME);
    header.set_size(size);
    header
}
