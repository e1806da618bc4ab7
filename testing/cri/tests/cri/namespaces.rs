//! Where all of this runs: namespaces that end with the test, whatever kills it.
//!
//! Daemons, pods, their networks and the registry live in process, mount and network namespaces of the test's own. What
//! engines write to fixed places (`/run`, `/var/lib/cni`) is covered there, and only there.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::OnceLock;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Says that this process is the one inside.
const MARK: &str = "COFFERDAM_CRI_INSIDE";

/// Whether [`enter`] has started this process.
pub fn is_inside() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Runs this program again, inside.
pub fn enter() -> ExitCode {
    let program = std::env::current_exe().expect("this program");
    let status = Command::new("unshare")
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
        // Not engines are what has to be few, but pods: `--test-threads` bounds them.
        .env("COFFERDAM_TEST_MACHINES", "1000")
        .status()
        .expect("util-linux's unshare");
    match status.code() {
        Some(0) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Mounts of the machine, which are here as well.
static INHERITED: OnceLock<BTreeSet<String>> = OnceLock::new();

/// Makes the namespaces fit for engines; `folder` lies on a disk.
pub fn prepare(folder: &Path) {
    let inherited = mount_points().into_iter().map(|(id, _)| id).collect();
    INHERITED.set(inherited).expect("this runs once");
    let none = OsStr::new("none");
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount(none, "/run", "tmpfs", flags, None).expect("an own /run");
    let (upper, work) = (folder.join("lib-upper"), folder.join("lib-work"));
    fs::create_dir_all(&upper).expect("a folder");
    fs::create_dir_all(&work).expect("a folder");
    let layers = format!(
        "lowerdir=/var/lib,upperdir={},workdir={}\0",
        upper.display(),
        work.display()
    );
    let layers = std::ffi::CStr::from_bytes_with_nul(layers.as_bytes()).expect("no NUL in paths");
    mount("overlay", "/var/lib", "overlay", flags, layers).expect("an own /var/lib");
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(
        up.expect("iproute2's ip").success(),
        "loopback does not come up"
    );
}

/// All processes in here, with their command lines.
pub fn processes() -> Vec<(i32, String)> {
    fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            // Zombies and kernel threads have none.
            (!line.is_empty()).then_some((pid, line))
        })
        .collect()
}

/// Mounts below a folder.
pub fn mounts(folder: &Path) -> Vec<String> {
    let below = format!("{}/", folder.display());
    let inherited = INHERITED.get().expect("everything is prepared");
    mount_points()
        .into_iter()
        .filter(|(id, point)| point.starts_with(&below) && !inherited.contains(id))
        .map(|(_, point)| format!("mount {point}"))
        .collect()
}

/// Numbers of all mounts, and where they are.
fn mount_points() -> Vec<(String, String)> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let fields = |line: &str| {
        let mut fields = line.split(' ');
        Some((fields.next()?.to_owned(), fields.nth(3)?.to_owned()))
    };
    table.lines().filter_map(fields).collect()
}

/// Uncovers what [`prepare`] has covered, so that its folder can go.
pub fn end() {
    let _busy = unmount("/var/lib", UnmountFlags::DETACH);
}
