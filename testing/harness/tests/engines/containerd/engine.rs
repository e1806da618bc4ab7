//! containerd with folders and a socket of its own.
//!
//! Each case runs on runc first, then on ours behind containerd's runc shim, then on our own shim.

use std::cell::RefCell;
use std::fmt::Debug;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::{Cofferdam, Outcome, finish, image, start, wait_until};
use rustix::mount::{UnmountFlags, unmount};

use crate::runtime::{Kind, find, has, mounts};

const LIMIT: Duration = Duration::from_secs(240);

/// What containerd runs its containers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// runc behind containerd's shim for it: the reference.
    Runc,
    /// Our OCI command behind the same shim.
    Command,
    /// Our own shim.
    Shim,
}

impl Runtime {
    /// As containerd names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Runc | Self::Command => "io.containerd.runc.v2",
            Self::Shim => "io.containerd.cofferdam.v2",
        }
    }

    /// The program of its shim.
    pub fn shim(self) -> &'static str {
        match self {
            Self::Runc | Self::Command => "containerd-shim-runc-v2",
            Self::Shim => "containerd-shim-cofferdam-v2",
        }
    }
}

/// A daemon of one's own. Dropping it ends it and all its containers.
pub struct Containerd {
    /// What runs the containers.
    pub runtime: Runtime,
    /// The busybox image's name there.
    pub busybox: String,
    cofferdam: Cofferdam,
    program: Option<PathBuf>,
    daemon: RefCell<Child>,
}

/// Runs a case with runc and then with ours in both ways; what it answers has to be equal.
pub fn all<T: PartialEq + Debug>(case: impl Fn(&Containerd) -> T) {
    compare(&[Runtime::Runc, Runtime::Command, Runtime::Shim], case);
}

/// As [`all`], for what is the shim's own business.
pub fn shims<T: PartialEq + Debug>(case: impl Fn(&Containerd) -> T) {
    compare(&[Runtime::Runc, Runtime::Shim], case);
}

fn compare<T: PartialEq + Debug>(runtimes: &[Runtime], case: impl Fn(&Containerd) -> T) {
    if !has(&["containerd", "ctr", "containerd-shim-runc-v2", "runc"]) {
        return;
    }
    let mut reference = None;
    for &runtime in runtimes {
        let Some(containerd) = Containerd::new(runtime) else {
            return;
        };
        let observed = case(&containerd);
        containerd.leaves_nothing();
        match &reference {
            None => reference = Some(observed),
            Some(reference) => assert_eq!(
                *reference, observed,
                "runc (left) and {runtime:?} (right) differ"
            ),
        }
    }
}

impl Containerd {
    fn new(runtime: Runtime) -> Option<Self> {
        let cofferdam = Cofferdam::new()?;
        let archive = match image("busybox.docker.tar") {
            Ok(archive) => archive,
            Err(reason) => {
                eprintln!("SKIPPED: {reason}");
                return None;
            }
        };
        let program = match runtime {
            Runtime::Runc => Some(Kind::Runc.program(&cofferdam, None)),
            Runtime::Command => Some(Kind::Cofferdam.program(&cofferdam, None)),
            Runtime::Shim => None,
        };
        let folder = cofferdam.folder();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n",
            folder.join("root"),
            folder.join("run"),
            folder.join("c.sock"),
        );
        fs::write(folder.join("containerd.toml"), config).expect("a configuration");
        let mut containerd = Self {
            runtime,
            busybox: String::new(),
            program,
            daemon: RefCell::new(start_daemon(&cofferdam)),
            cofferdam,
        };
        containerd.expect_answer();
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

    fn expect_answer(&self) {
        let answers = wait_until(LIMIT, || self.ctr(&["version"]).code == 0);
        assert!(answers, "containerd does not answer: {}", self.log());
    }

    /// Kills the daemon as `kill -9` does and starts it again; its shims go on.
    pub fn restart(&self) {
        self.restart_after(Duration::ZERO);
    }

    /// As [`Containerd::restart`], with a time in between.
    pub fn restart_after(&self, pause: Duration) {
        self.end_daemon();
        std::thread::sleep(pause);
        *self.daemon.borrow_mut() = start_daemon(&self.cofferdam);
        self.expect_answer();
    }

    fn end_daemon(&self) {
        let mut daemon = self.daemon.borrow_mut();
        let _killed = daemon.kill();
        let _reaped = daemon.wait();
    }

    /// The installation that the runtimes are of.
    pub fn installation(&self) -> &Cofferdam {
        &self.cofferdam
    }

    /// The folder of this test.
    pub fn folder(&self) -> &Path {
        self.cofferdam.folder()
    }

    /// The folder that containerd keeps for a task.
    pub fn bundle(&self, task: &str) -> PathBuf {
        self.bundles().join(task)
    }

    /// containerd's namespace of this test: runc's cgroups are named by it and the container, on the host that tests
    /// share.
    fn namespace(&self) -> &str {
        let name = self.folder().file_name().and_then(|name| name.to_str());
        name.expect("a name that is text")
    }

    fn bundles(&self) -> PathBuf {
        self.folder()
            .join("run/io.containerd.runtime.v2.task")
            .join(self.namespace())
    }

    /// The socket of a task's shim.
    pub fn socket(&self, task: &str) -> PathBuf {
        let address = fs::read_to_string(self.bundle(task).join("address")).expect("an address");
        PathBuf::from(address.strip_prefix("unix://").expect("a socket"))
    }

    /// The processes that this test has made but the daemon, by a part of their command lines.
    pub fn processes(&self, name: &str) -> Vec<i32> {
        let daemon = self.daemon.borrow().id().cast_signed();
        let found = self.cofferdam.processes();
        found
            .into_iter()
            .filter(|(pid, command)| *pid != daemon && command.contains(name))
            .map(|(pid, _)| pid)
            .collect()
    }

    /// Kills a process as `kill -9` does.
    pub fn kill9(&self, pid: i32) {
        self.cofferdam.kill9(pid);
    }

    /// The client's command.
    pub fn command(&self, args: &[&str]) -> Command {
        let folder = self.cofferdam.folder();
        let mut command = Command::new(find("ctr").expect("ctr"));
        command
            .current_dir(folder)
            .env("CONTAINERD_NAMESPACE", self.namespace())
            .arg("--address")
            .arg(folder.join("c.sock"));
        match args.split_first() {
            Some((&"run", rest)) => {
                command.args(["run", "--runtime", self.runtime.name()]);
                if let Some(program) = &self.program {
                    command
                        .arg("--runc-binary")
                        .arg(program)
                        .arg("--runc-root")
                        .arg(self.cofferdam.root());
                }
                command.args(rest)
            }
            _ => command.args(args),
        };
        command
    }

    /// Runs the client.
    pub fn ctr(&self, args: &[&str]) -> Outcome {
        finish(&mut self.command(args), LIMIT)
    }

    /// Runs what says something: again where it says nothing, as on a busy machine ctr may leave before it has read what
    /// there is, with runc's shim too.
    pub fn heard(&self, args: &[&str]) -> Outcome {
        let mut done = self.ctr(args);
        for _ in 0..3 {
            if done.code != 0 || !done.stdout.is_empty() {
                break;
            }
            done = self.ctr(args);
        }
        done
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
            self.runtime,
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

    /// What the daemon logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.cofferdam.folder().join("containerd.log")).unwrap_or_default()
    }

    fn leaves_nothing(&self) {
        assert_eq!(self.ok(&["tasks", "list", "--quiet"]), "");
        assert_eq!(self.ok(&["containers", "list", "--quiet"]), "");
        let left = mounts(self.cofferdam.folder());
        assert!(
            left.is_empty(),
            "left mounted with {:?}: {left:?}",
            self.runtime
        );
        let daemon = self.daemon.borrow().id().cast_signed();
        let gone = wait_until(Duration::from_secs(60), || {
            self.cofferdam
                .processes()
                .iter()
                .all(|(pid, _)| *pid == daemon)
        });
        assert!(
            gone,
            "left running with {:?}: {:?}",
            self.runtime,
            self.cofferdam.processes()
        );
        let namespace = self.cofferdam.root().join(self.namespace());
        let listed = |folder: &Path| -> Vec<_> {
            fs::read_dir(folder)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.file_name())
                .collect()
        };
        for folder in [namespace, self.bundles()] {
            let names = listed(&folder);
            assert!(
                names.is_empty(),
                "left in {} with {:?}: {names:?}",
                folder.display(),
                self.runtime
            );
        }
    }
}

/// Starts the daemon with the shims of the installation under test.
fn start_daemon(cofferdam: &Cofferdam) -> Child {
    let folder = cofferdam.folder();
    let log = File::options()
        .append(true)
        .create(true)
        .open(folder.join("containerd.log"))
        .expect("a log");
    let programs = cofferdam.program();
    let mut path = vec![programs.parent().expect("a folder").to_owned()];
    path.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    Command::new(find("containerd").expect("containerd"))
        .arg("--config")
        .arg(folder.join("containerd.toml"))
        .env("PATH", std::env::join_paths(path).expect("a path"))
        .env("COFFERDAM_CONFIG", cofferdam.config())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("containerd starts")
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let tasks = self.ctr(&["tasks", "list", "--quiet"]).stdout;
        for task in tasks.split_whitespace() {
            let _ended = self.ctr(&["tasks", "kill", "--signal", "KILL", task]);
            let _removed = self.ctr(&["tasks", "delete", "--force", task]);
        }
        self.end_daemon();
        for (pid, _) in self.cofferdam.processes() {
            // It may end by itself in between.
            let _ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.cofferdam.kill9(pid)
            }));
        }
        for point in mounts(self.cofferdam.folder()) {
            let _busy = unmount(&point, UnmountFlags::DETACH);
        }
        harness::remove_groups(self.namespace());
        // The folder of containerd's namespace is no container, though it lies where they do.
        let _gone = fs::remove_dir_all(self.cofferdam.root().join(self.namespace()));
    }
}
