//! Kinds of interfaces that engines and CNI plugins make.

use harness::{Cofferdam, Namespaces};

use crate::{background, inside};

/// A container's `eth0` in namespace `a`, made by these words in namespace `p` (`A` is `a`'s path); what has it, `parent`,
/// leads to `b`.
fn works(words: &[(&'static str, &str)]) {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let namespaces = Namespaces::new(&["a", "p", "b"]);
    namespaces.connect(("p", "parent"), ("b", "peer0"));
    let path = namespaces.path("a").display().to_string();
    for (name, words) in words {
        namespaces.ip(name, &words.replace('A', &path));
    }
    for (name, words) in [
        ("a", "link set eth0 up"),
        ("a", "addr add 10.77.0.2/24 dev eth0"),
        ("a", "addr add fd77::2/64 dev eth0 nodad"),
        ("b", "addr add 10.77.0.1/24 dev peer0"),
        ("b", "addr add fd77::1/64 dev peer0 nodad"),
    ] {
        namespaces.ip(name, words);
    }
    background(&cofferdam, &namespaces, "c", &[]);
    for target in ["10.77.0.1", "fd77::1"] {
        let pinged = inside(&cofferdam, "c", &format!("ping -c 2 -W 10 {target}"));
        assert_eq!(pinged.code, 0, "{pinged:?}");
    }
    for target in ["10.77.0.2", "fd77::2"] {
        let pinged = namespaces.busybox("b", &format!("ping -c 2 -W 10 {target}"));
        assert_eq!(pinged.code, 0, "{pinged:?}");
    }
    let seen = inside(
        &cofferdam,
        "c",
        "ls /sys/class/net; cat /sys/class/net/eth0/address",
    );
    let own = namespaces.ip("a", "-o link show eth0");
    let address = seen.stdout.lines().last().expect("an address");
    assert!(
        seen.stdout.starts_with("eth0\nlo\n") && own.contains(address),
        "{seen:?} {own}"
    );
    cofferdam.ok(["rm", "-f", "c"]);
    cofferdam.assert_nothing_left();
    let left = namespaces.traits("a");
    assert!(
        !left.contains("clsact") && !left.contains("cofferdam"),
        "{left}"
    );
}

#[test]
fn a_macvlan_interface_connects() {
    works(&[(
        "p",
        "link add link parent name eth0 netns A type macvlan mode bridge",
    )]);
}

#[test]
fn an_ipvlan_interface_connects() {
    if !has_ipvlan() {
        return eprintln!("SKIPPED: this kernel makes no ipvlan interfaces");
    }
    works(&[(
        "p",
        "link add link parent name eth0 netns A type ipvlan mode l2",
    )]);
}

#[test]
fn a_bridge_connects_and_its_ports_stay_hidden() {
    works(&[
        ("p", "link add name bridge type bridge"),
        ("p", "link set bridge up"),
        ("p", "link set parent master bridge"),
        ("a", "link add name eth0 type bridge"),
        ("p", "link add name other type veth peer name port netns A"),
        ("p", "link set other master bridge"),
        ("p", "link set other up"),
        ("a", "link set port master eth0"),
        ("a", "link set port up"),
    ]);
}

/// Asked for in a namespace that is gone then, with the interface.
fn has_ipvlan() -> bool {
    let script =
        "ip link add parent type dummy && ip link add link parent name child type ipvlan mode l2";
    let mut unshare = std::process::Command::new("unshare");
    let done = harness::finish(unshare.args(["--net", "sh", "-c", script]), crate::LIMIT);
    assert!(
        done.code == 0 || done.stderr.contains("Unknown device type"),
        "{done:?}"
    );
    done.code == 0
}
