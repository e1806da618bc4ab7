//! A VMM that runs a guest is confined, seen from outside. Skipped as the suite is; needs root too.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use backend_api::conformance::{PATIENCE, guest};
use backend_api::{Device, Disk, Privileges, SpareDevices};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// A process under `/proc`.
struct Process(PathBuf);

impl Process {
    fn text(&self, name: &str) -> String {
        let path = self.0.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn link(&self, name: &str) -> String {
        let path = self.0.join(name);
        let link =
            fs::read_link(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        link.to_string_lossy().into_owned()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.0.join(folder)).expect("a folder");
        entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect()
    }

    /// The words of a line of `status`.
    fn status(&self, field: &str) -> Vec<String> {
        let text = self.text("status");
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{field}:")));
        let line = line.unwrap_or_else(|| panic!("{field}: {text}"));
        line.split_whitespace().skip(1).map(str::to_owned).collect()
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_running_vmm_is_confined() {
    let fixture = match common::fixture() {
        Ok(fixture) => fixture,
        Err(why) => {
            eprintln!("skipped: {why}");
            return;
        }
    };
    let Privileges::Drop { uid, gid } = fixture.privileges else {
        eprintln!("skipped: needs root");
        return;
    };
    let mut config = fixture.config(&[]);
    config.vcpus = 2;
    let (mut vm, mut link) = fixture.boot(config).await;
    // Once the guest answers, all threads do what they are for.
    let mut byte = [0];
    link.write_all(b"x").await.expect("writes");
    let answered = timeout(PATIENCE, link.read_exact(&mut byte)).await;
    answered.expect("the guest answers").expect("reads");

    let pid = vm.pid().expect("it runs");
    let process = Process(PathBuf::from(format!("/proc/{pid}")));
    threads(&process, uid, gid);
    surroundings(&process);
    descriptors(&process);
    vm.stop().await.expect("stops");
}

/// All of them, each without any right, and with its list.
fn threads(process: &Process, uid: u32, gid: u32) {
    let mut names = BTreeSet::new();
    for number in process.names("task") {
        let thread = Process(process.0.join("task").join(number));
        let name = thread.text("comm").trim().to_owned();
        assert_eq!(thread.status("Uid"), vec![uid.to_string(); 4], "{name}");
        assert_eq!(thread.status("Gid"), vec![gid.to_string(); 4], "{name}");
        assert!(thread.status("Groups").is_empty(), "{name}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(thread.status(set), ["0000000000000000"], "{name}: {set}");
        }
        assert_eq!(thread.status("NoNewPrivs"), ["1"], "{name}");
        assert_eq!(thread.status("Seccomp"), ["2"], "{name}");
        // That which answers for clone3, that of the set-up, and its own.
        assert_eq!(thread.status("Seccomp_filters"), ["3"], "{name}");
        assert!(names.insert(name), "{names:?}");
    }
    let expected = ["cofferdam-vmm", "devices", "vcpu0", "vcpu1"].map(str::to_owned);
    assert_eq!(names, BTreeSet::from(expected));
}

/// How many rings a process has, and its threads for disks: ours, and the kernel's for rings.
fn serving_disks(process: &Process) -> [usize; 3] {
    let rings = process.names("fd");
    let rings = rings.iter().filter(|number| {
        let target = process.link(&format!("fd/{number}"));
        target == "anon_inode:[io_uring]"
    });
    let names: Vec<_> = process.names("task");
    let names = names.iter().map(|number| {
        let thread = Process(process.0.join("task").join(number));
        // One more where it was started by a thread that had its own already.
        let filters = thread.status("Seccomp_filters");
        assert!(["3", "4"].contains(&&*filters[0]), "{number}: {filters:?}");
        thread.text("comm").trim().to_owned()
    });
    let names: Vec<_> = names.collect();
    let count = |begin: &str| names.iter().filter(|name| name.starts_with(begin)).count();
    [rings.count(), count("disk"), count("iou-")]
}

/// A disk of the boot has a ring, and a thread if it is written; one that comes later has a thread, as nobody can make a
/// ring any more.
#[tokio::test(flavor = "current_thread")]
async fn disks_have_rings_from_the_boot_and_threads_later() {
    let fixture = match common::fixture() {
        Ok(fixture) => fixture,
        Err(why) => {
            eprintln!("skipped: {why}");
            return;
        }
    };
    let disk = |read_only| {
        let file = memfd_create("disk", MemfdFlags::CLOEXEC).expect("a file in memory");
        ftruncate(&file, 1 << 20).expect("has a length");
        Disk {
            file,
            read_only,
            serial: String::new(),
        }
    };
    let mut config = fixture.config(&[guest::SHELL]);
    config.disks = vec![disk(true), disk(false)];
    config.spare_devices = SpareDevices {
        places: 1,
        disk_bytes: 1 << 20,
        share: false,
    };
    let (mut vm, mut link) = fixture.boot(config).await;
    let busy = "b=/bin/busybox; for disk in vda vdb; do $b cat /dev/$disk >/dev/null; done
        $b dd if=/dev/zero of=/dev/vdb bs=4k count=16 conv=fsync 2>/dev/null; echo $?";
    assert_eq!(guest::run(&*vm, &mut link, busy).await, "0");
    let pid = vm.pid().expect("it runs");
    let process = Process(PathBuf::from(format!("/proc/{pid}")));
    assert_eq!(serving_disks(&process), [2, 1, 0]);
    let limits = process.text("limits");
    let locked = limits.lines().find(|line| line.starts_with("Max locked"));
    let locked: Vec<_> = locked.expect("a limit").split_whitespace().collect();
    assert_eq!(locked[3..5], ["0", "0"], "what rings were counted as");
    let plug = vm.plug().expect("it can");
    let place = plug.plug(Device::Disk(disk(true))).await.expect("plugs");
    assert_eq!(serving_disks(&process), [2, 2, 0]);
    let said = guest::run(&*vm, &mut link, &guest::tell("bind", place)).await;
    assert_eq!(said, "", "the guest takes it");
    let read = "$b cat /dev/vdc | $b wc -c";
    assert_eq!(guest::run(&*vm, &mut link, read).await, "1048576");
    assert_eq!(serving_disks(&process), [2, 2, 0]);
    vm.stop().await.expect("stops");
}

fn surroundings(process: &Process) {
    let own = Process("/proc/self".into());
    for namespace in ["mnt", "net", "ipc", "uts", "pid"] {
        let name = format!("ns/{namespace}");
        assert_ne!(process.link(&name), own.link(&name));
    }
    assert!(process.names("root").is_empty());
    let mounts = process.text("mountinfo");
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert_eq!(process.text("environ"), "");
    assert_eq!(
        process.text("net/dev").lines().count(),
        3,
        "titles and loopback"
    );
    // Of a process that nobody may look into, these belong to root.
    let owner = fs::metadata(process.0.join("environ"))
        .expect("a file")
        .uid();
    assert_eq!(owner, 0);
    let limits = process.text("limits");
    for (name, most) in [
        ("Max core file size", 0),
        ("Max file size", 0),
        ("Max locked memory", 0),
        ("Max open files", 4096),
        ("Max processes", 4096),
    ] {
        let line = limits
            .lines()
            .find(|line| line.starts_with(name))
            .expect("a limit");
        for value in line[name.len()..].split_whitespace().take(2) {
            let value: u64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(value <= most, "{line}");
        }
    }
}

/// Nothing that leads anywhere but to KVM, the driver and the guest: kernel and image are closed again.
fn descriptors(process: &Process) {
    for number in process.names("fd") {
        let target = process.link(&format!("fd/{number}"));
        let kind = match number.as_str() {
            "0" | "1" => target == "/dev/null",
            "2" => target.starts_with("pipe:"),
            _ => {
                target == "/dev/kvm"
                    || target.starts_with("socket:")
                    || ["eventpoll", "eventfd", "timerfd", "kvm-vm"]
                        .iter()
                        .any(|kind| {
                            target == format!("anon_inode:[{kind}]")
                                || target == format!("anon_inode:{kind}")
                        })
                    || target.starts_with("anon_inode:kvm-vcpu:")
            }
        };
        assert!(kind, "{number}: {target}");
    }
}
