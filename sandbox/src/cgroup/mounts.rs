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
    /// What tells each of them in `/proc/PID/cgroup`, and which of its groups is the root here.
    marks: Vec<Mark>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    /// Controllers, or `name=NAME`; of the second version there is but one hierarchy.
    options: Vec<String>,
    base: PathBuf,
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
        let (mut marks1, mut marks2) = (Vec::new(), Vec::new());
        for line in table.lines() {
            let Some((mount, file_system)) = line.split_once(" - ") else {
                continue;
            };
            let mut fields = mount.split(' ').skip(3).map(PathBuf::from);
            let (Some(base), Some(point)) = (fields.next(), fields.next()) else {
                continue;
            };
            let (roots, marks) = match file_system.split(' ').next() {
                Some("cgroup") => (&mut v1, &mut marks1),
                Some("cgroup2") => (&mut v2, &mut marks2),
                _ => continue,
            };
            // Mounted twice, it is one still.
            if !roots.contains(&point) {
                roots.push(point);
                let options = file_system.split(' ').nth(2).unwrap_or_default();
                let options = options.split(',').map(str::to_owned).collect();
                marks.push(Mark { options, base });
            }
        }
        if v1.is_empty() {
            v2.truncate(1);
            return Self {
                version: Version::V2,
                roots: v2,
                marks: marks2,
            };
        }
        Self {
            version: Version::V1,
            roots: v1,
            marks: marks1,
        }
    }

    /// The folders of the groups that the calling process is in.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn own(&self) -> Result<Vec<PathBuf>, CgroupError> {
        let path = Path::new("/proc/self/cgroup");
        let list = fs::read_to_string(path).map_err(system("read", path))?;
        Ok(self.own_of(&list))
    }

    fn own_of(&self, list: &str) -> Vec<PathBuf> {
        let lines: Vec<_> = list
            .lines()
            .filter_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                Some((fields.next()?, Path::new(fields.next()?)))
            })
            .collect();
        let folder = |(root, mark): (&PathBuf, &Mark)| {
            let (_, group) = lines.iter().find(|(controllers, _)| match self.version {
                Version::V1 => {
                    !controllers.is_empty()
                        && controllers
                            .split(',')
                            .all(|one| mark.options.iter().any(|option| option == one))
                }
                Version::V2 => controllers.is_empty(),
            })?;
            // One that is not below what is mounted has no folder here.
            let below = group.strip_prefix(&mark.base).ok()?;
            Some(root.join(below))
        };
        self.roots
            .iter()
            .zip(&self.marks)
            .filter_map(folder)
            .collect()
    }

    /// The same, if there are any.
    pub(super) fn mounted(self) -> Result<Self, CgroupError> {
        if self.roots.is_empty() {
            return Err(CgroupError::NotMounted);
        }
        Ok(self)
    }

    /// The folders below which the calling process has its machines' groups, one in each hierarchy.
    pub(super) fn homes(&self) -> Result<Vec<PathBuf>, CgroupError> {
        let path = Path::new("/proc/self/cgroup");
        let list = fs::read_to_string(path).map_err(system("read", path))?;
        Ok(self.homes_of(&list))
    }

    fn homes_of(&self, list: &str) -> Vec<PathBuf> {
        let own = self.own_of(list);
        let home = |root: &PathBuf| match own.iter().find(|own| own.starts_with(root)) {
            // One that holds processes hands nothing down; the root does.
            Some(own) if self.version == Version::V2 && own != root => {
                own.parent().unwrap_or(root).to_owned()
            }
            Some(own) => own.clone(),
            // What it is in is not below what is mounted here: nothing is nearer.
            None => root.clone(),
        };
        self.roots.iter().map(home).collect()
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
        let own = "\
            12:memory:/user.slice/x\n\
            7:cpu:/\n\
            3:pids:/elsewhere\n\
            0::/init.scope\n";
        assert_eq!(
            found.own_of(own),
            [
                Path::new("/sys/fs/cgroup/memory/user.slice/x"),
                Path::new("/sys/fs/cgroup/cpu/")
            ]
        );
        assert_eq!(
            found.homes_of("12:memory:/user.slice/x\n"),
            [
                Path::new("/sys/fs/cgroup/memory/user.slice/x"),
                Path::new("/sys/fs/cgroup/cpu")
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
            found.own_of("0::/a.slice\n"),
            [Path::new("/sys/fs/cgroup/a.slice")]
        );
        for (own, home) in [
            ("0::/a.slice/b.scope\n", "/sys/fs/cgroup/a.slice"),
            ("0::/a.slice\n", "/sys/fs/cgroup"),
            ("0::/\n", "/sys/fs/cgroup"),
        ] {
            assert_eq!(found.homes_of(own), [Path::new(home)]);
        }
        assert!(matches!(
            Hierarchies::parse("").mounted(),
            Err(CgroupError::NotMounted)
        ));
        assert_eq!(
            Hierarchies::parse("").folders(Path::new("a")),
            Vec::<PathBuf>::new()
        );
    }
}
