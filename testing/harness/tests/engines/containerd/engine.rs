//! containerd with folders and a socket of its own.

use std::fmt::Debug;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::{Cofferdam, Outcome, finish, image, start, wait_until};
use rustix::mount::{UnmountFlags, unmount};

use crate::runtime::{Kind, find, has, mounts};

const LIMIT: Duration = Duration::from_secs(240);

/// A daemon of one's own. Dropping it ends it and all its containers.
pub struct Containerd {
    /// The runtime.
    pub kind: Kind,
    /// The busybox image's name there.
    pub busybox: String,
    cofferdam: Cofferdam,
    program: PathBuf,
    daemon: Child,
}

/// Runs a case with runc and then with ours; what it answers has to be equal.
pub fn both<T: PartialEq + Debug>(case: impl Fn(&Containerd) -> T) {
    if !has(&["containerd", "ctr", "containerd-shim-runc-v2", "runc"]) {
        return;
    }
    let [runc, ours] = Kind::BOTH.map(|kind| {
        let containerd = Containerd::new(kind)?;
        let observed = case(&containerd);
        containerd.leaves_nothing();
        Some(observed)
    });
    assert_eq!(runc, ours, "runc (left) and ours (right) differ");
}

impl Containerd {
    fn new(kind: Kind) -> Option<Self> {
        let cofferdam = Cofferdam::new()?;
        let archive = match image("busybox.docker.tar") {
            Ok(archive) => archive,
            Err(reason) => {
                eprintln!("SKIPPED: {reason}");
                return None;
            }
        };
        let program = kind.program(&cofferdam, None);
        let folder = cofferdam.folder();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n",
            folder.join("root"),
            folder.join("run"),
            folder.join("c.sock"),
        );
        fs::write(folder.join("containerd.toml"), config).expect("a configuration");
        let log = File::create(folder.join("containerd.log")).expect("a log");
        let daemon = Command::new(find("containerd").expect("containerd"))
            .arg("--config")
            .arg(folder.join("containerd.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("containerd starts");
        let mut containerd = Self {
            kind,
            busybox: String::new(),
            cofferdam,
            program,
            daemon,
        };
        let answers = wait_until(LIMIT, || containerd.ctr(&["version"]).code == 0);
        assert!(answers, "containerd does not answer: {}", containerd.log());
        containerd.ok(&[
            "images",
            "import",
            archive.to_str().expect("a path that is text"),
        ]);
        containerd.busybox = containerd
            .ok(&["images", "list", "--quiet"])
            .trim()
            .to_owned();
        Some(containerd)
    }

    /// The client's command.
    pub fn command(&self, args: &[&str]) -> Command {
        let folder = self.cofferdam.folder();
        let mut command = Command::new(find("ctr").expect("ctr"));
        command
            .current_dir(folder)
            .arg("--address")
            .arg(folder.join("c.sock"));
        match args.split_first() {
            Some((&"run", rest)) => command
                .args(["run", "--runtime", "io.containerd.runc.v2", "--runc-binary"])
                .arg(&self.program)
                .arg("--runc-root")
                .arg(self.cofferdam.root())
                .args(rest),
            _ => command.args(args),
        };
        command
    }

    /// Runs the client.
    pub fn ctr(&self, args: &[&str]) -> Outcome {
        finish(&mut self.command(args), LIMIT)
    }

    /// Runs it with this stdin.
    pub fn ctr_with(&self, stdin: &[u8], args: &[&str]) -> Outcome {
        start(&mut self.command(args), Some(stdin.to_vec())).finish(LIMIT)
    }

    /// Runs it and wants success.
    pub fn ok(&self, args: &[&str]) -> String {
        let done = self.ctr(args);
        assert_eq!(
            done.code,
            0,
            "ctr {args:?} with {:?}: {done:?}\n{}",
            self.kind,
            self.log()
        );
        done.stdout
    }

    /// The status of a task as `ctr tasks list` shows it.
    pub fn status(&self, task: &str) -> Option<String> {
        let list = self.ok(&["tasks", "list"]);
        let line = list
            .lines()
            .find(|line| line.split_whitespace().next() == Some(task))?;
        line.split_whitespace().nth(2).map(str::to_owned)
    }

    /// Waits until a task has a status.
    pub fn expect_status(&self, task: &str, status: &str) {
        let came = wait_until(LIMIT, || self.status(task).as_deref() == Some(status));
        assert!(
            came,
            "{task} is {:?}, not {status}: {}",
            self.status(task),
            self.log()
        );
    }

    fn log(&self) -> String {
        fs::read_to_string(self.cofferdam.folder().join("containerd.log")).unwrap_or_default()
    }

    fn leaves_nothing(&self) {
        assert_eq!(self.ok(&["tasks", "list", "--quiet"]), "");
        assert_eq!(self.ok(&["containers", "list", "--quiet"]), "");
        let left = mounts(self.cofferdam.folder());
        assert!(
            left.is_empty(),
            "left mounted with {:?}: {left:?}",
            self.kind
        );
        let daemon = self.daemon.id().cast_signed();
        let gone = wait_until(Duration::from_secs(60), || {
            self.cofferdam
                .processes()
                .iter()
                .all(|(pid, _)| *pid == daemon)
        });
        assert!(
            gone,
            "left running with {:?}: {:?}",
            self.kind,
            self.cofferdam.processes()
        );
        let namespace = self.cofferdam.root().join("default");
        let names: Vec<_> = fs::read_dir(&namespace)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert!(
            names.is_empty(),
            "left in {}: {names:?}",
            namespace.display()
        );
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let tasks = self.ctr(&["tasks", "list", "--quiet"]).stdout;
        for task in tasks.split_whitespace() {
            let _ended = self.ctr(&["tasks", "kill", "--signal", "KILL", task]);
            let _removed = self.ctr(&["tasks", "delete", "--force", task]);
        }
        let _killed = self.daemon.kill();
        let _reaped = self.daemon.wait();
        for (pid, _) in self.cofferdam.processes() {
            // It may end by itself in between.
            let _ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.cofferdam.kill9(pid)
            }));
        }
        for point in mounts(self.cofferdam.folder()) {
            let _busy = unmount(&point, UnmountFlags::DETACH);
        }
        // The folder of containerd's namespace is no container, though it lies where they do.
        let _gone = fs::remove_dir_all(self.cofferdam.root().join("default"));
    }
}
