//! What is taken, what is refused, and what becomes of paths.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use proptest::prelude::*;
use sandbox_share::EntryKind;
use serde_json::{Value, json};

use super::{Rootfs, SpecError, check, load, rewrite};
use crate::id::ContainerId;

fn bundle() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("rootfs")).unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    folder
}

fn sample() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": { "user": { "uid": 0, "gid": 0 }, "args": ["sh"], "cwd": "/" },
        "root": { "path": "rootfs" },
        "mounts": [],
        "linux": { "namespaces": [
            { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
        ] },
    })
}

fn with(pointer: &str, value: Value) -> Value {
    let mut spec = sample();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    spec.pointer_mut(parent).unwrap()[name] = value;
    spec
}

fn checked(spec: &Value, bundle: &Path) -> Result<(), SpecError> {
    check(
        &serde_json::from_value::<Spec>(spec.clone()).unwrap(),
        bundle,
    )
}

#[test]
fn an_ordinary_spec_is_taken() {
    checked(&sample(), bundle().path()).unwrap();
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let folder = bundle();
    let fifo = folder.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let bind = |source: &str| json!([{ "destination": "/x", "type": "bind", "source": source, "options": ["bind"] }]);
    for (pointer, value, named) in [
        ("/ociVersion", json!("3.0.0"), "ociVersion"),
        ("/ociVersion", json!("one"), "ociVersion"),
        ("/process", Value::Null, "process"),
        ("/process/args", json!([]), "args"),
        ("/process/cwd", json!("tmp"), "cwd"),
        ("/process/apparmorProfile", json!("my-nginx"), "my-nginx"),
        (
            "/process/rlimits",
            json!([{ "type": "RLIMIT_CORE", "soft": 2, "hard": 1 }]),
            "rlimits",
        ),
        ("/process/env", json!(["A"]), "\"A\""),
        ("/process/env", json!(["=x"]), "\"=x\""),
        ("/hostname", json!("h".repeat(65)), "hostname"),
        ("/domainname", json!("d".repeat(65)), "domainname"),
        (
            "/linux/rootfsPropagation",
            json!("sideways"),
            "rootfsPropagation",
        ),
        (
            "/hooks",
            json!({ "poststop": [{ "path": "/bin/true" }, { "path": "bin/true" }] }),
            "hooks.poststop[1].path",
        ),
        (
            "/hooks",
            json!({ "prestart": [{ "path": "/bin/true", "timeout": 0 }] }),
            "hooks.prestart[0].timeout",
        ),
        ("/root", Value::Null, "root"),
        ("/root/path", json!("nowhere"), "nowhere"),
        (
            "/mounts",
            json!([{ "destination": "/x", "type": "ext4", "source": "/dev/sda" }]),
            "ext4",
        ),
        ("/mounts", bind("/nonexistent"), "/nonexistent"),
        ("/mounts", bind("/proc"), "/proc"),
        ("/mounts", bind("/sys/kernel"), "/sys"),
        ("/mounts", bind("/dev"), "/dev"),
        ("/mounts", bind("fifo"), "FIFO"),
        ("/linux", Value::Null, "linux"),
        (
            "/linux/namespaces",
            json!([{ "type": "pid" }, { "type": "mount" }]),
            "namespace",
        ),
        (
            "/linux/devices",
            json!([{ "path": "/dev/sda", "type": "b", "major": 8, "minor": 0 }]),
            "/dev/sda",
        ),
        ("/linux/mountLabel", json!("system_u:x"), "mountLabel"),
        (
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_NOTIFY" }),
            "NOTIFY",
        ),
        ("/linux/intelRdt", json!({ "closID": "x" }), "intelRdt"),
        ("/windows", json!({ "layerFolders": [] }), "windows"),
        (
            "/hooks",
            json!({ "createContainer": [{ "path": "/bin/true" }] }),
            "createContainer",
        ),
    ] {
        let error = match serde_json::from_value::<Spec>(with(pointer, value)) {
            Ok(spec) => check(&spec, folder.path()).expect_err(pointer).to_string(),
            // Some are wrong as types already, which loading tells.
            Err(error) => error.to_string(),
        };
        assert!(error.contains(named), "{pointer}: {error}");
    }
}

#[test]
fn the_hosts_network_is_refused() {
    let mut spec = sample();
    spec["linux"]["namespaces"][1]["path"] = json!("/proc/self/ns/net");
    let error = checked(&spec, bundle().path()).unwrap_err().to_string();
    assert!(
        error.contains("--network host") && error.contains("bridge"),
        "{error}"
    );
    spec["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .remove(1);
    let error = checked(&spec, bundle().path()).unwrap_err().to_string();
    assert!(error.contains("--network host"), "{error}");
    for none in ["/nonexistent", "/proc/self/ns/uts", "/dev/null"] {
        let mut spec = sample();
        spec["linux"]["namespaces"][1]["path"] = json!(none);
        let error = checked(&spec, bundle().path()).unwrap_err().to_string();
        assert!(error.contains(none), "{error}");
    }
}

#[test]
fn limits_that_the_guest_cannot_keep_are_refused() {
    let device = json!([{ "major": 8, "minor": 0, "rate": 1_048_576 }]);
    for (resources, named) in [
        (
            json!({ "memory": { "disableOOMKiller": true } }),
            "disableOOMKiller",
        ),
        (
            json!({ "cpu": { "realtimeRuntime": 1000, "realtimePeriod": 10_000 } }),
            "realtimeRuntime",
        ),
        (
            json!({ "rdma": { "mlx5_1": { "hcaHandles": 3 } } }),
            "resources.rdma",
        ),
        (json!({ "network": { "classID": 5 } }), "resources.network"),
        (
            json!({ "network": { "priorities": [{ "name": "lo", "priority": 5 }] } }),
            "resources.network",
        ),
        (json!({ "unified": { "../memory.max": "1" } }), "no slashes"),
        (json!({ "blockIO": { "leafWeight": 10 } }), "leafWeight"),
        (
            json!({ "blockIO": { "throttleReadBpsDevice": device } }),
            "throttleReadBpsDevice",
        ),
        (
            json!({ "blockIO": { "throttleWriteIOPSDevice": device } }),
            "throttleWriteIOPSDevice",
        ),
    ] {
        let spec = with("/linux/resources", resources);
        let error = checked(&spec, bundle().path()).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    // As engines fill what nobody named.
    let kept = json!({
        "memory": { "disableOOMKiller": false }, "blockIO": { "weight": 300, "leafWeight": 0, "throttleReadBpsDevice": [] },
        "cpu": { "realtimeRuntime": 0, "realtimePeriod": 0 }, "network": { "classID": 0, "priorities": [] }, "rdma": {},
        "unified": { "memory.high": "1000000" },
    });
    checked(&with("/linux/resources", kept), bundle().path()).unwrap();
}

#[test]
fn a_privileged_container_gets_the_devices_of_its_machine() {
    let folder = bundle();
    let devices = json!([
        { "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229 },
        { "path": "/dev/sda", "type": "b", "major": 8, "minor": 0 },
        { "path": "/dev/kvm", "type": "c", "major": 10, "minor": 232 },
    ]);
    let mut spec = with("/linux/devices", devices);
    spec["linux"]["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    let error = checked(&spec, folder.path()).unwrap_err().to_string();
    assert!(error.contains("/dev/sda"), "{error}");
    spec["linux"]["resources"] = json!({ "devices": [{ "allow": true, "access": "rwm" }] });
    checked(&spec, folder.path()).unwrap();
    let spec: Spec = serde_json::from_value(spec).unwrap();
    let id = ContainerId::new("c1").unwrap();
    let guest = rewrite(&id, &spec, folder.path(), &Rootfs::Bundle).unwrap();
    let devices = guest
        .spec
        .linux()
        .as_ref()
        .unwrap()
        .devices()
        .clone()
        .unwrap();
    let paths: Vec<_> = devices
        .iter()
        .map(|device| device.path().as_path())
        .collect();
    assert_eq!(paths, [Path::new("/dev/fuse")]);
}

#[test]
fn paths_become_those_of_the_guest() {
    let folder = bundle();
    let mut spec = with(
        "/mounts",
        json!([
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/d", "type": "bind", "source": "data", "options": ["rbind", "ro"] },
            { "destination": "/n", "type": "none", "source": "/dev/null", "options": ["bind"] },
        ]),
    );
    spec["hooks"] = json!({
        "poststop": [{ "path": "/bin/true" }], "startContainer": [{ "path": "/bin/true" }],
    });
    let spec: Spec = serde_json::from_value(spec).unwrap();
    let id = ContainerId::new("c1").unwrap();
    let guest = rewrite(&id, &spec, folder.path(), &Rootfs::Bundle).unwrap();
    let paths: Vec<_> = guest
        .entries
        .iter()
        .map(|entry| entry.path.to_str().unwrap())
        .collect();
    assert_eq!(paths, ["c1/rootfs", "c1/mounts/1"]);
    let data = std::fs::canonicalize(folder.path().join("data")).unwrap();
    assert_eq!(
        guest.entries[1].kind,
        EntryKind::Bind {
            source: data,
            readonly: true,
            recursive: true
        }
    );
    assert_eq!(
        guest.spec.root().as_ref().unwrap().path(),
        Path::new("/run/cofferdam/share/c1/rootfs")
    );
    let mounts = guest.spec.mounts().as_ref().unwrap();
    assert_eq!(mounts[0].source(), &Some(PathBuf::from("proc")));
    assert_eq!(
        mounts[1].source(),
        &Some(PathBuf::from("/run/cofferdam/share/c1/mounts/1"))
    );
    assert_eq!(mounts[2].source(), &Some(PathBuf::from("/dev/null")));
    let hooks = guest.spec.hooks().as_ref().unwrap();
    assert!(hooks.poststop().is_none() && hooks.start_container().is_some());
    let linux = serde_json::to_string(guest.spec.linux()).unwrap();
    assert!(
        !linux.contains("network") && linux.contains("/c1"),
        "{linux}"
    );
}

fn rewritten(spec: &Value) -> Spec {
    let folder = bundle();
    checked(spec, folder.path()).unwrap();
    let spec: Spec = serde_json::from_value(spec.clone()).unwrap();
    let id = ContainerId::new("c1").unwrap();
    rewrite(&id, &spec, folder.path(), &Rootfs::Bundle)
        .unwrap()
        .spec
}

#[test]
fn mounts_spread_as_far_as_the_machine() {
    // As containerd says it for Kubernetes' HostToContainer.
    for (given, inside) in [
        ("rslave", Some("slave")),
        ("rprivate", Some("private")),
        ("shared", Some("shared")),
        ("runbindable", Some("unbindable")),
        ("", None),
    ] {
        let spec = rewritten(&with("/linux/rootfsPropagation", json!(given)));
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.rootfs_propagation().as_deref(), inside, "{given}");
    }
    let volume = json!([{ "destination": "/x", "type": "bind", "source": "data", "options": ["rbind", "rshared"] }]);
    let error = checked(&with("/mounts", volume), bundle().path()).unwrap_err();
    assert!(error.to_string().contains("rshared"), "{error}");
}

#[test]
fn no_processes_at_all_are_no_limit() {
    for (limit, is_kept) in [(0, false), (-1, true), (5, true)] {
        let spec = rewritten(&with(
            "/linux/resources",
            json!({ "pids": { "limit": limit } }),
        ));
        let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
        assert_eq!(resources.pids().is_some(), is_kept, "{limit}");
    }
}

#[test]
fn capabilities_of_the_future_are_left_out() {
    let folder = bundle();
    let path = folder.path().join("config.json");
    let sets = |bounding: Value| with("/process/capabilities", json!({ "bounding": bounding }));
    std::fs::write(
        &path,
        sets(json!(["CAP_CHOWN", "CAP_NOT_INVENTED"])).to_string(),
    )
    .unwrap();
    let spec = load(folder.path()).unwrap();
    let sets_of = |spec: &Spec| {
        spec.process()
            .as_ref()
            .unwrap()
            .capabilities()
            .clone()
            .unwrap()
    };
    let known = sets_of(&spec).bounding().clone().unwrap();
    assert_eq!(known, [oci_spec::runtime::Capability::Chown].into());
    std::fs::write(&path, sets(json!([7])).to_string()).unwrap();
    let error = load(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("process.capabilities.bounding[0]"),
        "{error}"
    );
}

#[test]
fn a_malformed_file_names_the_field() {
    let folder = bundle();
    let path = folder.path().join("config.json");
    for (text, named) in [
        (with("/process/cwd", json!(7)).to_string(), "process.cwd"),
        (with("/mounts", json!({})).to_string(), "mounts"),
        ("{".to_owned(), "EOF"),
        (format!("{} x", sample()), "trailing"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = load(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains(named) && error.contains("config.json"),
            "{error}"
        );
    }
    std::fs::remove_file(&path).unwrap();
    assert!(
        load(folder.path())
            .unwrap_err()
            .to_string()
            .contains("config.json")
    );
}

proptest! {
    #[test]
    fn any_file_is_loaded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), bytes).unwrap();
        if let Ok(spec) = load(folder.path()) {
            let _refused = check(&spec, folder.path());
        }
    }
}
