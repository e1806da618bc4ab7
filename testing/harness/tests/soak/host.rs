//! One containerd for everything, and containers by `ctr`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use harness::{Cofferdam, Containerd, Outcome, finish, image, remove_groups, wait_until};

use crate::counts::Scope;

/// Longer than anything takes, even thirty machines that start at once.
pub const LIMIT: Duration = Duration::from_secs(300);

/// The image of all containers, in the build directory.
pub const IMAGE: &str = "busybox.docker.tar";

/// What containers are run by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// The reference.
    Runc,
    /// Our OCI command behind containerd's shim for runc.
    Command,
    /// Our shim.
    Shim,
}

/// The engine, and what is counted.
pub struct Host {
    pub containerd: Containerd,
    pub scope: Scope,
    busybox: String,
    cofferdam: Cofferdam,
}

impl Host {
    /// Starts the engine.
    pub fn start() -> Result<Self, String> {
        let archive = image(IMAGE)?;
        let cofferdam = Cofferdam::new().ok_or("see above")?;
        let folder = cofferdam.folder().join("engine");
        let containerd = Containerd::start(&folder, cofferdam.prefix(), &cofferdam.config())?;
        let name = cofferdam.folder().file_name().ok_or("no name")?;
        let name = name.to_string_lossy().into_owned();
        containerd.import(&name, &archive)?;
        containerd.import_for_pods(&archive)?;
        let listed = finish(containerd.ctr(&name).args(["images", "list", "-q"]), LIMIT);
        Ok(Self {
            busybox: listed.stdout.trim().to_owned(),
            scope: Scope {
                cgroup: name,
                storage: folder.join("root"),
            },
            containerd,
            cofferdam,
        })
    }

    /// The name of the test: of containerd's namespace, and of control groups.
    pub fn name(&self) -> &str {
        &self.scope.cgroup
    }

    /// The image.
    pub fn busybox(&self) -> &str {
        &self.busybox
    }

    /// A folder for logs.
    pub fn logs(&self) -> PathBuf {
        let logs = self.scope.storage.join("logs");
        fs::create_dir_all(&logs).expect("a folder");
        logs
    }

    /// The client's command.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.containerd.ctr(self.name());
        command.args(args);
        command
    }

    /// Runs the client and wants success.
    pub fn ok(&self, args: &[&str]) -> String {
        let done = finish(&mut self.command(args), LIMIT);
        self.check(args, &done);
        done.stdout
    }

    /// Runs the client's `run` and wants success.
    pub fn run(&self, runtime: Runtime, args: &[&str]) -> String {
        let mut command = self.command(&["run"]);
        match runtime {
            Runtime::Runc => {}
            Runtime::Command => {
                let root = self.cofferdam.root();
                command.arg("--runc-binary").arg(self.containerd.command());
                command.arg("--runc-root").arg(root);
            }
            Runtime::Shim => {
                command.args(["--runtime", "io.containerd.cofferdam.v2"]);
            }
        }
        let done = finish(command.args(args), LIMIT);
        self.check(args, &done);
        done.stdout
    }

    fn check(&self, args: &[&str], done: &Outcome) {
        assert_eq!(
            done.code,
            0,
            "{args:?}: {done:?}\n{}",
            self.containerd.log()
        );
    }

    /// Kills a task, and removes it and its container when it has stopped.
    pub fn remove(&self, task: &str) {
        self.ok(&["tasks", "kill", "--signal", "KILL", task]);
        let stopped = wait_until(LIMIT, || self.status(task).as_deref() == Some("STOPPED"));
        assert!(stopped, "{task} is {:?}", self.status(task));
        // Its code is that of the task.
        let done = finish(&mut self.command(&["tasks", "delete", task]), LIMIT);
        assert!(done.stderr.contains("exit code 137"), "{task}: {done:?}");
        self.ok(&["containers", "delete", task]);
    }

    fn status(&self, task: &str) -> Option<String> {
        let list = self.ok(&["tasks", "list"]);
        let line = list
            .lines()
            .find(|line| line.split_whitespace().next() == Some(task))?;
        line.split_whitespace().nth(2).map(str::to_owned)
    }

    /// How many tasks run.
    pub fn running(&self) -> usize {
        let list = self.ok(&["tasks", "list"]);
        list.lines()
            .filter(|line| line.split_whitespace().nth(2) == Some("RUNNING"))
            .count()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("containerd: {}", self.containerd.log());
        }
        remove_groups(self.name());
    }
}
