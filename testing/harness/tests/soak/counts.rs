//! What there is on a host, by kind and name: everything that a container could leave.
//!
//! Process namespace, mounts and network are the test's own, so what is seen in them is all that is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use harness::{GROUPS, wait_until};

/// How long what ends by itself may take to end: engines close files and reap shims when they find the time.
const SETTLE: Duration = Duration::from_secs(90);

/// For how long nothing has to change.
const REST: Duration = Duration::from_secs(2);

/// Kinds of namespaces.
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// Where engines, shims and runtimes keep files while containers are there; all of it is in memory and the test's own.
const FOLDERS: [&str; 3] = ["/run", "/dev/shm", "/var/lib/cni"];

/// Where to look.
#[derive(Debug)]
pub struct Scope {
    /// Part of the names of all control groups that belong to the test: those are the machine's.
    pub cgroup: String,
    /// Files that are nobody's leftover: what the engine keeps of images.
    pub storage: PathBuf,
}

/// How many there are of each thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts(BTreeMap<String, usize>);

impl Counts {
    /// Counts.
    pub fn take(scope: &Scope) -> Self {
        let mut counts = Self(BTreeMap::new());
        let own = std::process::id().cast_signed();
        // One process or thread of each namespace shows what is in it.
        let mut mounts = BTreeMap::new();
        let mut networks = BTreeMap::new();
        let mut namespaces = BTreeSet::new();
        for pid in numbers(Path::new("/proc")) {
            let process = PathBuf::from(format!("/proc/{pid}"));
            let Some(name) = name(&process) else {
                continue;
            };
            counts.add(format!("process {name}"));
            if pid != own {
                for file in links(&process.join("fd")) {
                    counts.add(format!("descriptor of {name}: {}", without_digits(&file)));
                }
            }
            for thread in numbers(&process.join("task")) {
                let thread = process.join("task").join(thread.to_string());
                for kind in NAMESPACES {
                    let Ok(link) = fs::read_link(thread.join("ns").join(kind)) else {
                        continue;
                    };
                    let link = link.to_string_lossy().into_owned();
                    match kind {
                        "mnt" => drop(mounts.insert(link.clone(), thread.clone())),
                        "net" => drop(networks.insert(link.clone(), thread.clone())),
                        _ => {}
                    }
                    if namespaces.insert(link) {
                        counts.add(format!("{kind} namespace"));
                    }
                }
            }
        }
        for thread in mounts.values() {
            for line in lines(&thread.join("mountinfo")) {
                counts.add(format!("mount {}", field(&line, 4)));
            }
        }
        for thread in networks.values() {
            for line in lines(&thread.join("net/dev")).iter().skip(2) {
                let name = line.split(':').next().unwrap_or_default().trim();
                counts.add(format!("interface {}", without_digits(name)));
            }
            for line in lines(&thread.join("net/unix")).iter().skip(1) {
                let path = line.split_whitespace().nth(7).unwrap_or("without a name");
                counts.add(format!("socket {path}"));
            }
        }
        for folder in FOLDERS {
            counts.files(Path::new(folder), &scope.storage);
        }
        counts.groups(Path::new(GROUPS), &scope.cgroup);
        counts
    }

    /// What there is once nothing comes or goes any more: shims of what was before end when they find the time.
    pub fn at_rest(scope: &Scope) -> Self {
        let mut last = Self::take(scope);
        let _busy_all_the_time = wait_until(SETTLE, || {
            thread::sleep(REST);
            let now = Self::take(scope);
            let same = now == last;
            last = now;
            same
        });
        last
    }

    /// Wants the same as before, as soon as all that ends by itself has ended.
    ///
    /// # Panics
    /// When something differs; says what.
    pub fn assert_again(&self, scope: &Scope, after: &str) {
        let mut now = Self::take(scope);
        let same = wait_until(SETTLE, || {
            now = Self::take(scope);
            now == *self
        });
        assert!(
            same,
            "{after} there is not what there was before:\n{}",
            self.differences(&now)
        );
    }

    /// What there is more or less of, one thing on a line.
    pub fn differences(&self, other: &Self) -> String {
        let names: BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        let mut text = String::new();
        for name in names {
            let count = |counts: &Self| counts.0.get(name).copied().unwrap_or_default();
            let (before, after) = (count(self), count(other));
            if before != after {
                // Writing to a string cannot fail.
                let _done = writeln!(text, "  {name}: {before} before, {after} after");
            }
        }
        text
    }

    fn add(&mut self, name: String) {
        *self.0.entry(name).or_default() += 1;
    }

    fn files(&mut self, folder: &Path, but: &Path) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path == but {
                continue;
            }
            self.add(format!("file {}", path.display()));
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.files(&path, but);
            }
        }
    }

    fn groups(&mut self, folder: &Path, of: &str) {
        for group in folders(folder) {
            if group.to_string_lossy().contains(of) {
                self.add(format!("control group {}", group.display()));
            }
            self.groups(&group, of);
        }
    }
}

/// The name of a process, also of one that nobody has reaped.
fn name(process: &Path) -> Option<String> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let (start, end) = (stat.find('(')?, stat.rfind(')')?);
    stat.get(start + 1..end).map(str::to_owned)
}

fn without_digits(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

fn numbers(folder: &Path) -> Vec<i32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

fn links(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .collect()
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn lines(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn field(line: &str, number: usize) -> &str {
    line.split(' ').nth(number).unwrap_or_default()
}
