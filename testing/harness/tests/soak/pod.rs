//! A pod that sees many containers come and go, and what its processes keep of them.

use std::fs;

use cri::{Client, Pod};
use harness::{descendant, wait_until};

use crate::counts::Counts;
use crate::host::{Host, LIMIT};
use crate::size::Size;

/// As kubelet names them there.
const IMAGE: &str = "localhost/busybox:latest";

/// What allocators may keep: less than a kilobyte for each of two hundred containers.
const SPARE_KIB: u64 = 192;

/// Containers that come and go before anything is measured.
const WARM: usize = 10;

/// One pod's life with many containers.
pub fn outlives_its_containers(host: &Host, handler: &str) {
    let size = Size::asked(handler == "runc");
    let client = Client::new(&host.containerd.socket()).expect("a client");
    let run = |name: &str| {
        // Kubelet would remove it.
        let cgroup = format!("/{}/pods", host.name());
        Pod::run(&client, (handler, name), &cgroup, &host.logs())
            .unwrap_or_else(|error| panic!("no pod: {error}\n{}", host.containerd.log()))
    };
    // The first one has the bridge made.
    let first = run("first");
    one(&first, "warm");
    first.end().expect("an end");
    let without = Counts::take(&host.scope);

    let pod = run("pod");
    for number in 0..WARM {
        one(&pod, &format!("w{number}"));
    }
    let before = Counts::at_rest(&host.scope);
    let shims = Keepers::of(host, handler);
    for number in 0..size.pod {
        one(&pod, &format!("c{number}"));
    }
    before.assert_again(
        &host.scope,
        &format!("behind {} containers of a pod of {handler}'s", size.pod),
    );
    shims.assert_again(size.pod);
    pod.end().expect("an end");
    without.assert_again(&host.scope, &format!("behind a pod of {handler}'s"));
}

fn one(pod: &Pod, name: &str) {
    let container = pod
        .start(name, IMAGE, &["true"])
        .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
    let code = pod.wait(&container, LIMIT).expect("an end");
    assert_eq!(code, 0, "{name}");
    pod.remove(&container).expect("a removal");
}

/// The processes of a pod that live as long as it does, and how much memory of their own they have, in KiB.
#[derive(Debug)]
struct Keepers(Vec<(&'static str, i32, u64)>);

impl Keepers {
    fn of(host: &Host, handler: &str) -> Self {
        // runc's shim is not ours to judge: its memory is collected when it sees fit.
        if handler == "runc" {
            return Self(Vec::new());
        }
        let mut found = None;
        wait_until(LIMIT, || {
            found = descendant(host.containerd.pid(), "containerd-shim-cofferdam")
                .or_else(|| descendant(1, "containerd-shim-cofferdam"));
            found.is_some()
        });
        let shim = found.expect("the pod's shim");
        let server = descendant(shim, "cofferdam-fs").expect("the pod's file server");
        let all = [("shim", shim), ("file server", server)];
        Self(all.map(|(role, pid)| (role, pid, anonymous(pid))).into())
    }

    fn assert_again(&self, containers: usize) {
        for &(role, pid, before) in &self.0 {
            let after = anonymous(pid);
            eprintln!("{role}: {before} KiB before, {after} KiB after {containers} containers");
            assert!(
                after <= before + SPARE_KIB,
                "{role}: {before} KiB before, {after} KiB after {containers} containers"
            );
        }
    }
}

/// Memory that no file holds. What files hold is shared with other processes, and so depends on who else is there.
fn anonymous(pid: i32) -> u64 {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.lines()
        .find_map(|line| line.strip_prefix("Pss_Anon:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .expect("a size")
}
