//! What is to be seen of a container on the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Verdict, observed};
use crate::docker::Docker;
use crate::runtime::Runtime;

pub fn network_behind_the_pid(docker: &Docker) -> Verdict {
    let network = docker.name("network");
    // No subnet of the machine's own is near.
    let subnet = match docker.runtime {
        Runtime::Runc => "10.213.7.0/28",
        _ => "10.213.7.16/28",
    };
    docker.ok(&[
        "network",
        "create",
        "--internal",
        "--subnet",
        subnet,
        &network,
    ]);
    let name = docker.background(&["--network", &network], &["sleep", "1000"]);
    let pid = docker.inspect(&name, ".State.Pid");
    let behind = Command::new("/usr/bin/nsenter")
        .args(["--target", &pid, "--net", "--"])
        .args(["ip", "-4", "-o", "addr", "show", "eth0"])
        .output()
        .expect("nsenter starts");
    let field = format!("(index .NetworkSettings.Networks {network:?}).IPAddress");
    let address = docker.inspect(&name, &field);
    let text = String::from_utf8_lossy(&behind.stdout).into_owned();
    let is_there = text.contains(&format!(" {address}/"));
    let inside = docker.ok(&["exec", &name, "ip", "-4", "-o", "addr", "show", "eth0"]);
    assert!(
        inside.contains(&format!(" {address}/")),
        "{address}: {inside}"
    );
    docker.ok(&["rm", "--force", &name]);
    docker.ok(&["network", "rm", &network]);
    observed(is_there)
}

pub fn control_groups_behind_the_pid(docker: &Docker) -> Verdict {
    let parent = docker.name("parent");
    let options = ["--cgroup-parent", &format!("/{parent}"), "--memory", "64m"];
    let name = docker.background(&options, &["sleep", "1000"]);
    let pid = docker.inspect(&name, ".State.Pid");
    let id = docker.inspect(&name, ".Id");
    let groups = groups(&pid);
    let expected = Path::new(&parent).join(&id);
    assert!(
        !groups.is_empty() && groups.iter().all(|group| group.ends_with(&expected)),
        "{groups:?}"
    );
    // The runtime's own processes are there too: what a container costs is accounted to it.
    let inside = fs::read_to_string(groups[0].join("cgroup.procs")).expect("reads");
    assert!(inside.lines().any(|inside| inside == pid), "{inside}");
    docker.ok(&["rm", "--force", &name]);
    let left: Vec<_> = groups.iter().filter(|group| group.exists()).collect();
    let none_left = left.is_empty();
    for group in &groups {
        // The engine leaves the parent.
        let _removed = group.parent().map(fs::remove_dir);
    }
    assert!(none_left, "left with {:?}", docker.runtime);
    observed(groups.len())
}

pub fn oom_score_behind_the_pid(docker: &Docker) -> Verdict {
    let name = docker.background(&["--oom-score-adj", "300"], &["sleep", "1000"]);
    let pid = docker.inspect(&name, ".State.Pid");
    let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("reads");
    assert_eq!(score, "300\n");
    observed(score)
}

/// The groups of a process, one for each hierarchy that Docker reads.
fn groups(pid: &str) -> Vec<PathBuf> {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("reads");
    let mounts = Path::new("/sys/fs/cgroup");
    table
        .lines()
        .filter_map(|line| {
            let (names, path) = line.split_once(':')?.1.split_once(':')?;
            let path = path.trim_start_matches('/');
            match names {
                "" if mounts.join("cgroup.controllers").exists() => Some(mounts.join(path)),
                "memory" | "pids" | "blkio" => Some(mounts.join(names).join(path)),
                _ => None,
            }
        })
        .collect()
}
