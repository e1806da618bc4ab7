//! The host's control groups of a sandbox.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use harness::Cofferdam;
use sandbox::cgroup::own_folders;

use crate::machine::{boot, on_one_thread};

/// Groups of a process: its lines in `/proc`.
fn lines(pid: &str) -> BTreeSet<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("reads");
    table.lines().map(str::to_owned).collect()
}

#[test]
fn a_sandbox_has_groups_of_its_own_and_sweeps_those_of_killed_programs() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    // As a program leaves them that is killed.
    let left = own_folders("left").expect("names");
    assert!(!left.is_empty());
    for folder in &left {
        fs::create_dir(folder).expect("a group");
    }
    let own = lines("self");
    on_one_thread(async {
        let sandbox = boot(&cofferdam).await;
        assert_eq!(lines("self"), own);
        let mut groups = Vec::new();
        for pid in sandbox.processes() {
            let its: Vec<_> = lines(&pid.to_string()).difference(&own).cloned().collect();
            assert_eq!(its.len(), left.len(), "{its:?}");
            groups.push(its);
        }
        assert_eq!(groups.len(), 2, "VMM and file server");
        assert_eq!(groups[0], groups[1]);
        let folders: Vec<PathBuf> = groups[0]
            .iter()
            .map(|line| {
                let name = line.rsplit('/').next().expect("a name");
                assert!(
                    name.starts_with("pod-") && name.ends_with(".cofferdam"),
                    "{line}"
                );
                name.to_owned()
            })
            .flat_map(|name| left.iter().map(move |folder| folder.with_file_name(&name)))
            .collect();
        assert!(folders.iter().all(|folder| folder.exists()));
        // Not while somebody holds it.
        let other = boot(&cofferdam).await;
        assert!(folders.iter().all(|folder| folder.exists()));
        other.kill().await;
        sandbox.stop().await;
        assert!(!folders.iter().any(|folder| folder.exists()));
    });
    let stays: Vec<_> = left.iter().filter(|folder| folder.exists()).collect();
    assert!(stays.is_empty(), "{stays:?}");
}
