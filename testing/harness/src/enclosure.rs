//! Process, mount and network namespaces of a program's own: they end with it, whatever kills it.
//!
//! Engines write to fixed places (`/run`, `/var/lib`); those are covered in there, and only there.

use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Says that this process is the one inside.
const MARK: &str = "COFFERDAM_TEST_INSIDE";

/// Whether [`enter`] has started this process.
#[must_use]
pub fn is_inside() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Runs this program again, inside; answers how it ended. `temporary`: where temporary files go in there, if not to the
/// machine's own place.
///
/// # Panics
/// When util-linux's `unshare` does not start.
#[must_use]
pub fn enter(temporary: Option<&Path>) -> ExitCode {
    let program = std::env::current_exe().expect("this program");
    let status = Command::new("unshare")
        .envs(temporary.map(|folder| ("TMPDIR", folder)))
        .args([
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .args(["--propagation", "private", "--"])
        // The namespace's first process has to reap those that daemons leave to it.
        .args(["sh", "-c", "\"$@\"; exit $?", "sh"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(MARK, "1")
        // Not engines are what has to be few, but containers: who enters bounds them.
        .env("COFFERDAM_TEST_MACHINES", "1000")
        .status()
        .expect("util-linux's unshare");
    match status.code() {
        Some(0) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Makes the namespaces fit for engines: `/run` and `/var/lib` of one's own, and loopback. What `/var/lib` is given goes
/// to `folder`, which overlay file systems must be able to have as their upper layer.
///
/// # Panics
/// When something cannot be mounted.
pub fn prepare(folder: &Path) {
    memory("/run");
    let (upper, work) = (folder.join("lib-upper"), folder.join("lib-work"));
    fs::create_dir_all(&upper).expect("a folder");
    fs::create_dir_all(&work).expect("a folder");
    let layers = format!(
        "lowerdir=/var/lib,upperdir={},workdir={}",
        upper.display(),
        work.display()
    );
    let layers = CString::new(layers).expect("no NUL in paths");
    cover("/var/lib", "overlay", Some(&layers));
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(
        up.expect("iproute2's ip").success(),
        "loopback does not come up"
    );
}

/// Covers a folder with an empty one in memory.
///
/// # Panics
/// When that cannot be mounted.
pub fn memory(folder: &str) {
    cover(folder, "tmpfs", None);
}

fn cover(folder: &str, kind: &str, options: Option<&CStr>) {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount(OsStr::new(kind), folder, kind, flags, options)
        .unwrap_or_else(|error| panic!("no {folder} of one's own: {error}"));
}

/// Uncovers what [`prepare`] has covered, so that its folder can go.
pub fn end() {
    let _busy = unmount("/var/lib", UnmountFlags::DETACH);
}
