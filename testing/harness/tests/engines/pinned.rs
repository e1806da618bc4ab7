//! Pods of CRI-O, whose namespaces are made before anything runs in them and bound to files. It is not in Debian; so its
//! calls of the OCI command are made here, with bundles as it writes them.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::{Cofferdam, Namespaces, Outcome, finish, image, wait_until};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Value, json};

use crate::runtime::{Kind, has};

const LIMIT: Duration = Duration::from_secs(180);

/// The pod's name for itself.
pub const HOSTNAME: &str = "pod-of-crio";

/// Mounts in its folder.
const PINNED: [&str; 3] = ["ipc", "uts", "shm"];

/// A container that runs until it is killed.
pub const WAITS: [&str; 2] = ["sleep", "100000"];

/// One that serves a page on its loopback.
pub const SERVES: [&str; 3] = [
    "sh",
    "-c",
    "mkdir -p /www; echo served > /www/index.html; exec httpd -f -p 127.0.0.1:8080 -h /www",
];

/// What the engine has made for a pod before its first container.
pub struct Made {
    folder: PathBuf,
    /// Part of the names of its containers: runc's control groups are the machine's.
    name: String,
    network: PathBuf,
    _namespaces: Namespaces,
}

impl Made {
    /// Makes it in the test's folder.
    pub fn new(cofferdam: &Cofferdam) -> Self {
        let folder = cofferdam.folder().join("pod");
        fs::create_dir(&folder).expect("a folder");
        let namespaces = Namespaces::new(&["pod"]);
        let name = cofferdam.folder().file_name().expect("a name");
        let made = Self {
            name: name.to_string_lossy().into_owned(),
            network: namespaces.path("pod"),
            folder,
            _namespaces: namespaces,
        };
        made.pin();
        let shm = made.folder.join("shm");
        fs::create_dir(&shm).expect("a folder");
        mount("shm", &shm, "tmpfs", MountFlags::empty(), Some(c"size=8m")).expect("shared memory");
        made
    }

    /// As its program `pinns` does: nobody is in them afterwards.
    fn pin(&self) {
        let mut unshare = Command::new("unshare");
        for kind in ["ipc", "uts"] {
            let file = self.folder.join(kind);
            fs::write(&file, "").expect("a file");
            unshare.arg(format!("--{kind}={}", file.display()));
        }
        let done = finish(unshare.args(["hostname", HOSTNAME]), LIMIT);
        assert_eq!(done.code, 0, "{done:?}");
    }

    /// The whole name of a container.
    pub fn id(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// Where a container's bundle is.
    pub fn bundle(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a bundle whose namespaces are the pinned ones; all but `sandbox` join that.
    pub fn write(&self, name: &str, args: &[&str], change: impl FnOnce(&mut Value)) {
        let folder = self.bundle(name);
        let rootfs = folder.join("rootfs");
        fs::create_dir_all(&rootfs).expect("a folder");
        let archive = image("busybox.rootfs.tar").unwrap_or_else(|reason| panic!("{reason}"));
        let mut tar = Command::new("tar");
        let done = finish(tar.arg("-xf").arg(archive).arg("-C").arg(&rootfs), LIMIT);
        assert_eq!(done.code, 0, "{done:?}");
        let pinned =
            |kind: &str| json!({ "type": kind, "path": self.bundle(kind).display().to_string() });
        let mount = |destination: &str, kind: &str| json!({ "destination": destination, "type": kind, "source": kind });
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "args": args,
                "env": ["PATH=/bin:/sbin", format!("HOSTNAME={HOSTNAME}")],
                "cwd": "/",
                "user": { "uid": 0, "gid": 0 },
            },
            "root": { "path": rootfs },
            "hostname": HOSTNAME,
            "annotations": {
                "io.kubernetes.cri-o.ContainerType": if name == "sandbox" { name } else { "container" },
                "io.kubernetes.cri-o.SandboxID": self.id("sandbox"),
            },
            "mounts": [
                mount("/proc", "proc"),
                mount("/dev", "tmpfs"),
                { "destination": "/dev/shm", "type": "bind", "source": self.bundle("shm"), "options": ["rw", "bind"] },
            ],
            "linux": {
                "cgroupsPath": format!("/{}/{name}", self.name),
                "namespaces": [
                    { "type": "pid" }, { "type": "mount" }, pinned("ipc"), pinned("uts"),
                    { "type": "network", "path": self.network.display().to_string() },
                ],
            },
        });
        change(&mut config);
        fs::write(folder.join("config.json"), config.to_string()).expect("a configuration");
    }

    /// What answers at a port of the pod's network namespace on the host, where CRI-O and containerd look for it.
    pub fn forwarded(&self, port: u16) -> String {
        harness::inside(&self.network, || {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let mut connection = TcpStream::connect_timeout(&address, LIMIT)?;
            connection.set_read_timeout(Some(LIMIT))?;
            connection.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
            let mut text = String::new();
            connection.read_to_string(&mut text)?;
            Ok::<_, std::io::Error>(text)
        })
        .unwrap_or_default()
    }

    /// Removes it, which only works when nobody has it any more.
    pub fn end(&self) {
        for file in PINNED {
            unmount(self.bundle(file), UnmountFlags::empty()).expect("nobody has it");
        }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for file in PINNED {
            // Nothing is left of one that has ended well.
            let _gone = unmount(self.bundle(file), UnmountFlags::DETACH);
        }
    }
}

/// A pod whose containers are made by the OCI command.
struct Pod {
    kind: Kind,
    program: PathBuf,
    root: PathBuf,
    made: Made,
    cofferdam: Cofferdam,
}

impl Pod {
    fn new(kind: Kind) -> Option<Self> {
        let cofferdam = Cofferdam::new()?;
        let made = Made::new(&cofferdam);
        let root = match kind {
            Kind::Runc => made.bundle("runc"),
            Kind::Cofferdam => cofferdam.root(),
        };
        Some(Self {
            kind,
            program: kind.program(&cofferdam, Some(&root)),
            root,
            made,
            cofferdam,
        })
    }

    fn call(&self, args: &[&str]) -> Outcome {
        let mut command = Command::new(&self.program);
        finish(command.args(args), LIMIT)
    }

    fn ok(&self, args: &[&str]) -> String {
        let done = self.call(args);
        assert_eq!(done.code, 0, "{:?} {args:?}: {done:?}", self.kind);
        done.stdout
    }

    fn create(&self, name: &str) -> Outcome {
        let errors = self.made.bundle("errors");
        let sink = fs::File::create(&errors).expect("a file");
        let mut command = Command::new(&self.program);
        command.args(["create", "--bundle"]);
        command.arg(self.made.bundle(name)).arg(self.made.id(name));
        // The container has the command's stdio for as long as it lives.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.stderr(sink).status().expect("it starts");
        Outcome {
            code: status.code().unwrap_or(-1),
            stdout: String::new(),
            stderr: fs::read_to_string(errors).expect("what it said"),
            elapsed: Duration::ZERO,
        }
    }

    fn run(&self, name: &str) {
        let done = self.create(name);
        assert_eq!(done.code, 0, "{:?} {name}: {done:?}", self.kind);
        self.ok(&["start", &self.made.id(name)]);
    }

    fn sh(&self, name: &str, script: &str) -> String {
        self.ok(&["exec", &self.made.id(name), "sh", "-c", script])
    }

    fn delete(&self, name: &str) {
        self.ok(&["delete", "--force", &self.made.id(name)]);
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        for id in names(&self.root) {
            let _gone = self.call(&["delete", "--force", &id]);
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Runs a case with runc and with ours; what it answers has to be equal.
fn both<T: PartialEq + std::fmt::Debug>(case: impl Fn(&Pod) -> T) {
    if !has(&["runc", "unshare"]) {
        return;
    }
    let mut seen = Vec::new();
    for kind in Kind::BOTH {
        let Some(pod) = Pod::new(kind) else { return };
        seen.push(case(&pod));
        pod.made.end();
        assert_eq!(names(&pod.root), Vec::<String>::new(), "{kind:?}");
        pod.cofferdam.assert_nothing_left();
    }
    assert_eq!(seen[0], seen[1], "runc (left) and ours (right) differ");
}

#[test]
fn containers_share_what_the_engine_has_pinned() {
    both(|pod| {
        for name in ["sandbox", "one", "two"] {
            pod.made.write(name, &WAITS, |_| {});
            pod.run(name);
        }
        let link = |name: &str, kind: &str| pod.sh(name, &format!("readlink /proc/self/ns/{kind}"));
        let same = |kind: &str| {
            let all = ["sandbox", "one", "two"].map(|name| link(name, kind));
            all[0] == all[1] && all[1] == all[2]
        };
        let shared = ["ipc", "uts", "net", "pid", "mnt"].map(same);
        assert_eq!(shared, [true, true, true, false, false], "{:?}", pod.kind);
        let size = pod.sh("two", "df -k /dev/shm | tail -n 1 | awk '{print $2}'");
        pod.sh(
            "one",
            "echo from one > /dev/shm/said; sysctl -w kernel.shmmni=77",
        );
        let mut seen = vec![
            pod.sh("two", "hostname; cat /dev/shm/said /proc/sys/kernel/shmmni"),
            size,
        ];
        // Whoever has brought them may go, and that the pod has begun with.
        pod.delete("sandbox");
        pod.delete("one");
        pod.run("one");
        seen.push(pod.sh("one", "hostname; cat /dev/shm/said /proc/sys/kernel/shmmni"));
        assert_eq!(link("one", "ipc"), link("two", "ipc"));
        assert_eq!(link("one", "uts"), link("two", "uts"));
        pod.delete("one");
        pod.delete("two");
        seen
    });
}

#[test]
fn a_port_of_a_pod_is_forwarded() {
    both(|pod| {
        pod.made.write("sandbox", &WAITS, |_| {});
        pod.made.write("one", &SERVES, |_| {});
        let answers = || wait_until(LIMIT, || pod.made.forwarded(8080).ends_with("served\n"));
        pod.run("sandbox");
        let mut seen = vec![!pod.made.forwarded(8080).is_empty()];
        pod.run("one");
        seen.extend([answers(), pod.made.forwarded(8081).is_empty()]);
        pod.delete("sandbox");
        seen.push(answers());
        pod.delete("one");
        // Nor is a sandbox container needed, which CRI-O leaves out unless it is told not to.
        pod.run("one");
        seen.push(answers());
        pod.delete("one");
        assert_eq!(seen, [false, true, true, true, true], "{:?}", pod.kind);
    });
}

#[test]
fn namespaces_of_others_are_not_had() {
    both(|pod| {
        pod.made.write("sandbox", &WAITS, |_| {});
        if pod.kind == Kind::Runc {
            // It joins whatever it can.
            pod.run("sandbox");
            return pod.delete("sandbox");
        }
        let refused = |change: &dyn Fn(&mut Value)| {
            pod.made.write("sandbox", &WAITS, change);
            let done = pod.create("sandbox");
            assert!(
                done.code != 0 && done.stderr.contains("joining the ipc namespace"),
                "{done:?}"
            );
        };
        let of_ipc = |config: &mut Value, path: &Path| {
            config["linux"]["namespaces"][2]["path"] = path.display().to_string().into();
        };
        // Without a pod nobody would know who shares it.
        refused(&|config| {
            drop(
                config
                    .as_object_mut()
                    .expect("an object")
                    .remove("annotations"),
            )
        });
        // A namespace of another kind, a file, a link to a process's, and the host's own, pinned.
        refused(&|config| of_ipc(config, &pod.made.bundle("uts")));
        refused(&|config| of_ipc(config, &pod.made.bundle("sandbox/config.json")));
        let link = pod.made.bundle("link");
        std::os::unix::fs::symlink("/proc/self/ns/ipc", &link).expect("a link");
        refused(&|config| of_ipc(config, &link));
        let hosts = pod.made.bundle("hosts");
        fs::write(&hosts, "").expect("a file");
        rustix::mount::mount_bind("/proc/self/ns/ipc", &hosts).expect("a bound namespace");
        refused(&|config| of_ipc(config, &hosts));
        unmount(&hosts, UnmountFlags::empty()).expect("nobody has it");
        // Somebody is in it: another runtime's container, for all that we know.
        let mut inside = Command::new("nsenter")
            .arg(format!("--ipc={}", pod.made.bundle("ipc").display()))
            .args(["sleep", "1000"])
            .spawn()
            .expect("nsenter starts");
        let sleeps = format!("/proc/{}/comm", inside.id());
        let is_in = wait_until(LIMIT, || {
            fs::read_to_string(&sleeps).is_ok_and(|name| name == "sleep\n")
        });
        refused(&|_| {});
        let (_killed, _reaped) = (inside.kill(), inside.wait());
        assert!(is_in);
        // And without it, it can be had.
        pod.made.write("sandbox", &WAITS, |_| {});
        pod.run("sandbox");
        pod.delete("sandbox");
    });
}
