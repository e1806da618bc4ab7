//! An installation of one's own for a test: state, images and configuration apart from everything else.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::outcome::{self, Outcome, Running};
use crate::patience::patience;
use crate::prefix::{self, Prefix};
use crate::processes::{self, Actors, is_alive, wait_until};
use crate::slot::Slot;

/// Longer than anything takes here, on a loaded machine that emulates processors.
const LIMIT: Duration = Duration::from_secs(180);

/// How long processes may take to end that nobody waits for: one may be making a template.
const STRAGGLERS: Duration = Duration::from_secs(60);

/// The built command with a state directory, a data directory and a configuration of its own. Dropping it removes every
/// container that was made with it.
#[derive(Debug)]
pub struct Cofferdam {
    prefix: Prefix,
    folder: tempfile::TempDir,
    busybox: PathBuf,
    log: PathBuf,
    /// Given back last.
    _slot: Arc<Slot>,
}

impl Cofferdam {
    /// Ready to use; nothing, and a printed reason, when it cannot be used here.
    #[must_use]
    pub fn new() -> Option<Self> {
        Self::with_config("")
    }

    /// As [`Cofferdam::new`], with further lines of configuration.
    ///
    /// # Panics
    /// When the test's own folder cannot be made.
    #[must_use]
    pub fn with_config(config: &str) -> Option<Self> {
        let found = Prefix::find().and_then(|prefix| Ok((prefix, prefix::image("busybox.oci")?)));
        let (prefix, busybox) = match found {
            Ok(found) => found,
            Err(reason) => {
                let thread = std::thread::current();
                eprintln!(
                    "SKIPPED {}: {reason}",
                    thread.name().unwrap_or("end-to-end test")
                );
                return None;
            }
        };
        let slot = Slot::take();
        static TEMPLATE: OnceLock<()> = OnceLock::new();
        TEMPLATE.get_or_init(|| make_template(&prefix));
        let folder = tempfile::Builder::new()
            .prefix("cofferdam-test-")
            .tempdir()
            .expect("a folder for the test");
        fs::create_dir(folder.path().join("data")).expect("a data folder");
        fs::write(
            folder.path().join("config.toml"),
            format!(
                "data_directory = {:?}\n{}{}{}{config}\n",
                folder.path().join("data"),
                if config.contains("backend") {
                    ""
                } else {
                    backend()
                },
                if config.contains("boot_timeout") {
                    String::new()
                } else {
                    boot_timeout()
                },
                if config.contains("template") {
                    String::new()
                } else {
                    templates()
                }
            ),
        )
        .expect("a configuration");
        let log = folder.path().join("log.json");
        Some(Self {
            prefix,
            folder,
            busybox,
            log,
            _slot: slot,
        })
    }

    /// A folder of this test's own, for bundles and volumes.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The state directory.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The configuration file, for engines that start the command themselves.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    /// Where everything was built.
    #[must_use]
    pub fn prefix(&self) -> &Path {
        self.prefix.path()
    }

    /// The command's program.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.prefix.program()
    }

    /// The busybox image, a folder in OCI layout.
    ///
    /// # Panics
    /// When its path is no text.
    #[must_use]
    pub fn busybox(&self) -> &str {
        self.busybox.to_str().expect("a path that is text")
    }

    /// The command with its global options set.
    #[must_use]
    pub fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(self.prefix.program());
        command
            .env("COFFERDAM_CONFIG", self.config())
            .current_dir(self.folder.path())
            .arg("--root")
            .arg(self.root())
            .arg("--log")
            .arg(&self.log)
            .args(["--log-format", "json"])
            .args(args);
        command
    }

    /// Runs it with an empty stdin.
    #[must_use]
    pub fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Outcome {
        outcome::finish(&mut self.command(args), LIMIT)
    }

    /// Runs it and wants success; answers what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> String {
        let done = self.run(args);
        assert_eq!(done.code, 0, "{done:?}\n{}", self.log());
        done.stdout
    }

    /// Runs it with this stdin.
    #[must_use]
    pub fn run_with<A: AsRef<OsStr>>(
        &self,
        stdin: Vec<u8>,
        args: impl IntoIterator<Item = A>,
    ) -> Outcome {
        outcome::start(&mut self.command(args), Some(stdin)).finish(LIMIT)
    }

    /// Starts it with an open stdin.
    #[must_use]
    pub fn start<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Running {
        outcome::start(&mut self.command(args), None)
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The state that `state` prints; nothing when there is no such container.
    #[must_use]
    pub fn status(&self, id: &str) -> Option<String> {
        let done = self.run(["state", id]);
        let state: serde_json::Value = serde_json::from_str(&done.stdout).ok()?;
        Some(state["status"].as_str()?.to_owned())
    }

    /// Waits until a container is in a state.
    ///
    /// # Panics
    /// When it does not come about.
    pub fn wait_for_status(&self, id: &str, status: &str) {
        let came = wait_until(LIMIT, || self.status(id).as_deref() == Some(status));
        assert!(
            came,
            "{id} is {:?}, not {status}\n{}",
            self.status(id),
            self.log()
        );
    }

    /// The processes behind a container that exists.
    ///
    /// # Panics
    /// When its state does not name them.
    #[must_use]
    pub fn actors(&self, id: &str) -> Actors {
        let mut found = None;
        wait_until(LIMIT, || {
            found = Actors::read(&self.root(), id).filter(|actors| !actors.helpers.is_empty());
            found.is_some()
        });
        found.unwrap_or_else(|| panic!("no processes of {id}\n{}", self.log()))
    }

    /// Kills a process as `kill -9` does.
    pub fn kill9(&self, pid: i32) {
        processes::signal(pid, 9);
    }

    /// Asserts that nothing is left of any container: no state, storage, mount or process.
    ///
    /// # Panics
    /// When something is.
    pub fn assert_nothing_left(&self) {
        let mut left = Vec::new();
        for folder in [self.root(), self.data().join("containers")] {
            left.extend(names(&folder).into_iter().map(|name| folder.join(name)));
        }
        let leases = self.data().join("images/leases");
        left.extend(names(&leases).into_iter().map(|name| leases.join(name)));
        assert!(left.is_empty(), "left behind: {left:?}");
        let own = self.folder.path().to_string_lossy().into_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts: Vec<_> = mounts.lines().filter(|line| line.contains(&own)).collect();
        assert!(mounts.is_empty(), "left mounted: {mounts:?}");
        let gone = wait_until(STRAGGLERS, || self.processes().is_empty());
        assert!(gone, "left running: {:?}", self.processes());
    }

    /// Processes that carry this test's configuration or folder in their environment or command line.
    #[must_use]
    pub fn processes(&self) -> Vec<(i32, String)> {
        let own = self.folder.path().to_string_lossy().into_owned();
        let mentions = |path: String| {
            fs::read(path).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(&own))
        };
        names(Path::new("/proc"))
            .into_iter()
            .filter_map(|name| name.parse::<i32>().ok())
            .filter(|&pid| pid != std::process::id().cast_signed() && is_alive(pid))
            .filter(|pid| {
                mentions(format!("/proc/{pid}/environ")) || mentions(format!("/proc/{pid}/cmdline"))
            })
            .map(|pid| {
                let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                (pid, String::from_utf8_lossy(&command).replace('\0', " "))
            })
            .collect()
    }
}

impl Drop for Cofferdam {
    fn drop(&mut self) {
        for id in names(&self.root()) {
            let mut delete = self.command(["delete", "--force", &id]);
            match delete.output() {
                Ok(done) if done.status.success() => {}
                other => eprintln!("{id} was not cleared up: {other:?}"),
            }
        }
        if std::thread::panicking() {
            eprintln!("log of the test:\n{}", self.log());
        }
    }
}

/// What `cargo xtask kvm-tests` is about must not pass by emulation.
fn backend() -> &'static str {
    match std::env::var_os("COFFERDAM_TEST_ACCELERATOR") {
        Some(name) if name == "kvm" => "backend = \"kvm\"\n",
        _ => "",
    }
}

/// As much longer than the default as everything may take.
fn boot_timeout() -> String {
    match patience() {
        1 => String::new(),
        factor => format!("boot_timeout_seconds = {}\n", 60 * factor),
    }
}

/// Tests that say nothing of templates share those of the build directory. None makes another in the background, which
/// would run on after the test.
fn templates() -> String {
    format!(
        "template = \"manual\"\ntemplate_directory = {:?}\n",
        prefix::templates()
    )
}

/// Most tests start from one. Where that cannot be they boot, and tests of templates say why.
fn make_template(prefix: &Prefix) {
    let config = tempfile::NamedTempFile::new().expect("a file");
    fs::write(config.path(), format!("{}{}", backend(), templates())).expect("a configuration");
    let mut command = Command::new(prefix.program());
    command
        .env("COFFERDAM_CONFIG", config.path())
        .args(["template", "make"]);
    let done = outcome::finish(&mut command, LIMIT);
    if done.code != 0 {
        eprintln!("no template: {}", done.stderr);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
