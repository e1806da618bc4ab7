//! Starting from a template: a copy of a booted guest instead of a boot.
//!
//! A template fits all sandboxes of the same [`Key`]: size, and everything that the backend says a guest depends on. It
//! can never make a start fail: one that is missing, damaged or does not come to life means a boot as before, which the
//! log tells. Nothing of any container is in a template, it is made before there is one.
//!
//! Who makes them: not the start that misses one, which would then take three times as long, but a process of its own
//! ([`start`], [`serve`]) that the driver starts when its container is there, and the containerd shim when its machine is. It
//! has the lowest priority, one at a time works, and it makes templates of the default size only, which is that of every
//! container without limits: others may never be seen again. `cofferdam template make` makes any size, and waits.
//!
//! Where: in a folder of root's beside the state directory, usually in memory. They have no use after the host's next
//! boot, and copying from memory is what they are good for. [`KEPT`] are kept, those that were used last.

mod beside;
mod make;
mod shelf;

pub use beside::{serve, start};
pub use make::{Made, Order, make};
pub use shelf::{KEPT, Kept, Shelf, ShelfError};

use std::fmt;
use std::fs::File;

use backend_api::{Backend, BackendError, Templates};
use sha2::{Digest, Sha256};

use crate::config::{Config, TemplateChoice};
use crate::error::{SandboxError, chain};
use crate::sandbox::vm_config;
use crate::spec::Size;

/// What tells templates apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    pub(crate) fn of(
        backend: &dyn Backend,
        config: &Config,
        size: Size,
    ) -> Result<Option<Self>, BackendError> {
        let Some(templates) = backend.templates() else {
            return Ok(None);
        };
        let identity = templates.identity(&vm_config(config, "template", size, None))?;
        let digest = Sha256::digest(identity);
        let digits = digest[..16]
            .iter()
            .fold(String::new(), |all, byte| all + &format!("{byte:02x}"));
        let (memory, vcpus) = (size.memory >> 20, size.vcpus);
        Ok(Some(Self(format!("{memory}m-{vcpus}-{digits}"))))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What there is for a sandbox.
#[derive(Debug)]
pub(crate) enum Search {
    /// A template.
    Found(Found),
    /// None, but one should be made.
    Wanted,
    /// None.
    Nothing,
}

/// A template that fits.
#[derive(Debug)]
pub(crate) struct Found {
    /// The file, until it is taken.
    pub file: Option<File>,
    shelf: Shelf,
    key: Key,
    /// Whether it would be made by itself.
    usual: bool,
}

impl Found {
    /// Says that it did not work, and makes sure that nobody tries it again; answers whether another should be made.
    pub fn discard(self, error: &SandboxError) -> Search {
        let reason = chain(error);
        tracing::warn!(template = %self.key, reason, "a template could not be used, booting instead");
        // A damaged file says nothing about the next one. What did not come to life may fail the same way again.
        let damaged = matches!(
            error,
            SandboxError::Backend(BackendError::Template {
                phase: backend_api::Phase::Create,
                ..
            })
        );
        if !damaged {
            self.shelf.note_failure(&self.key, &reason);
        }
        if let Err(error) = self.shelf.remove(&self.key) {
            tracing::warn!(error = chain(&error), "a template cannot be removed");
        }
        if damaged && self.usual {
            Search::Wanted
        } else {
            Search::Nothing
        }
    }
}

/// Looks for a template of a machine with so many network cards.
pub(crate) fn search(backend: &dyn Backend, config: &Config, size: Size, cards: usize) -> Search {
    let most = backend.templates().map_or(0, Templates::nics);
    if config.template == TemplateChoice::Never || cards > most {
        return Search::Nothing;
    }
    match look(backend, config, size) {
        Ok(search) => search,
        // Whoever is not root cannot have the usual folder.
        Err(error @ SandboxError::Shelf(_)) if rustix::process::geteuid().is_root() => {
            tracing::warn!(error = chain(&error), "no templates");
            Search::Nothing
        }
        // What a machine needs is not there, which its start tells.
        Err(error) => {
            tracing::debug!(error = chain(&error), "no templates");
            Search::Nothing
        }
    }
}

fn look(backend: &dyn Backend, config: &Config, size: Size) -> Result<Search, SandboxError> {
    let Some(key) = Key::of(backend, config, size)? else {
        return Ok(Search::Nothing);
    };
    let shelf = Shelf::open(&config.template_directory)?;
    let usual = config.template == TemplateChoice::Auto
        && size.memory == config.default_memory_mib << 20
        && size.vcpus == config.default_vcpus;
    if let Some(file) = shelf.find(&key)? {
        return Ok(Search::Found(Found {
            file: Some(file),
            shelf,
            key,
            usual,
        }));
    }
    if usual && !shelf.failed_lately(&key) {
        return Ok(Search::Wanted);
    }
    Ok(Search::Nothing)
}

/// Whether a copy that failed like this may have failed because it was a copy. Otherwise a boot would fail alike.
pub(crate) fn is_to_blame(error: &SandboxError) -> bool {
    match error {
        SandboxError::Boot { .. } => true,
        SandboxError::Backend(error) => matches!(
            error,
            BackendError::Template { .. }
                | BackendError::Exited { .. }
                | BackendError::Monitor { .. }
                | BackendError::System { .. }
        ),
        _ => false,
    }
}
