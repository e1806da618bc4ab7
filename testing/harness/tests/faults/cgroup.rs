//! Control groups on the host that the spec names.

use std::fs;
use std::path::PathBuf;

use harness::{Cofferdam, wait_until};

use crate::bundle::{LIMIT, SLEEP, assert_refused, bundle_with, call, create, text};

/// Groups of this test's own, removed with it.
pub struct Groups(String);

impl Groups {
    pub fn new(test: &str) -> Self {
        Self(format!("cofferdam-test-{test}-{}", std::process::id()))
    }

    fn path(&self) -> String {
        format!("/{}/c", self.0)
    }

    /// Folders of this name in every hierarchy.
    pub fn folders(&self, name: &str) -> Vec<PathBuf> {
        let root = PathBuf::from("/sys/fs/cgroup");
        let mounts = fs::read_dir(&root).expect("lists").flatten();
        mounts
            .map(|entry| entry.path())
            .chain([root.clone()])
            .map(|mount| mount.join(&self.0).join(name))
            .filter(|folder| folder.exists())
            .collect()
    }

    pub fn bundle(&self, cofferdam: &Cofferdam, name: &str, args: &[&str]) -> PathBuf {
        bundle_with(cofferdam, name, args, |config| {
            config["linux"]["cgroupsPath"] = self.path().into();
        })
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for folder in self.folders("") {
            let _others = fs::remove_dir(folder);
        }
    }
}

#[test]
fn groups_go_whoever_was_killed() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let groups = Groups::new("killed");
    let bundle = groups.bundle(&cofferdam, "b", &SLEEP);
    for victim in ["driver", "proxy", "nobody"] {
        create(&cofferdam, &bundle, "c");
        cofferdam.ok(["start", "c"]);
        let actors = cofferdam.actors("c");
        let folders = groups.folders("c");
        assert!(!folders.is_empty(), "no group was made");
        for folder in &folders {
            let inside = fs::read_to_string(folder.join("cgroup.procs")).expect("reads");
            for pid in actors.all() {
                assert!(
                    inside.lines().any(|line| line == pid.to_string()),
                    "{pid} is not in {}",
                    folder.display()
                );
            }
        }
        let limits = folders.iter().map(|folder| folder.join("pids.max"));
        let limits: Vec<_> = limits
            .filter_map(|file| fs::read_to_string(file).ok())
            .collect();
        assert_eq!(limits, ["1024\n"], "of processes");
        match victim {
            "driver" => cofferdam.kill9(actors.driver),
            "proxy" => cofferdam.kill9(actors.proxy),
            _ => {
                cofferdam.ok(["kill", "c", "KILL"]);
            }
        }
        cofferdam.wait_for_status("c", "stopped");
        cofferdam.ok(["delete", "c"]);
        let left = groups.folders("c");
        assert!(left.is_empty(), "{victim}: left {left:?}");
        cofferdam.assert_nothing_left();
    }
}

#[test]
fn a_container_that_is_not_made_leaves_no_group() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let groups = Groups::new("failed");
    let missing = groups.bundle(&cofferdam, "b", &SLEEP);
    let args = [
        "create",
        "--bundle",
        text(&missing),
        "--pid-file",
        "/nonexistent/pid",
        "c",
    ];
    assert_refused(&cofferdam, &call(&cofferdam, &args), &["pid file"]);
    assert!(groups.folders("c").is_empty());
    for (path, word) in [
        ("/../c", "leads upwards"),
        ("/", "is the root"),
        ("a:b", "SLICE:PREFIX:NAME"),
    ] {
        let bundle = bundle_with(&cofferdam, "wrong", &SLEEP, |config| {
            config["linux"]["cgroupsPath"] = path.into();
        });
        let args = ["create", "--bundle", text(&bundle), "c"];
        assert_refused(
            &cofferdam,
            &call(&cofferdam, &args),
            &["linux.cgroupsPath", word],
        );
    }
}

#[test]
fn a_group_that_others_use_stays() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let groups = Groups::new("used");
    let bundle = groups.bundle(&cofferdam, "b", &SLEEP);
    create(&cofferdam, &bundle, "c");
    let folder = groups.folders("c").into_iter().next().expect("a group");
    let mut other = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .expect("starts");
    fs::write(folder.join("cgroup.procs"), other.id().to_string()).expect("joins");
    cofferdam.ok(["delete", "--force", "c"]);
    let stays = folder.exists();
    other.kill().expect("kills");
    other.wait().expect("reaps");
    assert!(wait_until(LIMIT, || fs::remove_dir(&folder).is_ok()));
    assert!(stays, "it was another's");
    assert!(groups.folders("c").is_empty());
    cofferdam.assert_nothing_left();
}

#[test]
fn the_foreground_command_is_not_moved() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let groups = Groups::new("run");
    let bundle = groups.bundle(&cofferdam, "b", &["true"]);
    let own = fs::read_to_string("/proc/self/cgroup").expect("reads");
    let run = cofferdam.start(["run", "--bundle", text(&bundle), "c"]);
    let came = wait_until(LIMIT, || !groups.folders("c").is_empty());
    assert!(came);
    if let Ok(its) = fs::read_to_string(format!("/proc/{}/cgroup", run.pid())) {
        assert_eq!(its, own);
    }
    assert_eq!(run.finish(LIMIT).code, 0);
    assert!(groups.folders("c").is_empty());
    cofferdam.assert_nothing_left();
}
