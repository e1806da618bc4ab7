//! containerd with its CRI plugin, in folders of its own.

use std::cell::RefCell;
use std::fmt::Debug;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cri::{Cri, api};
use harness::{Cofferdam, Outcome, finish, image, wait_until};
use rustix::mount::{UnmountFlags, unmount};

use super::image::{PAUSE, pause};
use crate::runtime::{find, has, mounts};

pub const LIMIT: Duration = Duration::from_secs(180);

/// A network plugin that leaves the namespace as it is but for its loopback, and says that it made an interface, without
/// which containerd takes no pod. The network is other tests' subject.
const PLUGIN: &str = r#"#!/bin/sh
cat >/dev/null
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}' ;;
ADD)
	printf '{"cniVersion":"0.4.0","interfaces":[{"name":"%s","sandbox":"%s"}],"ips":[{"version":"4","interface":0,"address":"192.0.2.7/32"}]}\n' "$CNI_IFNAME" "$CNI_NETNS"
	;;
esac
"#;

/// A runtime class and its shim's program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The reference.
    Runc,
    /// Ours.
    Cofferdam,
}

impl Class {
    /// As the configuration names it.
    pub fn handler(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Cofferdam => "cofferdam",
        }
    }
}

/// A node of one's own. Dropping it ends the daemon and all pods.
pub struct Node {
    /// The runtime class of its pods.
    pub class: Class,
    /// The client.
    pub cri: Cri,
    /// The busybox image's name there.
    pub busybox: String,
    cofferdam: Cofferdam,
    daemon: RefCell<Child>,
}

/// Runs a case with runc's class first and then with ours; what it answers has to be equal.
pub fn both<T: PartialEq + Debug>(case: impl Fn(&Node) -> T) {
    if !has(&[
        "containerd",
        "ctr",
        "containerd-shim-runc-v2",
        "runc",
        "tar",
    ]) {
        return;
    }
    let [runc, ours] = [Class::Runc, Class::Cofferdam].map(|class| {
        let node = Node::new(class)?;
        let observed = case(&node);
        node.leaves_nothing();
        Some(observed)
    });
    assert_eq!(runc, ours, "runc (left) and ours (right) differ");
}

impl Node {
    fn new(class: Class) -> Option<Self> {
        let cofferdam = Cofferdam::new()?;
        let busybox = match image("busybox.docker.tar") {
            Ok(archive) => archive,
            Err(reason) => {
                eprintln!("SKIPPED: {reason}");
                return None;
            }
        };
        let folder = cofferdam.folder();
        configure(folder);
        let pause = pause(folder, &busybox);
        let mut node = Self {
            class,
            cri: Cri::new(&folder.join("c.sock")),
            busybox: String::new(),
            daemon: RefCell::new(start_daemon(&cofferdam)),
            cofferdam,
        };
        node.expect_ready();
        for archive in [&busybox, &pause] {
            let done = node.ctr(&["images", "import", archive.to_str().expect("text")]);
            assert_eq!(done.code, 0, "{done:?}");
        }
        let names = node.ctr(&["images", "list", "--quiet"]).stdout;
        node.busybox = names
            .lines()
            .find(|name| name.contains("busybox"))
            .expect("busybox")
            .to_owned();
        Some(node)
    }

    fn ctr(&self, args: &[&str]) -> Outcome {
        let mut command = Command::new(find("ctr").expect("ctr"));
        command
            .arg("--address")
            .arg(self.folder().join("c.sock"))
            .args(["--namespace", "k8s.io"])
            .args(args);
        finish(&mut command, LIMIT)
    }

    fn expect_ready(&self) {
        let ready = wait_until(LIMIT, || {
            let request = api::StatusRequest::default();
            let status = self.cri.call(async |mut cri| cri.status(request).await);
            let conditions = status.ok().and_then(|status| status.status);
            conditions.is_some_and(|status| status.conditions.iter().all(|one| one.status))
        });
        assert!(ready, "containerd is not ready: {}", self.log());
    }

    /// The folder of this test.
    pub fn folder(&self) -> &Path {
        self.cofferdam.folder()
    }

    /// What the daemon logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder().join("containerd.log")).unwrap_or_default()
    }

    /// Kills the daemon as `kill -9` does and starts it again; its shims go on.
    pub fn restart(&self) {
        self.end_daemon();
        *self.daemon.borrow_mut() = start_daemon(&self.cofferdam);
        self.expect_ready();
    }

    fn end_daemon(&self) {
        let mut daemon = self.daemon.borrow_mut();
        let _killed = daemon.kill();
        let _reaped = daemon.wait();
    }

    /// Pids of the shims.
    pub fn shims(&self) -> Vec<i32> {
        let daemon = self.daemon.borrow().id().cast_signed();
        let found = self.cofferdam.processes();
        found
            .into_iter()
            .filter(|(pid, command)| *pid != daemon && command.contains("containerd-shim-"))
            .map(|(pid, _)| pid)
            .collect()
    }

    /// Kills a process as `kill -9` does.
    pub fn kill9(&self, pid: i32) {
        self.cofferdam.kill9(pid);
    }

    fn leaves_nothing(&self) {
        let request = api::ListPodSandboxRequest::default();
        let pods = self
            .cri
            .call(async |mut cri| cri.list_pod_sandbox(request).await);
        assert_eq!(pods.expect("a list").items, []);
        let request = api::ListContainersRequest::default();
        let containers = self
            .cri
            .call(async |mut cri| cri.list_containers(request).await);
        assert_eq!(containers.expect("a list").containers, []);
        let gone = wait_until(Duration::from_secs(60), || self.shims().is_empty());
        assert!(
            gone,
            "shims are left with {:?}: {:?}",
            self.class,
            self.shims()
        );
        let left = mounts(self.folder());
        assert!(
            left.is_empty(),
            "left mounted with {:?}: {left:?}",
            self.class
        );
        let bundles = self
            .folder()
            .join("run/io.containerd.runtime.v2.task/k8s.io");
        let left: Vec<_> = fs::read_dir(bundles)
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        assert!(
            left.is_empty(),
            "bundles left with {:?}: {left:?}",
            self.class
        );
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        let request = api::ListPodSandboxRequest::default();
        let pods = self
            .cri
            .call(async |mut cri| cri.list_pod_sandbox(request).await);
        for pod in pods.map(|pods| pods.items).unwrap_or_default() {
            let stop = api::StopPodSandboxRequest {
                pod_sandbox_id: pod.id.clone(),
            };
            let _stopped = self
                .cri
                .call(async |mut cri| cri.stop_pod_sandbox(stop).await);
            let remove = api::RemovePodSandboxRequest {
                pod_sandbox_id: pod.id,
            };
            let _removed = self
                .cri
                .call(async |mut cri| cri.remove_pod_sandbox(remove).await);
        }
        self.end_daemon();
        for (pid, _) in self.cofferdam.processes() {
            // It may end by itself in between.
            let _ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.cofferdam.kill9(pid);
            }));
        }
        for point in mounts(self.folder()) {
            let _busy = unmount(&point, UnmountFlags::DETACH);
        }
    }
}

fn configure(folder: &Path) {
    let [plugins, networks] = ["cni/bin", "cni/conf"].map(|name| {
        let path = folder.join(name);
        fs::create_dir_all(&path).expect("a folder");
        path
    });
    for name in ["loopback", "nothing"] {
        let path = plugins.join(name);
        fs::write(&path, PLUGIN).expect("a plugin");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a plugin");
    }
    fs::write(
        networks.join("10-nothing.conf"),
        r#"{"cniVersion":"0.4.0","name":"nothing","type":"nothing"}"#,
    )
    .expect("a network");
    let quoted = |path: PathBuf| format!("{:?}", path.display().to_string());
    let text = format!(
        r#"version = 2
root = {root}
state = {state}
[grpc]
address = {address}
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
disable_tcp_service = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
disable_apparmor = true
restrict_oom_score_adj = true
tolerate_missing_hugetlb_controller = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = {plugins}
conf_dir = {networks}
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.cofferdam]
runtime_type = "io.containerd.cofferdam.v2"
"#,
        root = quoted(folder.join("root")),
        state = quoted(folder.join("run")),
        address = quoted(folder.join("c.sock")),
        plugins = quoted(plugins),
        networks = quoted(networks),
    );
    fs::write(folder.join("containerd.toml"), text).expect("a configuration");
}

fn start_daemon(cofferdam: &Cofferdam) -> Child {
    let folder = cofferdam.folder();
    let log = File::options()
        .append(true)
        .create(true)
        .open(folder.join("containerd.log"))
        .expect("a log");
    let programs = cofferdam.program();
    let mut path = vec![programs.parent().expect("a folder").to_owned()];
    path.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    Command::new(find("containerd").expect("containerd"))
        .arg("--config")
        .arg(folder.join("containerd.toml"))
        .env("PATH", std::env::join_paths(path).expect("a path"))
        .env("COFFERDAM_CONFIG", cofferdam.config())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("containerd starts")
}
