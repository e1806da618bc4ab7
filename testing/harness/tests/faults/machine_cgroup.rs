//! Control groups of a machine whose container names none on the host.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harness::{Cofferdam, VMM, finish, members, wait_until};
use serde_json::{Value, json};

use crate::bundle::{LIMIT, SLEEP, assert_refused, bundle, bundle_with, call, create, text};

/// Folders of the groups, as the state file names them.
fn folders(cofferdam: &Cofferdam, id: &str) -> Vec<PathBuf> {
    let file = fs::read(cofferdam.root().join(id).join("state.json")).unwrap_or_default();
    let state: Value = serde_json::from_slice(&file).unwrap_or_default();
    let named = state["machine_cgroups"].as_array().cloned();
    let text = |folder: &Value| folder.as_str().map(PathBuf::from);
    named.unwrap_or_default().iter().filter_map(text).collect()
}

/// Groups of a process: its lines in `/proc`.
fn lines(pid: &str) -> BTreeSet<String> {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("reads");
    table.lines().map(str::to_owned).collect()
}

/// A number from whichever of the groups has one of these files.
fn number(folders: &[PathBuf], names: [&str; 2]) -> u64 {
    let mut files = folders
        .iter()
        .flat_map(|folder| names.map(|name| folder.join(name)));
    let file = files.find(|file| file.exists());
    let file = file.unwrap_or_else(|| panic!("no {names:?} in {folders:?}"));
    let value = fs::read_to_string(&file).expect("reads");
    let number = value.trim().parse();
    number.unwrap_or_else(|_| panic!("{} is {value:?}", file.display()))
}

/// Whether nothing is left of the groups, and says what is.
fn assert_gone(folders: &[PathBuf], after: &str) {
    let left: Vec<_> = folders.iter().filter(|folder| folder.exists()).collect();
    assert!(left.is_empty(), "{after}: left {left:?}");
}

#[test]
fn a_machine_has_groups_of_its_own_which_go_whoever_was_killed() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    let own = lines("self");
    for victim in ["driver", "VMM", "file server", "all", "nobody"] {
        create(&cofferdam, &bundle, "own");
        cofferdam.ok(["start", "own"]);
        let actors = cofferdam.actors("own");
        let folders = folders(&cofferdam, "own");
        assert!(!folders.is_empty(), "no group is named");
        let mut helpers = actors.helpers.clone();
        helpers.sort_unstable();
        for folder in &folders {
            let name = folder.file_name().and_then(|name| name.to_str());
            let name = name.expect("a name");
            assert!(
                name.starts_with("own-") && name.ends_with(".cofferdam"),
                "{name}"
            );
            assert_eq!(members(folder), helpers, "{}", folder.display());
        }
        // As many hierarchies as the host has; who started it all has not moved, and neither have driver and proxy.
        let moved = |pid: i32| lines(&pid.to_string()).difference(&own).count();
        for helper in &helpers {
            assert_eq!(moved(*helper), folders.len());
        }
        assert_eq!((moved(actors.driver), moved(actors.proxy)), (0, 0));
        assert_eq!(lines("self"), own);
        assert_eq!(number(&folders, ["pids.max"; 2]), 1024);
        assert!(number(&folders, ["pids.current"; 2]) > 2, "threads count");
        let memory = number(&folders, ["memory.current", "memory.usage_in_bytes"]);
        assert!(memory > 8 << 20, "{memory} bytes");
        match victim {
            "driver" => cofferdam.kill9(actors.driver),
            "VMM" => cofferdam.kill9(actors.helper(VMM).expect("a VMM")),
            "file server" => cofferdam.kill9(actors.helper("cofferdam-fs").expect("a server")),
            "all" => actors.all().into_iter().for_each(|pid| {
                let _gone = Command::new("kill")
                    .args(["-9", &pid.to_string()])
                    .stderr(Stdio::null())
                    .status();
            }),
            _ => {
                cofferdam.ok(["kill", "own", "KILL"]);
            }
        }
        cofferdam.wait_for_status("own", "stopped");
        cofferdam.ok(["delete", "own"]);
        assert_gone(&folders, victim);
        cofferdam.assert_nothing_left();
    }
}

#[test]
fn groups_of_a_machine_that_is_not_finished_go_too() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    // The command and the driver, as soon as the groups are there.
    let mut creates = cofferdam.command(["create", "--bundle", text(&bundle), "half"]);
    creates.stdin(Stdio::null()).stdout(Stdio::null());
    let mut creates = creates.stderr(Stdio::null()).spawn().expect("starts");
    let came = wait_until(LIMIT, || {
        let folders = folders(&cofferdam, "half");
        !folders.is_empty() && folders.iter().all(|folder| folder.exists())
    });
    let made = folders(&cofferdam, "half");
    creates.kill().expect("kills");
    creates.wait().expect("reaps");
    assert!(came, "{made:?} never came");
    cofferdam.ok(["delete", "--force", "half"]);
    assert_gone(&made, "killed half way");
    cofferdam.assert_nothing_left();
    // One that fails by itself.
    let args = [
        "create",
        "--bundle",
        text(&bundle),
        "--pid-file",
        "/nonexistent/pid",
        "half",
    ];
    assert_refused(&cofferdam, &call(&cofferdam, &args), &["pid file"]);
    cofferdam.assert_nothing_left();
}

#[test]
fn groups_of_a_pod_go_with_its_last_container() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let first = bundle(&cofferdam, "first", &SLEEP);
    create(&cofferdam, &first, "first");
    let folders_of_pod = folders(&cofferdam, "first");
    let proxy = cofferdam.actors("first").proxy;
    let joins = bundle_with(&cofferdam, "second", &SLEEP, |config| {
        config["annotations"] = json!({
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-id": "first",
        });
        let shared = |kind: &str, name: &str| json!({ "type": kind, "path": format!("/proc/{proxy}/ns/{name}") });
        config["linux"]["namespaces"] = json!([
            { "type": "pid" },
            { "type": "mount" },
            shared("ipc", "ipc"),
            shared("uts", "uts"),
            shared("network", "net"),
        ]);
        let config = config.as_object_mut().expect("an object");
        config.remove("hostname");
    });
    create(&cofferdam, &joins, "second");
    assert_eq!(folders(&cofferdam, "second"), folders_of_pod);
    cofferdam.ok(["delete", "--force", "first"]);
    assert!(folders_of_pod.iter().all(|folder| folder.exists()));
    // It has to be this container's delete that removes them: the driver is not asked.
    cofferdam.kill9(cofferdam.actors("second").driver);
    cofferdam.wait_for_status("second", "stopped");
    cofferdam.ok(["delete", "second"]);
    assert_gone(&folders_of_pod, "with the last container");
    cofferdam.assert_nothing_left();
}

#[test]
fn a_host_whose_groups_cannot_be_made_is_an_error() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = bundle(&cofferdam, "b", &SLEEP);
    let read_only = "mount -o remount,bind,ro";
    for (change, words) in [
        (read_only, ["cannot be made", "read-only"]),
        ("umount -l", ["no control groups are mounted", "mount them"]),
    ] {
        let script = format!(
            "awk '$3 ~ /^cgroup2?$/ {{ print $2 }}' /proc/mounts | while read point; do {change} $point || exit 9; done; exec \"$@\""
        );
        let create = cofferdam.command(["create", "--bundle", text(&bundle), "refused"]);
        let mut elsewhere = Command::new("unshare");
        elsewhere.args(["--mount", "sh", "-c", &script, "sh"]);
        elsewhere
            .arg(create.get_program())
            .args(create.get_args())
            .envs(
                create
                    .get_envs()
                    .filter_map(|(key, value)| Some((key, value?))),
            )
            .current_dir(create.get_current_dir().unwrap_or(Path::new("/")))
            .process_group(0);
        let done = finish(&mut elsewhere, LIMIT);
        assert_refused(&cofferdam, &done, &words);
        assert_eq!(cofferdam.status("refused"), None);
        cofferdam.assert_nothing_left();
    }
}
