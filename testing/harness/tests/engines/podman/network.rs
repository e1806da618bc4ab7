//! Networks that podman makes: in a namespace of the test's own, so that the machine's stays as it is.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use harness::{Namespaces, Outcome, finish, wait_until};

use super::engine::{Podman, both};
use crate::runtime::{find, has};

const LIMIT: Duration = Duration::from_secs(240);

/// podman as seen from a host that is only a namespace.
struct Host<'a> {
    podman: &'a Podman,
    namespaces: Namespaces,
}

/// podman keeps the addresses of a network by its name, and for the whole machine.
fn network() -> String {
    format!("street{}", std::process::id())
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        // Here, where their networks are.
        let _removed = self.run(&["rm", "--all", "--force", "--time", "0"]);
    }
}

impl<'a> Host<'a> {
    fn new(podman: &'a Podman) -> Self {
        fs::create_dir_all(podman.folder()).expect("a folder");
        Self {
            podman,
            namespaces: Namespaces::new(&["host"]),
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let inner = self.podman.command(&[]);
        let mut command = self.namespaces.command("host", inner.get_program());
        if let Some(folder) = inner.get_current_dir() {
            command.current_dir(folder);
        }
        command
            .args(inner.get_args())
            .args(["--network-backend", "netavark", "--network-config-dir"])
            .arg(self.podman.folder().join("networks"))
            .args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Outcome {
        finish(&mut self.command(args), LIMIT)
    }

    fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(
            done.code, 0,
            "podman {args:?} with {:?}: {done:?}",
            self.podman.kind
        );
        done.stdout
    }

    /// A container on a network.
    fn container(&self, network: &str, rest: &[&str]) -> Outcome {
        let limits = [
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
            "--cap-add",
            "NET_RAW",
        ];
        let mut args = vec!["run", "--network", network];
        args.extend(limits);
        args.extend(rest);
        self.run(&args)
    }

    /// Waits until a script in a container succeeds.
    fn expect(&self, name: &str, script: &str) {
        let came = wait_until(LIMIT, || {
            self.run(&["exec", name, "sh", "-c", script]).code == 0
        });
        assert!(
            came,
            "{script} with {:?}: {:?}",
            self.podman.kind,
            self.run(&["exec", name, "sh", "-c", "ip addr; ip route"])
        );
    }
}

/// Asks a server for its first page.
fn get(address: &str) -> std::io::Result<String> {
    let address = address.parse().expect("an address");
    let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    connection.set_read_timeout(Some(Duration::from_secs(20)))?;
    connection.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    connection.read_to_string(&mut text)?;
    Ok(text)
}

fn both_on_a_bridge<T: PartialEq + std::fmt::Debug>(case: impl Fn(&Host<'_>) -> T) {
    if find("/usr/lib/podman/netavark").is_none() || !has(&["iptables", "nsenter"]) {
        return;
    }
    both(|podman| {
        let host = Host::new(podman);
        host.ok(&[
            "network",
            "create",
            "--ipv6",
            "--subnet",
            "10.99.0.0/24",
            "--subnet",
            "fd99::/64",
            "--disable-dns",
            &network(),
        ]);
        let seen = case(&host);
        host.ok(&["rm", "--all", "--force", "--time", "0"]);
        let left = host.namespaces.ip("host", "-o link");
        assert!(!left.contains("veth"), "{left}");
        seen
    });
}

#[test]
fn a_bridge_network_connects_in_both_families() {
    both_on_a_bridge(|host| {
        let script = "ip -o link | wc -l; ip route; ping -c 1 -W 20 10.99.0.1 >&2 && ping -c 1 -W 20 fd99::1 >&2; grep -c . /etc/resolv.conf >&2; grep -w 10.99.0.50 /etc/hosts | wc -l";
        let done = host.container(
            &network(),
            &["--ip", "10.99.0.50", "--rm", "busybox", "sh", "-c", script],
        );
        assert_eq!(done.code, 0, "{done:?}");
        // The kernel's own word is the only difference: which routes came with the address.
        done.stdout.replace(" proto kernel", "")
    });
}

#[test]
fn published_ports_lead_to_the_container() {
    both_on_a_bridge(|host| {
        let server =
            "mkdir /tmp/www; echo hello > /tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www";
        let started = host.container(
            &network(),
            &[
                "--detach",
                "--ip",
                "10.99.0.60",
                "--name",
                "web",
                "--publish",
                "8080:80",
                "busybox",
                "sh",
                "-c",
                server,
            ],
        );
        assert_eq!(started.code, 0, "{started:?}");
        let mut page = String::new();
        for address in ["10.99.0.1:8080", "10.99.0.60:80"] {
            let came = wait_until(LIMIT, || {
                let got = host.namespaces.inside("host", || get(address));
                got.is_ok_and(|text| {
                    page = text;
                    true
                })
            });
            assert!(came, "{address} with {:?}", host.podman.kind);
            assert!(page.ends_with("\r\n\r\nhello\n"), "{address}: {page}");
        }
        // And from another container.
        let client = r"printf 'GET / HTTP/1.0\r\n\r\n' | nc 10.99.0.60 80";
        let client = host.container(&network(), &["--rm", "busybox", "sh", "-c", client]);
        assert!(client.stdout.ends_with("hello\n"), "{client:?}");
    });
}

#[test]
fn networks_are_connected_and_disconnected_while_it_runs() {
    both_on_a_bridge(|host| {
        host.ok(&[
            "network",
            "create",
            "--subnet",
            "10.98.0.0/24",
            "--disable-dns",
            "second",
        ]);
        let started = host.container(
            &network(),
            &["--detach", "--name", "c", "busybox", "sleep", "100000"],
        );
        assert_eq!(started.code, 0, "{started:?}");
        host.expect("c", "ping -c 1 -W 5 10.99.0.1");
        for _ in 0..2 {
            host.ok(&["network", "connect", "second", "c"]);
            host.expect("c", "ping -c 1 -W 5 10.98.0.1 && ping -c 1 -W 5 10.99.0.1");
            host.ok(&["network", "disconnect", "second", "c"]);
            host.expect("c", "! ip addr | grep -q 10.98 && ping -c 1 -W 5 10.99.0.1");
        }
    });
}

#[test]
fn two_networks_from_the_start() {
    both_on_a_bridge(|host| {
        host.ok(&[
            "network",
            "create",
            "--subnet",
            "10.98.0.0/24",
            "--disable-dns",
            "second",
        ]);
        let script =
            "ping -c 1 -W 20 10.98.0.1 >&2 && ping -c 1 -W 20 10.99.0.1 >&2; ls /sys/class/net";
        let done = host.container(
            &network(),
            &["--network", "second", "--rm", "busybox", "sh", "-c", script],
        );
        assert_eq!(done.code, 0, "{done:?}");
        done.stdout
    });
}

#[test]
fn without_a_network_there_is_loopback_alone() {
    both_on_a_bridge(|host| {
        let script = "ls /sys/class/net; ping -c 1 127.0.0.1 > /dev/null && ip route";
        let done = host.container("none", &["--rm", "busybox", "sh", "-c", script]);
        assert_eq!(done.code, 0, "{done:?}");
        done.stdout
    });
}

#[test]
fn the_hosts_network_and_that_of_another_machine_are_refused() {
    both_on_a_bridge(|host| {
        let started = host.container(
            &network(),
            &["--detach", "--name", "first", "busybox", "sleep", "100000"],
        );
        assert_eq!(started.code, 0, "{started:?}");
        for (network, said) in [
            ("host", "--network bridge"),
            ("container:first", "another virtual machine"),
        ] {
            let done = host.container(network, &["--rm", "busybox", "true"]);
            match host.podman.kind {
                crate::runtime::Kind::Runc => assert_eq!(done.code, 0, "{done:?}"),
                crate::runtime::Kind::Cofferdam => {
                    assert_eq!(done.code, 126, "{done:?}");
                    assert!(done.stderr.contains(said), "{done:?}");
                }
            }
        }
        host.expect("first", "ping -c 1 -W 5 10.99.0.1");
    });
}
