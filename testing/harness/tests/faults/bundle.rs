//! Bundles of busybox, and commands that leave a container behind.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::{Cofferdam, Outcome, finish, image, wait_until};
use serde_json::{Value, json};

/// Longer than anything takes here.
pub const LIMIT: Duration = Duration::from_secs(180);

/// A command that a person reads the end of, whose output a container may keep open.
#[derive(Debug)]
pub struct Started {
    child: Child,
    errors: PathBuf,
    began: Instant,
}

/// A container that runs until it is killed.
pub const SLEEP: [&str; 2] = ["sleep", "100000"];

/// Writes a bundle of busybox with this command; answers its folder.
pub fn bundle(cofferdam: &Cofferdam, name: &str, args: &[&str]) -> PathBuf {
    bundle_with(cofferdam, name, args, |_| {})
}

/// As [`bundle`], with a changed configuration.
pub fn bundle_with(
    cofferdam: &Cofferdam,
    name: &str,
    args: &[&str],
    change: impl FnOnce(&mut Value),
) -> PathBuf {
    let folder = cofferdam.folder().join("bundles").join(name);
    let rootfs = folder.join("rootfs");
    fs::create_dir_all(&rootfs).expect("a folder");
    unpack(&rootfs);
    let mount = |destination: &str, kind: &str| json!({ "destination": destination, "type": kind, "source": kind });
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "args": args,
            "env": ["PATH=/bin:/sbin"],
            "cwd": "/",
            "user": { "uid": 0, "gid": 0 },
        },
        "root": { "path": "rootfs" },
        "hostname": name,
        "mounts": [mount("/proc", "proc"), mount("/dev", "tmpfs")],
        "linux": { "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, { "type": "network" }] },
    });
    change(&mut config);
    fs::write(folder.join("config.json"), config.to_string()).expect("a configuration");
    folder
}

/// Unpacks busybox's root file system.
pub fn unpack(folder: &Path) {
    let archive = image("busybox.rootfs.tar").unwrap_or_else(|reason| panic!("{reason}"));
    let done = finish(
        Command::new("tar")
            .arg("-xf")
            .arg(archive)
            .arg("-C")
            .arg(folder),
        LIMIT,
    );
    assert_eq!(done.code, 0, "{done:?}");
}

/// A program of this test's own that the VMM's user may run.
pub fn script(cofferdam: &Cofferdam, name: &str, text: &str) -> PathBuf {
    open_to_all(cofferdam);
    let path = cofferdam.folder().join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a script");
    path
}

/// The test's folder, for a VMM that runs as nobody in particular.
pub fn open_to_all(cofferdam: &Cofferdam) {
    fs::set_permissions(cofferdam.folder(), fs::Permissions::from_mode(0o755))
        .expect("a folder's mode");
}

/// Puts lines into the configuration, in the place of those with the same keys.
pub fn configure(cofferdam: &Cofferdam, lines: &str) {
    let key = |line: &str| line.split('=').next().map(str::trim).map(str::to_owned);
    let present = fs::read_to_string(cofferdam.config()).expect("a configuration");
    let text: String = present
        .lines()
        .filter(|line| !lines.lines().any(|later| key(later) == key(line)))
        .chain(lines.lines())
        .flat_map(|line| [line, "\n"])
        .collect();
    fs::write(cofferdam.config(), text).expect("a configuration");
}

/// Starts a command whose stdio does not lead to this test.
pub fn begin(cofferdam: &Cofferdam, args: &[&str]) -> Started {
    begin_command(cofferdam, cofferdam.command(args))
}

/// As [`begin`], with a command that is made already.
pub fn begin_command(cofferdam: &Cofferdam, mut command: Command) -> Started {
    let errors = tempfile_in(cofferdam.folder());
    let sink = File::create(&errors).expect("a file");
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(sink)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    Started {
        child,
        errors,
        began: Instant::now(),
    }
}

impl Started {
    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Kills it as `kill -9` does, unless it has ended.
    pub fn kill9(mut self) {
        // It may have been quicker.
        let _ended = self.child.kill();
        self.child.wait().expect("a child to reap");
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Outcome {
        let mut status = None;
        wait_until(LIMIT, || {
            status = self.child.try_wait().expect("a child's state");
            status.is_some()
        });
        let stderr = fs::read_to_string(&self.errors).unwrap_or_default();
        let Some(status) = status else {
            let _ended = self.child.kill();
            panic!("{self:?} did not end; stderr {stderr:?}");
        };
        Outcome {
            code: std::os::unix::process::ExitStatusExt::signal(&status)
                .map_or_else(|| status.code().unwrap_or(-1), |signal| 128 + signal),
            stdout: String::new(),
            stderr,
            elapsed: self.began.elapsed(),
        }
    }
}

/// Runs a command whose stdio does not lead to this test.
pub fn call(cofferdam: &Cofferdam, args: &[&str]) -> Outcome {
    begin(cofferdam, args).finish()
}

/// Makes a container.
pub fn create(cofferdam: &Cofferdam, bundle: &Path, id: &str) {
    let done = call(cofferdam, &["create", "--bundle", text(bundle), id]);
    assert_eq!(done.code, 0, "{done:?}\n{}", cofferdam.log());
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}

/// Asserts that a command failed and said all of this, and that nothing is left.
pub fn assert_refused(cofferdam: &Cofferdam, done: &Outcome, words: &[&str]) {
    assert!(done.code != 0 && done.code < 128, "not refused: {done:?}");
    for word in words {
        assert!(
            done.stderr.contains(word),
            "{word:?} is not said: {}",
            done.stderr
        );
    }
    assert!(
        cofferdam.log().contains("\"level\":\"error\""),
        "not logged: {}",
        cofferdam.log()
    );
    cofferdam.assert_nothing_left();
}

fn tempfile_in(folder: &Path) -> PathBuf {
    let time = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    folder.join(format!("stderr.{}", time.as_nanos()))
}
