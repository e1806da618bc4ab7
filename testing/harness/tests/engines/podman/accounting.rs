//! What the host accounts to a container.

use std::fs;
use std::path::{Path, PathBuf};

use harness::members;

use super::engine::{Podman, both};
use crate::runtime::Kind;

/// The groups of a container's process, one for each hierarchy that podman reads.
fn groups(podman: &Podman, name: &str) -> Vec<PathBuf> {
    let pid = podman.inspect(name, ".State.Pid");
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("reads");
    let mounts = Path::new("/sys/fs/cgroup");
    let found: Vec<_> = table
        .lines()
        .filter_map(|line| {
            let (names, path) = line.split_once(':')?.1.split_once(':')?;
            let path = path.trim_start_matches('/');
            let folder = match names {
                "" if mounts.join("cgroup.controllers").exists() => mounts.join(path),
                "memory" | "cpuacct" | "pids" | "blkio" => mounts.join(names).join(path),
                _ => return None,
            };
            Some(folder)
        })
        .collect();
    assert!(!found.is_empty(), "{table}");
    found
}

#[test]
fn everything_behind_a_container_is_in_its_groups_and_they_go_with_it() {
    both(|podman| {
        podman.ok(&[
            "run", "-d", "--name", "c", "--memory", "64m", "busybox", "sleep", "1000",
        ]);
        let id = podman.inspect("c", ".Id");
        let groups = groups(podman, "c");
        for group in &groups {
            assert!(
                group.ends_with(format!("libpod-{id}")),
                "{}",
                group.display()
            );
            let inside = members(group);
            if podman.kind == Kind::Cofferdam {
                let mut all = podman.actors("c").all();
                all.sort_unstable();
                assert_eq!(inside, all, "{}", group.display());
                for limit in ["memory.limit_in_bytes", "memory.max"].map(|name| group.join(name)) {
                    if !limit.exists() {
                        continue;
                    }
                    let limit = fs::read_to_string(limit).expect("reads");
                    // The guest's 256 MiB and 256 for what runs it; 1 GiB more when that is an emulator.
                    let limits = [512u64 << 20, 1536 << 20].map(|bytes| bytes.to_string());
                    assert!(limits.contains(&limit.trim().to_owned()), "{limit}");
                }
            }
            assert!(!inside.is_empty());
        }
        let stats = podman.ok(&[
            "stats",
            "--no-stream",
            "--format",
            "{{.PIDs}} {{.MemUsageBytes}}",
            "c",
        ]);
        let seen = !stats.starts_with("0 ") && !stats.contains(" 0B /");
        podman.ok(&["rm", "--force", "--time", "0", "c"]);
        for group in &groups {
            assert!(!group.exists(), "{} is left", group.display());
        }
        assert!(seen, "{stats}");
        groups.len()
    });
}
