//! Limits that change while a container runs, and what its machine makes of that. Where the machine keeps its size, limits
//! change all the same.

use std::fs;

use harness::{Cofferdam, image, wait_until};
use serde_json::json;

use crate::LIMIT;

const MIB: u64 = 1 << 20;

/// What the tests configure beside the defaults: every figure below follows from these.
const CONFIG: &str =
    "default_memory_mib = 256\nmemory_overhead_mib = 128\ndefault_vcpus = 1\nspare_vcpus = 2\n";

/// Whether machines change their size: those of our own monitor do.
fn grows() -> bool {
    std::env::var_os("COFFERDAM_TEST_ACCELERATOR").is_some_and(|name| name == "kvm")
}

fn inside(cofferdam: &Cofferdam, id: &str, script: &str) -> String {
    let said = cofferdam.ok(["exec", id, "sh", "-c", script]);
    said.trim().to_owned()
}

fn number(cofferdam: &Cofferdam, id: &str, script: &str) -> u64 {
    let said = inside(cofferdam, id, script);
    said.parse()
        .unwrap_or_else(|_| panic!("{script} says {said:?}"))
}

/// MiB of memory and processors that the guest has.
fn size(cofferdam: &Cofferdam, id: &str) -> (u64, u64) {
    let kibibytes = number(
        cofferdam,
        id,
        "set -- $(grep MemTotal /proc/meminfo); echo $2",
    );
    (kibibytes / 1024, number(cofferdam, id, "nproc"))
}

#[test]
fn a_machine_follows_the_limits_of_its_container() {
    let Some(cofferdam) = Cofferdam::with_config(CONFIG) else {
        return;
    };
    let busybox = cofferdam.busybox();
    let volume = cofferdam.folder().join("volume");
    fs::create_dir(&volume).expect("a folder");
    let content: Vec<u8> = (0..4_u32 << 20)
        .flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    fs::write(volume.join("one"), &content).expect("a file");
    let mount = format!("{}:/v", volume.display());
    cofferdam.ok([
        "run", "-d", "--name", "c", "-v", &mount, busybox, "sleep", "100000",
    ]);
    let (boot, _) = size(&cofferdam, "c");
    let update = |memory: u64, quota: &str| {
        let memory = (memory * MIB).to_string();
        cofferdam.ok(["update", "--memory", &memory, "--cpu-quota", quota, "c"]);
    };
    let limit = || number(&cofferdam, "c", "cat /sys/fs/cgroup/memory.max") / MIB;

    update(512, "300000");
    assert_eq!(limit(), 512);
    // The limit and the guest's own share, less what was there.
    let large = if grows() {
        (boot + 512 + 128 - 256, 3)
    } else {
        (boot, 1)
    };
    assert_eq!(size(&cofferdam, "c"), large);
    if grows() {
        // More than there was, filled by the processors, and by the file server.
        inside(
            &cofferdam,
            "c",
            "dd if=/dev/zero of=/dev/null bs=350M count=1",
        );
        inside(&cofferdam, "c", "cat /v/one >/v/two && sync");
        let copy = fs::read(volume.join("two")).expect("a copy");
        assert!(copy == content, "{} bytes of the copy differ", copy.len());
    }

    // What it booted with is the least that it has.
    update(64, "50000");
    assert_eq!(limit(), 64);
    let small = wait_until(LIMIT, || size(&cofferdam, "c") == (boot, 1));
    assert!(small, "{:?} instead of {boot} MiB", size(&cofferdam, "c"));

    cofferdam.ok(["delete", "--force", "c"]);
    cofferdam.assert_nothing_left();
}

#[test]
fn a_limit_may_be_above_what_a_machine_can_become() {
    if !grows() {
        eprintln!("skipped: machines keep their size without our own monitor");
        return;
    }
    let config = "default_vcpus = 1\nspare_memory_mib = 200\nspare_vcpus = 0\n";
    let Some(cofferdam) = Cofferdam::with_config(config) else {
        return;
    };
    let busybox = cofferdam.busybox();
    cofferdam.ok(["run", "-d", "--name", "c", busybox, "sleep", "100000"]);
    let (boot, _) = size(&cofferdam, "c");
    let much = (1_u64 << 40).to_string();
    cofferdam.ok(["update", "--memory", &much, "--cpu-quota", "900000", "c"]);
    assert_eq!(size(&cofferdam, "c"), (boot + 128, 1));
    cofferdam.ok(["delete", "--force", "c"]);
    cofferdam.assert_nothing_left();
}

/// Also those that came when it ran already.
#[test]
fn a_container_keeps_to_its_processors() {
    let Some(cofferdam) = Cofferdam::with_config(CONFIG) else {
        return;
    };
    cofferdam.ok([
        "run",
        "-d",
        "--name",
        "c",
        cofferdam.busybox(),
        "sleep",
        "100000",
    ]);
    cofferdam.ok(["update", "--cpuset-cpus", "0", "c"]);
    cofferdam.ok(["update", "--cpu-quota", "300000", "c"]);
    let online = inside(&cofferdam, "c", "cat /sys/devices/system/cpu/online");
    assert_eq!(online, if grows() { "0-2" } else { "0" });
    let allowed = "grep -h Cpus_allowed_list /proc/1/status /proc/self/status";
    let only = "Cpus_allowed_list:\t0";
    assert_eq!(
        inside(&cofferdam, "c", allowed),
        [only, only].join("\n"),
        "of the first process and of another"
    );
    assert_eq!(inside(&cofferdam, "c", "nproc"), "1");
    cofferdam.ok(["delete", "--force", "c"]);
    cofferdam.assert_nothing_left();
}

#[test]
fn a_machine_follows_the_containers_that_join_it() {
    let Some(cofferdam) = Cofferdam::with_config(CONFIG) else {
        return;
    };
    let bundle = |name: &str, more: serde_json::Value| {
        let folder = cofferdam.folder().join(name);
        let rootfs = folder.join("rootfs");
        fs::create_dir_all(&rootfs).expect("a folder");
        let unpacked = std::process::Command::new("tar")
            .arg("-xf")
            .arg(image("busybox.rootfs.tar").expect("the image"))
            .arg("-C")
            .arg(&rootfs)
            .status();
        assert!(unpacked.expect("tar runs").success());
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": { "args": ["sleep", "100000"], "env": ["PATH=/bin:/sbin"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
            "root": { "path": "rootfs" },
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
            "linux": { "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, { "type": "network" }] },
        });
        for (key, value) in more.as_object().expect("an object") {
            match value.as_object() {
                Some(inner) if key == "linux" => {
                    for (key, value) in inner {
                        config["linux"][key] = value.clone();
                    }
                }
                _ => config[key] = value.clone(),
            }
        }
        fs::write(folder.join("config.json"), config.to_string()).expect("a configuration");
        let path = folder.to_str().expect("a path").to_owned();
        // The container has what the command has.
        let nothing = std::process::Stdio::null;
        let created = cofferdam
            .command(["create", "--bundle", &path, name])
            .stdin(nothing())
            .stdout(nothing())
            .stderr(nothing())
            .status();
        assert!(created.expect("starts").success(), "{}", cofferdam.log());
        cofferdam.ok(["start", name]);
    };
    bundle("s", json!({}));
    let (boot, _) = size(&cofferdam, "s");
    let process = cofferdam.actors("s").proxy;
    let shared = |kind: &str, name: &str| json!({ "type": kind, "path": format!("/proc/{process}/ns/{name}") });
    bundle(
        "c",
        json!({
            "annotations": { "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "s" },
            "linux": {
                "resources": { "memory": { "limit": 300 * MIB }, "cpu": { "quota": 150_000, "period": 100_000 } },
                "namespaces": [{ "type": "pid" }, { "type": "mount" }, shared("ipc", "ipc"), shared("uts", "uts"), shared("network", "net")],
            },
        }),
    );
    let large = if grows() {
        (boot + 300 + 128 - 256, 2)
    } else {
        (boot, 1)
    };
    assert_eq!(size(&cofferdam, "s"), large);
    assert_eq!(size(&cofferdam, "c"), large);
    cofferdam.ok(["delete", "--force", "c"]);
    let small = wait_until(LIMIT, || size(&cofferdam, "s") == (boot, 1));
    assert!(small, "{:?} instead of {boot} MiB", size(&cofferdam, "s"));
    cofferdam.ok(["delete", "--force", "s"]);
    cofferdam.assert_nothing_left();
}
