//! What the host accounts to a task, and which processes it would rather kill.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::{VMM, descendant, finish, image, members, wait_until};

use super::engine::{Containerd, Runtime, shims};

const LIMIT: Duration = Duration::from_secs(120);

/// A task's pid as `ctr` shows it.
fn pid(containerd: &Containerd, task: &str) -> i32 {
    let list = containerd.ok(&["tasks", "list"]);
    let line = list
        .lines()
        .find(|line| line.split_whitespace().next() == Some(task))
        .expect("the task");
    let pid = line.split_whitespace().nth(1).expect("a pid");
    pid.parse().expect("a pid")
}

/// The group of a process that accounts for memory.
fn group(pid: i32) -> PathBuf {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("reads");
    let mounts = Path::new("/sys/fs/cgroup");
    let find = |names: &str| {
        let lines = table.lines();
        lines
            .filter_map(|line| line.split_once(':')?.1.split_once(':'))
            .find(|(found, _)| *found == names)
            .map(|(_, path)| path.trim_start_matches('/').to_owned())
    };
    match find("memory") {
        Some(path) => mounts.join("memory").join(path),
        None => mounts.join(find("").expect("a group")),
    }
}

fn score(pid: i32) -> i32 {
    let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("reads");
    text.trim().parse().expect("a number")
}

/// A task in the background; answers its group.
fn start(containerd: &Containerd, task: &str) -> PathBuf {
    containerd.ok(&[
        "run",
        "--detach",
        &containerd.busybox,
        task,
        "sleep",
        "1000",
    ]);
    let group = group(pid(containerd, task));
    assert!(group.ends_with(task), "{}", group.display());
    group
}

#[test]
fn a_machine_is_in_the_groups_of_its_task_and_they_go_with_it() {
    shims(|containerd| {
        let group = start(containerd, "g");
        let shim = containerd.processes(containerd.runtime.shim())[0];
        if containerd.runtime == Runtime::Shim {
            let mut helpers = [VMM, "cofferdam-fs"]
                .map(|name| descendant(shim, name).expect("VMM and file server"));
            helpers.sort_unstable();
            assert_eq!(members(&group), helpers);
        }
        // The shim is where its engine is, and goes before it.
        assert_ne!(self::group(shim), group);
        let own = score(std::process::id().cast_signed());
        assert_eq!(score(shim), (own + 1).min(1000));
        containerd.ok(&["tasks", "kill", "--signal", "KILL", "g"]);
        containerd.expect_status("g", "STOPPED");
        let _code_of_the_task = containerd.ctr(&["tasks", "delete", "g"]);
        containerd.ok(&["containers", "delete", "g"]);
        assert!(!group.exists(), "{} is left", group.display());
    });
}

#[test]
fn groups_of_a_killed_shim_go_with_its_task() {
    shims(|containerd| {
        let group = start(containerd, "h");
        let shim = containerd.processes(containerd.runtime.shim())[0];
        containerd.kill9(shim);
        assert!(wait_until(LIMIT, || containerd.status("h").is_none()));
        // containerd may still be clearing up.
        let delete = || containerd.ctr(&["containers", "delete", "h"]).code == 0;
        assert!(wait_until(LIMIT, delete), "it cannot be deleted");
        let gone = wait_until(LIMIT, || !group.exists());
        assert!(gone, "{} is left", group.display());
        // With runc, that is what clears up the rest.
        let mut done = None;
        let runs = wait_until(LIMIT, || {
            let run = containerd.ctr(&["run", "--rm", &containerd.busybox, "h", "true"]);
            let runs = run.code == 0;
            done = Some(run);
            runs
        });
        assert!(runs, "{done:?}");
    });
}

#[test]
fn a_machine_without_a_path_has_groups_of_its_own() {
    shims(|containerd| {
        // What ctr would ask for, without the path that it makes up.
        let spec = finish(
            Command::new("ctr").args(["oci", "spec"]),
            Duration::from_secs(30),
        );
        let mut spec: serde_json::Value = serde_json::from_str(&spec.stdout).expect("a spec");
        let linux = spec["linux"].as_object_mut().expect("an object");
        linux.remove("cgroupsPath");
        spec["process"]["args"] = serde_json::json!(["/bin/sleep", "1000"]);
        spec["process"]["terminal"] = false.into();
        let rootfs = containerd.folder().join("rootfs");
        fs::create_dir_all(&rootfs).expect("mkdir");
        let unpacked = Command::new("tar")
            .arg("-xf")
            .arg(image("busybox.rootfs.tar").expect("the image"))
            .arg("-C")
            .arg(&rootfs)
            .status();
        assert!(unpacked.expect("tar runs").success());
        spec["root"]["path"] = rootfs.to_str().expect("text").into();
        let config = containerd.folder().join("config.json");
        fs::write(&config, spec.to_string()).expect("writes");
        let config = config.to_str().expect("text");
        containerd.ok(&["run", "--detach", "--config", config, "w"]);
        let group = group(pid(containerd, "w"));
        let name = group.file_name().and_then(|name| name.to_str());
        let name = name.expect("a name").to_owned();
        assert!(name.starts_with('w'), "{name}");
        let shim = containerd.processes(containerd.runtime.shim())[0];
        assert_ne!(self::group(shim), group);
        if containerd.runtime == Runtime::Shim {
            let mut helpers = [VMM, "cofferdam-fs"]
                .map(|name| descendant(shim, name).expect("VMM and file server"));
            helpers.sort_unstable();
            assert_eq!(members(&group), helpers);
        }
        containerd.ok(&["tasks", "kill", "--signal", "KILL", "w"]);
        containerd.expect_status("w", "STOPPED");
        let _code_of_the_task = containerd.ctr(&["tasks", "delete", "w"]);
        containerd.ok(&["containers", "delete", "w"]);
        assert!(!group.exists(), "{} is left", group.display());
    });
}
