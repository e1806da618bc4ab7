//! Processors and memory that come and go.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use cofferdam_protocol::ResizeSandboxRequest;
use rustix::system::sysinfo;
use tokio::time::{Instant, sleep};

use super::Sandbox;

const PROCESSORS: &str = "/sys/devices/system/cpu";

/// How long memory may take to come. Emulated guests take seconds for a GiB.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the kernel is asked meanwhile.
const PAUSE: Duration = Duration::from_millis(5);

/// Why the guest does not have the size that it should.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// There are not as many processors.
    #[error("the guest has {has} virtual CPUs, not {wanted}")]
    Processors {
        /// As many as there are.
        has: u32,
        /// As many as are wanted.
        wanted: u32,
    },
    /// Memory has not come.
    #[error("of {} MiB of memory that were to come, the guest has taken {} MiB within {} s", wanted >> 20, has >> 20, PATIENCE.as_secs())]
    Memory {
        /// What has come, in bytes.
        has: u64,
        /// What was to come.
        wanted: u64,
    },
    /// The kernel refuses.
    #[error("cannot change {}", path.display())]
    Kernel {
        /// Which processor.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Sandbox {
    /// Brings processors online, or the last ones offline, and waits until memory has come that the machine has been told
    /// to give. Memory that is to go is not waited for: that may take as long as the containers need it.
    ///
    /// # Errors
    /// When the guest has not as many processors, when the kernel refuses, and when the memory does not come.
    pub async fn resize(&self, request: ResizeSandboxRequest) -> Result<(), ResizeError> {
        let wanted = request.vcpus;
        let changed =
            tokio::task::spawn_blocking(move || set_processors(Path::new(PROCESSORS), wanted));
        changed.await.unwrap_or_else(|error| {
            Err(ResizeError::Kernel {
                path: PROCESSORS.into(),
                source: io::Error::other(error),
            })
        })?;
        let boot = self.boot_memory.load(Ordering::Relaxed);
        let wanted = request.added_memory;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let has = memory().saturating_sub(boot);
            if has >= wanted {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(ResizeError::Memory { has, wanted });
            }
            sleep(PAUSE).await;
        }
    }
}

/// All memory that the kernel has for its use, in bytes.
pub(super) fn memory() -> u64 {
    let info = sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

/// Has so many processors online, the first ones.
fn set_processors(folder: &Path, wanted: u32) -> Result<(), ResizeError> {
    // The first one is always online.
    let has = (1..)
        .take_while(|&number| switch(folder, number).exists())
        .last()
        .unwrap_or(0)
        + 1;
    if wanted == 0 || wanted > has {
        return Err(ResizeError::Processors { has, wanted });
    }
    for number in 1..has {
        let path = switch(folder, number);
        let state = if number < wanted { "1" } else { "0" };
        fs::read_to_string(&path)
            .and_then(|current| match current.trim_end() == state {
                true => Ok(()),
                false => fs::write(&path, state),
            })
            .map_err(|source| ResizeError::Kernel { path, source })?;
    }
    Ok(())
}

fn switch(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("cpu{number}/online"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_processors_are_online() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("cpu0")).expect("the first");
        for (number, state) in [(1, "1\n"), (2, "0\n"), (3, "0\n")] {
            let path = switch(folder.path(), number);
            fs::create_dir(path.parent().expect("a folder")).expect("one more");
            fs::write(path, state).expect("its state");
        }
        let online = || {
            [1, 2, 3].map(|number| {
                let state = fs::read_to_string(switch(folder.path(), number)).expect("a state");
                state.starts_with('1')
            })
        };
        for (wanted, expected) in [
            (3, [true, true, false]),
            (4, [true, true, true]),
            (1, [false, false, false]),
        ] {
            set_processors(folder.path(), wanted).expect("changes");
            assert_eq!(online(), expected, "{wanted}");
        }
        for wanted in [0, 5] {
            let error = set_processors(folder.path(), wanted).expect_err("no such number");
            assert!(error.to_string().contains('4'), "{error}");
        }
    }
}
