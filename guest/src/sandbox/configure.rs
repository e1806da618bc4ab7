//! Giving a booted guest its identity.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use cofferdam_protocol::{ConfigureSandboxRequest, SHARE_MOUNT};
use rustix::mount::{MountFlags, mount};
use rustix::time::{ClockId, Timespec, clock_settime};

use super::{Sandbox, devices, resize};
use crate::syscalls::{ENTROPY_MAX, raise_loopback, reseed};

/// Why a guest could not become a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// It is one already.
    #[error("the guest is sandbox {id:?} already")]
    Twice {
        /// Its name.
        id: String,
    },
    /// A value of the request's is impossible.
    #[error("{field}: {problem}")]
    Invalid {
        /// Which one.
        field: &'static str,
        /// Why.
        problem: &'static str,
    },
    /// The kernel refuses.
    #[error("cannot {doing}")]
    Kernel {
        /// What was to be done.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The share cannot be mounted.
    #[error("cannot mount share {tag:?} on {path}")]
    Share {
        /// Its virtio-fs tag.
        tag: String,
        /// Where to.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Sandbox {
    /// Gives the guest its identity: randomness, devices, share, clock, name, loopback.
    ///
    /// # Errors
    /// When it has one already, or the kernel refuses a part.
    pub async fn configure(&self, request: ConfigureSandboxRequest) -> Result<(), ConfigureError> {
        let kernel = |doing| move |source: io::Error| ConfigureError::Kernel { doing, source };
        if request.entropy.len() > ENTROPY_MAX {
            return Err(ConfigureError::Invalid {
                field: "entropy",
                problem: "is longer than 512 bytes",
            });
        }
        self.claim(&request.id)?;
        // Before anything else: until then all copies of a template draw the same random numbers.
        if !request.entropy.is_empty() {
            reseed(&request.entropy).map_err(kernel("feed the random generator"))?;
        }
        devices::find().map_err(kernel("find the devices"))?;
        // The share takes longest; it is mounted beside the rest.
        let share = tokio::task::spawn_blocking(move || match request.share_tag.as_str() {
            "" => Ok(()),
            tag => mount_share(tag),
        });
        if request.realtime_ns > 0 {
            let time = Timespec {
                tv_sec: request.realtime_ns / 1_000_000_000,
                tv_nsec: request.realtime_ns % 1_000_000_000,
            };
            clock_settime(ClockId::Realtime, time)
                .map_err(|errno| kernel("set the clock")(errno.into()))?;
        }
        if !request.hostname.is_empty() {
            rustix::system::sethostname(request.hostname.as_bytes())
                .map_err(|errno| kernel("set the hostname")(errno.into()))?;
        }
        raise_loopback().map_err(kernel("bring up the loopback interface"))?;
        let share = share.await.map_err(io::Error::other);
        share.map_err(kernel("mount the share"))?
    }

    fn claim(&self, id: &str) -> Result<(), ConfigureError> {
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = &*identity {
            return Err(ConfigureError::Twice { id: id.clone() });
        }
        *identity = Some(id.to_owned());
        self.boot_memory.store(resize::memory(), Ordering::Relaxed);
        Ok(())
    }
}

fn mount_share(tag: &str) -> Result<(), ConfigureError> {
    let failed = |source| ConfigureError::Share {
        tag: tag.to_owned(),
        path: SHARE_MOUNT.into(),
        source,
    };
    fs::create_dir_all(SHARE_MOUNT).map_err(failed)?;
    // Devices and set-user-id programs of an image must work in its container.
    mount(tag, SHARE_MOUNT, "virtiofs", MountFlags::empty(), None)
        .map_err(|errno| failed(errno.into()))
}
