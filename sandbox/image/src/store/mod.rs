//! The store: a directory that several processes share.

use std::path::{Path, PathBuf};

use crate::{
    Image, ImageError, ImageSource, ImageSummary, Progress, PullPolicy, Removed, Settings,
};

/// Images on disk.
#[derive(Debug)]
pub struct ImageStore {
    dir: PathBuf,
    settings: Settings,
}

impl ImageStore {
    /// Opens the store, which is made when it does not exist.
    ///
    /// # Errors
    /// When the directory cannot be made or used.
    pub fn open(dir: &Path) -> Result<Self, ImageError> {
        Self::open_with(dir, Settings::default())
    }

    /// Opens the store with settings of the caller's own.
    ///
    /// # Errors
    /// When the directory cannot be made or used.
    pub fn open_with(dir: &Path, settings: Settings) -> Result<Self, ImageError> {
        Ok(Self {
            dir: dir.to_owned(),
            settings,
        })
    }

    /// Gives the image that a source means, importing or pulling what is missing.
    ///
    /// # Errors
    /// Whatever is wrong with the image, its source or the store; nothing is left behind then.
    pub fn resolve(
        &self,
        source: &ImageSource,
        policy: PullPolicy,
        progress: &dyn Progress,
    ) -> Result<Image, ImageError> {
        todo!(
            "{source:?} {policy:?} {} {:?} {:?}",
            progress as *const _ as *const () as usize,
            self.dir,
            self.settings
        )
    }

    /// Imports every image of an archive or layout (`cofferdam load`).
    ///
    /// # Errors
    /// As [`ImageStore::resolve`].
    pub fn load(
        &self,
        source: &ImageSource,
        progress: &dyn Progress,
    ) -> Result<Vec<Image>, ImageError> {
        let _ = progress;
        todo!("{source:?}")
    }

    /// Every image, newest import first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        todo!()
    }

    /// Removes a name, and the image with its last name or when its id was given. With `force` also
    /// when containers use it; their layers stay until they are released.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::InUse`], or when the store cannot be changed.
    pub fn remove(&self, reference_or_digest: &str, force: bool) -> Result<Removed, ImageError> {
        todo!("{reference_or_digest} {force}")
    }

    /// Keeps the layers of an image for a container until [`ImageStore::release`].
    ///
    /// # Errors
    /// [`ImageError::NotFound`] when the image was removed meanwhile.
    pub fn lease(&self, image: &Image, container_id: &str) -> Result<(), ImageError> {
        todo!("{image:?} {container_id}")
    }

    /// Ends a container's lease; without one nothing happens.
    ///
    /// # Errors
    /// When the store cannot be changed.
    pub fn release(&self, container_id: &str) -> Result<(), ImageError> {
        todo!("{container_id}")
    }

    /// Containers that hold a lease, so that a caller can release those that are gone.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn leases(&self) -> Result<Vec<String>, ImageError> {
        todo!()
    }
}
