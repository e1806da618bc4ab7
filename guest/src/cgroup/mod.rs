//! The control group of a container (cgroup v2), read and written directly.

mod devices;
mod oom;
mod stats;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use tokio::time::{Instant, sleep};

pub use devices::DeviceError;
pub use oom::{OomCount, OomWatch};
pub use stats::stats;

/// Where the hierarchy is mounted.
pub const ROOT: &str = "/sys/fs/cgroup";

/// How long processes may take to die of a signal that cannot be caught.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most processes that are listed: the guest's limit of ids.
const PROCESSES_MAX: usize = 4 * 1024 * 1024;

/// The control group of one container.
#[derive(Debug, Clone)]
pub struct Cgroup {
    name: String,
    path: PathBuf,
}

impl Cgroup {
    /// The group `name`, which need not exist.
    #[must_use]
    pub fn new(name: String) -> Self {
        let path = Path::new(ROOT).join(&name);
        Self { name, path }
    }

    /// Its path as a spec has it.
    #[must_use]
    pub fn spec_path(&self) -> PathBuf {
        Path::new("/").join(&self.name)
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads one of its files, without the end of line.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, file: &str) -> io::Result<String> {
        let text = fs::read_to_string(self.path.join(file))?;
        Ok(text.trim_end().to_owned())
    }

    /// The processes in it and in the groups below it.
    ///
    /// # Errors
    /// When a group cannot be read. Groups that vanish meanwhile are none.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        let mut pids = Vec::new();
        for group in self.tree()? {
            let text = match fs::read_to_string(group.join("cgroup.procs")) {
                // A threaded group lists its processes in its parent only.
                Err(error) if gone(&error) || error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    continue;
                }
                text => text?,
            };
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            if pids.len() > PROCESSES_MAX {
                break;
            }
        }
        Ok(pids)
    }

    /// The group and those below it, parents first.
    fn tree(&self) -> io::Result<Vec<PathBuf>> {
        let mut groups = vec![self.path.clone()];
        let mut next = 0;
        while let Some(group) = groups.get(next).cloned() {
            next += 1;
            let entries = match fs::read_dir(&group) {
                Err(error) if gone(&error) => continue,
                entries => entries?,
            };
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    groups.push(entry.path());
                }
            }
        }
        Ok(groups)
    }

    /// Kills every process in it, also such as are being made.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> io::Result<()> {
        match fs::write(self.path.join("cgroup.kill"), "1") {
            Err(error) if gone(&error) => Ok(()),
            done => done,
        }
    }

    /// Stops (`true`) or continues every process in it and waits until they have.
    ///
    /// # Errors
    /// When the kernel refuses or the processes do not stop in time.
    pub async fn freeze(&self, frozen: bool) -> io::Result<()> {
        let digit = if frozen { "1" } else { "0" };
        fs::write(self.path.join("cgroup.freeze"), digit)?;
        self.wait_for("frozen", digit).await
    }

    /// Kills what is in it and removes it with all below it.
    ///
    /// # Errors
    /// When processes do not die in time or the kernel refuses.
    pub async fn remove(&self) -> io::Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        self.kill()?;
        self.wait_for("populated", "0").await?;
        for group in self.tree()?.iter().rev() {
            remove(group).await?;
        }
        Ok(())
    }

    /// Waits until an event file has the value, which the kernel changes some time after.
    async fn wait_for(&self, key: &str, value: &str) -> io::Result<()> {
        let end = Instant::now() + PATIENCE;
        let mut pause = Duration::from_micros(500);
        loop {
            let events = match self.read("cgroup.events") {
                Err(error) if gone(&error) => return Ok(()),
                events => events?,
            };
            if field(&events, key) == Some(value) {
                return Ok(());
            }
            if Instant::now() > end {
                let path = self.path.display();
                let message = format!("{path} is not \"{key} {value}\" after {PATIENCE:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

/// Removes one group; the last of its processes may not have left it entirely.
async fn remove(group: &Path) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        match fs::remove_dir(group) {
            Err(error) if gone(&error) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < end => {
                sleep(Duration::from_millis(1)).await;
            }
            done => return done,
        }
    }
}

/// Whether an error says that a group has been removed.
fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::NODEV.raw_os_error())
}

/// The value of `key` in a file of lines `key value`.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
}
