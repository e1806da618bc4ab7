//! Networks of containers, from end to end: in namespaces that the tests make, and nowhere else.

mod bridge;
mod changes;
mod connection;
mod frames;
mod killed;
mod kinds;
mod late;
mod limits;
mod names;
mod spoofing;

use std::time::Duration;

use harness::{Cofferdam, Namespaces, Outcome};

/// Longer than anything takes here.
const LIMIT: Duration = Duration::from_secs(180);

/// A namespace for a container, `a`, whose `eth0` leads to another, `b`.
fn pair() -> Namespaces {
    let namespaces = Namespaces::new(&["a", "b"]);
    namespaces.connect(("a", "eth0"), ("b", "peer0"));
    for (name, words) in [
        ("a", "addr add 10.77.0.2/24 dev eth0"),
        ("a", "addr add fd77::2/64 dev eth0 nodad"),
        ("a", "route add default via 10.77.0.1"),
        ("a", "-6 route add default via fd77::1"),
        ("b", "addr add 10.77.0.1/24 dev peer0"),
        ("b", "addr add fd77::1/64 dev peer0 nodad"),
    ] {
        namespaces.ip(name, words);
    }
    namespaces
}

/// Starts a container in the background whose network is namespace `a`.
fn background(cofferdam: &Cofferdam, namespaces: &Namespaces, id: &str, options: &[&str]) {
    let net = format!("ns:{}", namespaces.path("a").display());
    let mut args = vec!["run", "-d", "--name", id, "--net", &net];
    args.extend(options);
    args.extend([cofferdam.busybox(), "sleep", "100000"]);
    cofferdam.ok(args);
}

/// Runs a script in a container.
fn inside(cofferdam: &Cofferdam, id: &str, script: &str) -> Outcome {
    cofferdam.run(["exec", id, "sh", "-c", script])
}

/// Waits until a script in a container succeeds.
fn expect(cofferdam: &Cofferdam, id: &str, script: &str) {
    let came = harness::wait_until(LIMIT, || inside(cofferdam, id, script).code == 0);
    assert!(
        came,
        "{script}: {:?}\n{:?}\n{}",
        inside(cofferdam, id, script),
        inside(cofferdam, id, "ip addr; ip route; ip -6 route"),
        cofferdam.log()
    );
}
