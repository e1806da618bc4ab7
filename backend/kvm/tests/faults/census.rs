//! What there is on the host of all that a machine is made of.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How long things may take to go: a namespace and vhost-net's threads are taken down after the process.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is counted, by a name that tells what has come or gone.
#[derive(Debug, PartialEq, Eq)]
pub struct Census(BTreeMap<String, usize>);

impl Census {
    /// Counts: descriptors of this process by what they lead to, its children, and the processes of `user` with their
    /// namespaces.
    pub fn take(user: u32) -> Self {
        let mut all = BTreeMap::new();
        let mut count = |name: String| *all.entry(name).or_insert(0) += 1;
        for name in names(Path::new("/proc/self/fd")) {
            // The one that the folder itself was read by leads nowhere any more.
            if let Ok(target) = fs::read_link(format!("/proc/self/fd/{name}")) {
                let target = target.to_string_lossy();
                let kind = target.split([':', ' ']).next().unwrap_or_default();
                count(format!("descriptor {kind}"));
            }
        }
        for process in names(Path::new("/proc")) {
            let folder = Path::new("/proc").join(&process);
            if process.parse::<u32>().is_err() {
                continue;
            }
            let (Ok(status), Ok(metadata)) = (
                fs::read_to_string(folder.join("status")),
                fs::metadata(folder.join("task")),
            ) else {
                continue;
            };
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or_default().trim().to_owned()
            };
            let child = field("PPid:") == std::process::id().to_string();
            // That of a process that nobody may look into belongs to root.
            let of_user = metadata.uid() == user
                || field("Uid:").split_whitespace().next() == Some(&user.to_string());
            if child || of_user {
                let name = field("Name:");
                count(format!("process {name}"));
                count(format!("threads of {name}: {}", field("Threads:")));
                for namespace in ["mnt", "net", "ipc", "uts", "pid"] {
                    if let Ok(link) = fs::read_link(folder.join("ns").join(namespace)) {
                        count(format!("namespace {}", link.display()));
                    }
                }
            }
            // Of whatever process: memory of guests, which has no other name, and the kernel's threads that carry packets
            // for one.
            let maps = fs::read_to_string(folder.join("maps")).unwrap_or_default();
            if maps.contains("memfd:guest-memory") {
                count(format!("guest memory in {}", field("Name:")));
            }
            if field("Name:").starts_with("vhost-") {
                count("thread of vhost-net".to_owned());
            }
        }
        Self(all)
    }

    /// Waits until there is what was there before.
    pub fn expect(self, user: u32) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Self::take(user);
            if now == self {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "something is left:\nbefore {:#?}\nafter {:#?}",
                self.0,
                now.0
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}
