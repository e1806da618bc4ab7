//! podman with folders of its own.

use std::fmt::Debug;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use harness::{Actors, Cofferdam, Outcome, Running, finish, image, start};
use rustix::mount::{UnmountFlags, unmount};

use crate::runtime::{Kind, find, has, mounts};

const LIMIT: Duration = Duration::from_secs(240);

/// What podman has no options for: pods' first containers get these limits too, and are of the image that is there.
const SETTINGS: &str = r#"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
infra_image = "localhost/pause"
"#;

/// One installation of podman with one runtime. Dropping it removes all its containers.
pub struct Podman {
    /// The runtime.
    pub kind: Kind,
    cofferdam: Cofferdam,
    program: PathBuf,
}

/// Runs a case with runc and then with ours; what it answers has to be equal.
pub fn both<T: PartialEq + Debug>(case: impl Fn(&Podman) -> T) {
    if !has(&["podman", "conmon", "runc"]) {
        return;
    }
    let [runc, ours] = Kind::BOTH.map(|kind| {
        let podman = Podman::new(kind, "busybox")?;
        let observed = case(&podman);
        podman.leaves_nothing();
        Some(observed)
    });
    assert_eq!(runc, ours, "runc (left) and ours (right) differ");
}

impl Podman {
    /// With this image loaded.
    pub fn new(kind: Kind, image_name: &str) -> Option<Self> {
        let cofferdam = Cofferdam::new()?;
        let archive = match image(&format!("{image_name}.docker.tar")) {
            Ok(archive) => archive,
            Err(reason) => {
                eprintln!("SKIPPED: {reason}");
                return None;
            }
        };
        let program = kind.program(&cofferdam, Some(&cofferdam.root()));
        std::fs::write(cofferdam.folder().join("containers.conf"), SETTINGS).expect("settings");
        let podman = Self {
            kind,
            cofferdam,
            program,
        };
        podman.ok(&[
            "load",
            "--quiet",
            "--input",
            archive.to_str().expect("a path that is text"),
        ]);
        Some(podman)
    }

    /// A folder for volumes.
    pub fn folder(&self) -> PathBuf {
        self.cofferdam.folder().join("volumes")
    }

    /// The command.
    pub fn command(&self, args: &[&str]) -> Command {
        let folder = self.cofferdam.folder();
        let mut command = Command::new(find("podman").expect("podman"));
        command
            .current_dir(folder)
            .env("CONTAINERS_CONF", folder.join("containers.conf"));
        for (option, name) in [
            ("--root", "root"),
            ("--runroot", "run"),
            ("--tmpdir", "tmp"),
        ] {
            command.arg(option).arg(folder.join(name));
        }
        command
            .args([
                "--storage-driver",
                "overlay",
                "--cgroup-manager",
                "cgroupfs",
                "--events-backend",
                "none",
            ])
            .arg("--runtime")
            .arg(&self.program);
        // Without the right to raise limits podman's own defaults are refused by runc.
        match args.split_first() {
            Some((&"run", rest)) => command
                .args([
                    "run",
                    "--ulimit",
                    "nofile=1024:1024",
                    "--ulimit",
                    "nproc=1024:1024",
                    "--network",
                    "none",
                ])
                .args(rest),
            _ => command.args(args),
        };
        command
    }

    /// Runs it.
    pub fn run(&self, args: &[&str]) -> Outcome {
        finish(&mut self.command(args), LIMIT)
    }

    /// Runs it with this stdin.
    pub fn run_with(&self, stdin: &[u8], args: &[&str]) -> Outcome {
        start(&mut self.command(args), Some(stdin.to_vec())).finish(LIMIT)
    }

    /// Starts it.
    pub fn start(&self, args: &[&str]) -> Running {
        start(&mut self.command(args), None)
    }

    /// Runs it and wants success.
    pub fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(
            done.code, 0,
            "podman {args:?} with {:?}: {done:?}",
            self.kind
        );
        done.stdout
    }

    /// A field of a container.
    pub fn inspect(&self, name: &str, field: &str) -> String {
        self.ok(&["inspect", "--format", &format!("{{{{{field}}}}}"), name])
            .trim()
            .to_owned()
    }

    /// Waits until the logs of a container hold this.
    pub fn expect_log(&self, name: &str, text: &str) {
        let came = harness::wait_until(LIMIT, || self.run(&["logs", name]).stdout.contains(text));
        assert!(
            came,
            "{text:?} is not logged with {:?}: {:?}",
            self.kind,
            self.run(&["logs", name])
        );
    }

    /// Loads the image of which pods' first containers are.
    pub fn load_pause(&self) {
        let rootfs = image("busybox.rootfs.tar").expect("the image");
        self.ok(&[
            "import",
            "--quiet",
            "--change",
            "ENTRYPOINT [\"/bin/sleep\",\"1000000\"]",
            rootfs.to_str().expect("a path that is text"),
            "localhost/pause",
        ]);
    }

    /// The processes of ours behind a container.
    pub fn actors(&self, name: &str) -> Actors {
        self.cofferdam.actors(&self.inspect(name, ".Id"))
    }

    /// Kills a process as `kill -9` does.
    pub fn kill9(&self, pid: i32) {
        self.cofferdam.kill9(pid);
    }

    /// That nothing is left of any container.
    pub fn leaves_nothing(&self) {
        // podman may have conmon remove a `--rm` container, after the command itself has ended.
        let all = || self.ok(&["ps", "--all", "--quiet"]);
        let none = harness::wait_until(LIMIT, || all().is_empty());
        assert!(none, "containers are left with {:?}: {}", self.kind, all());
        let left: Vec<_> = mounts(self.cofferdam.folder())
            .into_iter()
            // podman's own, which stays for as long as its storage.
            .filter(|point| !point.ends_with("root/overlay"))
            .collect();
        assert!(
            left.is_empty(),
            "left mounted with {:?}: {left:?}",
            self.kind
        );
        self.unmount();
        self.cofferdam.assert_nothing_left();
    }

    fn unmount(&self) {
        for point in mounts(self.cofferdam.folder()) {
            let _busy = unmount(&point, UnmountFlags::DETACH);
        }
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let pods = self
            .command(&["pod", "rm", "--all", "--force", "--time", "0"])
            .output();
        if std::thread::panicking() {
            eprintln!("cleared up: {pods:?}");
        }
        let removed = self
            .command(&["rm", "--all", "--force", "--time", "0"])
            .output();
        if std::thread::panicking() {
            eprintln!("cleared up: {removed:?}");
        }
        for (pid, _) in self.cofferdam.processes() {
            // It may end by itself in between.
            let _ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.cofferdam.kill9(pid)
            }));
        }
        self.unmount();
    }
}
