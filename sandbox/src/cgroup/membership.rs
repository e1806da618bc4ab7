//! A sandbox's control groups, for a process that starts the sandbox without belonging to it.

use std::path::PathBuf;

use oci_spec::runtime::Spec;

use super::{CgroupError, Hierarchies, folders, join, make, remove};

/// The groups that a spec names, made. Dropping it removes them: what was in them has ended by then.
#[derive(Debug)]
pub struct Groups {
    folders: Vec<PathBuf>,
}

impl Groups {
    /// Makes them; none where the spec names none.
    ///
    /// # Errors
    /// When the spec's path is none, or the kernel refuses.
    pub fn of(spec: &Spec) -> Result<Self, CgroupError> {
        let groups = Self {
            folders: folders(spec)?,
        };
        // From here on they are removed whatever happens.
        make(&groups.folders)?;
        Ok(groups)
    }

    /// Takes the calling process into them until the guest is dropped: what it starts meanwhile stays there, and the
    /// memory that it fills meanwhile is accounted there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn visit(&self) -> Result<Visit, CgroupError> {
        if self.folders.is_empty() {
            return Ok(Visit { home: Vec::new() });
        }
        let visit = Visit {
            home: Hierarchies::read()?.own()?,
        };
        join(&self.folders, std::process::id().cast_signed())?;
        Ok(visit)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.folders) {
            tracing::warn!(
                error = crate::chain(&error),
                "control groups are not removed"
            );
        }
    }
}

/// The calling process in groups that are not its own. Dropping it brings the process back.
#[derive(Debug)]
#[must_use = "it is over when this is dropped"]
pub struct Visit {
    home: Vec<PathBuf>,
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Err(error) = join(&self.home, std::process::id().cast_signed()) {
            tracing::warn!(
                error = crate::chain(&error),
                "cannot return to our own control groups"
            );
        }
    }
}
