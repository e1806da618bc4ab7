//! Engines that connect a container between `create` and `start`, as Docker 28 does.

use std::fs;
use std::process::Command;
use std::time::Duration;

use harness::{Cofferdam, Namespaces, finish, image, start};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::LIMIT;

/// As many as there are cards for: three and one spare.
const INTERFACES: usize = 4;

/// On each interface: so many that the guest is not done with them by accident.
const ADDRESSES: usize = 60;

/// What the container does first, with nothing but its shell: it counts its addresses.
const COUNT: &str = "n=0; while read line; do case $line in *eth*) n=$((n+1));; esac; done < /proc/net/if_inet6; echo $n > /seen";

#[test]
fn what_comes_before_the_start_is_there_at_the_start() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let bundle = cofferdam.folder().join("bundle");
    let rootfs = bundle.join("rootfs");
    fs::create_dir_all(&rootfs).expect("a folder");
    let archive = image("busybox.rootfs.tar").expect("an image");
    let mut unpack = Command::new("tar");
    let unpacked = finish(unpack.arg("-xf").arg(archive).arg("-C").arg(&rootfs), LIMIT);
    assert_eq!(unpacked.code, 0, "{unpacked:?}");
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "args": ["sh", "-c", COUNT],
            "env": ["PATH=/bin:/sbin"],
            "cwd": "/",
            "user": { "uid": 0, "gid": 0 },
        },
        "root": { "path": "rootfs" },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": { "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, { "type": "network" }] },
    });
    fs::write(bundle.join("config.json"), config.to_string()).expect("a configuration");
    let mut create = cofferdam.command(["create", "--bundle"]);
    let log = fs::File::create(cofferdam.folder().join("create.log")).expect("a file");
    let errors = log.try_clone().expect("a file");
    create.arg(&bundle).arg("c").stdout(log).stderr(errors);
    let created = create.status().expect("create starts");
    assert!(created.success(), "{}", cofferdam.log());

    let actors = cofferdam.actors("c");
    let driver = Pid::from_raw(actors.driver).expect("a pid");
    let other_ends = Namespaces::new(&["b"]);
    // The start is asked for before the driver has looked at what has come.
    kill_process(driver, Signal::STOP).expect("a driver");
    for number in 0..INTERFACES {
        other_ends.ip(
            "b",
            &format!("link add eth{number} type veth peer name peer{number}"),
        );
        let proxy = actors.proxy;
        other_ends.ip("b", &format!("link set eth{number} netns {proxy}"));
        let addresses = (0..ADDRESSES)
            .map(|last| format!("addr add fd77:{number}::{last:x}/64 dev eth{number} nodad\n"));
        let mut ip = Command::new("nsenter");
        ip.arg(format!("--net=/proc/{proxy}/ns/net"))
            .args(["--", "ip", "-batch", "-"]);
        let added = start(&mut ip, Some(addresses.collect::<String>().into_bytes()));
        let added = added.finish(LIMIT);
        assert_eq!(added.code, 0, "{added:?}");
    }
    let starting = cofferdam.start(["start", "c"]);
    std::thread::sleep(Duration::from_millis(500));
    kill_process(driver, Signal::CONT).expect("a driver");
    let started = starting.finish(LIMIT);
    assert_eq!(started.code, 0, "{started:?}");
    cofferdam.wait_for_status("c", "stopped");
    let seen = fs::read_to_string(rootfs.join("seen")).expect("what it saw");
    let all = format!("{}\n", INTERFACES * ADDRESSES);
    assert_eq!(seen, all, "{}", cofferdam.log());
    cofferdam.ok(["delete", "c"]);
    cofferdam.assert_nothing_left();
}
