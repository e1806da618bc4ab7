//! Where all of this runs: namespaces that end with the test, whatever kills it.
//!
//! Daemons, pods, their networks and the registry live in process, mount and network namespaces of the test's own. What
//! engines write to fixed places (`/run`, `/var/lib/cni`) is covered there, and only there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;

use harness::enclosure;
pub use harness::enclosure::{end, is_inside};

/// Runs this program again, inside.
pub fn enter() -> ExitCode {
    enclosure::enter(None)
}

/// Mounts of the machine, which are here as well.
static INHERITED: OnceLock<BTreeSet<String>> = OnceLock::new();

/// Makes the namespaces fit for engines; `folder` lies on a disk.
pub fn prepare(folder: &Path) {
    let inherited = mount_points().into_iter().map(|(id, _)| id).collect();
    INHERITED.set(inherited).expect("this runs once");
    enclosure::prepare(folder);
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
