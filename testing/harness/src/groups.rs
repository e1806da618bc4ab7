//! Control groups that engines leave on the host, which tests share.

use std::fs;
use std::path::Path;

/// Where control groups are: hierarchies of version 1, or the only one of version 2.
pub const GROUPS: &str = "/sys/fs/cgroup";

/// Removes the empty control groups of this name, and those in them: engines leave the one above all of theirs.
pub fn remove_groups(name: &str) {
    let root = Path::new(GROUPS);
    for hierarchy in folders(root).into_iter().chain([root.to_owned()]) {
        let group = hierarchy.join(name);
        for below in folders(&group) {
            // One that is in use stays, and a test tells of it.
            let _busy = fs::remove_dir(below);
        }
        let _busy = fs::remove_dir(group);
    }
}

fn folders(path: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
