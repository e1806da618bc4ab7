//! Starting machines as copies of a booted guest.

use std::error::Error;
use std::fs::File;
use std::pin::Pin;

use async_trait::async_trait;

use crate::{BackendError, LinkIo, Vm, VmConfig};

/// Finds out over the link whether the guest of a template is well, then hangs up.
pub type Greeting = Box<dyn FnOnce(LinkIo) -> Greeted + Send>;

/// The outcome of a [`Greeting`].
pub type Greeted = Pin<Box<dyn Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send>>;

/// The ability to start machines as copies of a guest that has booted already.
///
/// A template is one file: the memory and the devices of a guest whose agent waits for its host, before it has become
/// anything. It has no share and no other device of a sandbox's own; those are there in copies only, and the guest looks
/// for them when it is told who it is. Copies share nothing: each has memory of its own.
#[async_trait]
pub trait Templates: Send + Sync {
    /// The most network cards that a copy may have.
    fn nics(&self) -> usize;

    /// What a template of such a machine depends on: it fits all machines of the same identity, as long as the host is
    /// not booted again. Name, share and privileges of the configuration do not count.
    ///
    /// # Errors
    /// As for [`Backend::create`](crate::Backend::create).
    fn identity(&self, config: &VmConfig) -> Result<String, BackendError>;

    /// Boots a guest, has it greeted, waits until it waits for its next host and writes it to `out`, an empty file. The
    /// machine has ended when this returns, and when the future is dropped.
    ///
    /// # Errors
    /// As for [`Vm::boot`]; [`BackendError::Template`] when the guest is not well or the file cannot be written.
    async fn capture(
        &self,
        config: VmConfig,
        greeting: Greeting,
        out: File,
    ) -> Result<(), BackendError>;

    /// A machine that goes on where the template stopped. Its kernel and image are not opened again.
    ///
    /// # Errors
    /// [`BackendError::Template`] when the file is damaged or of another size of machine, else as for
    /// [`Backend::create`](crate::Backend::create). That it is of another identity shows later or never: the caller
    /// makes sure of that.
    async fn copy(&self, config: VmConfig, template: File) -> Result<Box<dyn Vm>, BackendError>;
}
