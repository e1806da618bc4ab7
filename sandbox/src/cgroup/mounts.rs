//! The hierarchies of control groups that the host has.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{CgroupError, system};

/// The kernel's two kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller or two.
    V1,
    /// One for all.
    V2,
}

/// Where hierarchies are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchies {
    version: Version,
    roots: Vec<PathBuf>,
}

impl Hierarchies {
    /// Those of this host. One that has both kinds accounts in the first.
    ///
    /// # Errors
    /// When the table of mounts cannot be read.
    pub fn read() -> Result<Self, CgroupError> {
        let path = Path::new("/proc/self/mountinfo");
        let table = fs::read_to_string(path).map_err(system("read", path))?;
        Ok(Self::parse(&table))
    }

    fn parse(table: &str) -> Self {
        let (mut v1, mut v2): (Vec<PathBuf>, Vec<PathBuf>) = Default::default();
        for line in table.lines() {
            let Some((mount, file_system)) = line.split_once(" - ") else {
                continue;
            };
            let Some(point) = mount.split(' ').nth(4).map(PathBuf::from) else {
                continue;
            };
            let roots = match file_system.split(' ').next() {
                Some("cgroup") => &mut v1,
                Some("cgroup2") => &mut v2,
                _ => continue,
            };
            // Mounted twice, it is one still.
            if !roots.contains(&point) {
                roots.push(point);
            }
        }
        if v1.is_empty() {
            v2.truncate(1);
            return Self {
                version: Version::V2,
                roots: v2,
            };
        }
        Self {
            version: Version::V1,
            roots: v1,
        }
    }

    /// A group's folders.
    pub(super) fn folders(&self, path: &Path) -> Vec<PathBuf> {
        self.roots.iter().map(|root| root.join(path)).collect()
    }

    /// Makes a new group fit for processes.
    pub(super) fn prepare(&self, folder: &Path) -> Result<(), CgroupError> {
        let Some(root) = self.roots.iter().find(|root| folder.starts_with(root)) else {
            return Ok(());
        };
        let mut groups: Vec<_> = folder
            .ancestors()
            .take_while(|group| *group != root && group.starts_with(root))
            .collect();
        groups.reverse();
        for group in groups {
            match self.version {
                Version::V1 => inherit_processors(group)?,
                Version::V2 => {
                    if let Some(parent) = group.parent() {
                        delegate(parent);
                    }
                }
            }
        }
        Ok(())
    }
}

/// A new cpuset takes no process before it has processors and memory.
fn inherit_processors(group: &Path) -> Result<(), CgroupError> {
    let Some(parent) = group.parent() else {
        return Ok(());
    };
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let own = group.join(name);
        match fs::read_to_string(&own) {
            Ok(value) if value.trim().is_empty() => {
                let parent = parent.join(name);
                let value = fs::read_to_string(&parent).map_err(system("read", &parent))?;
                fs::write(&own, value.trim()).map_err(system("write", &own))?;
            }
            Ok(_) => {}
            // Another hierarchy.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(system("read", &own)(error)),
        }
    }
    Ok(())
}

/// Has a group account for those in it. Which controllers are to be had is the host's decision.
fn delegate(group: &Path) {
    let controllers = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_ascii_whitespace() {
        let written = fs::write(
            group.join("cgroup.subtree_control"),
            format!("+{controller}"),
        );
        if let Err(error) = written {
            tracing::debug!(%error, controller, group = %group.display(), "not delegated");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_both_kinds() {
        let hybrid = "\
            30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            31 30 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
            32 30 0:28 / /sys/fs/cgroup/cpu rw,relatime shared:3 - cgroup cgroup rw,cpu\n\
            33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = Hierarchies::parse(hybrid);
        assert_eq!(found.version, Version::V1);
        assert_eq!(
            found.folders(Path::new("a/b")),
            [
                Path::new("/sys/fs/cgroup/memory/a/b"),
                Path::new("/sys/fs/cgroup/cpu/a/b")
            ]
        );
        let unified = "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = Hierarchies::parse(unified);
        assert_eq!(found.version, Version::V2);
        assert_eq!(
            found.folders(Path::new("a")),
            [Path::new("/sys/fs/cgroup/a")]
        );
        assert_eq!(
            Hierarchies::parse("").folders(Path::new("a")),
            Vec::<PathBuf>::new()
        );
    }
}
