//! Network namespaces that `ctr` names.

use harness::Namespaces;

use super::engine::{Runtime, all};

fn street() -> Namespaces {
    let namespaces = Namespaces::new(&["a", "b"]);
    namespaces.connect(("a", "eth0"), ("b", "peer0"));
    namespaces.ip("a", "addr add 10.77.0.2/24 dev eth0");
    namespaces.ip("b", "addr add 10.77.0.1/24 dev peer0");
    namespaces
}

#[test]
fn a_container_is_given_a_namespace_with_interfaces() {
    all(|containerd| {
        let namespaces = street();
        let namespace = format!("network:{}", namespaces.path("a").display());
        let script = "ls /sys/class/net; ip -o addr show dev eth0 | grep -o 10.77.0.2/24; ping -c 1 -W 20 10.77.0.1 > /dev/null && echo reached";
        let done = containerd.heard(&[
            "run",
            "--rm",
            "--cap-add",
            "CAP_NET_RAW",
            "--with-ns",
            &namespace,
            &containerd.busybox,
            "n",
            "sh",
            "-c",
            script,
        ]);
        assert_eq!(
            (done.code, done.stdout.as_str()),
            (0, "eth0\nlo\n10.77.0.2/24\nreached\n"),
            "{done:?}"
        );
        let left = namespaces.traits("a");
        assert!(
            !left.contains("clsact") && !left.contains("cofferdam"),
            "{left}"
        );
    });
}

#[test]
fn the_hosts_network_is_refused() {
    all(|containerd| {
        let done = containerd.ctr(&[
            "run",
            "--rm",
            "--net-host",
            &containerd.busybox,
            "h",
            "true",
        ]);
        match containerd.runtime {
            Runtime::Runc => assert_eq!(done.code, 0, "{done:?}"),
            Runtime::Command | Runtime::Shim => {
                assert_ne!(done.code, 0, "{done:?}");
                assert!(
                    done.stderr.contains("--network host") && done.stderr.contains("-p"),
                    "{done:?}"
                );
            }
        }
        // A container that was refused is still known to containerd.
        let _removed = containerd.ctr(&["containers", "delete", "h"]);
    });
}
