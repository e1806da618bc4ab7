//! `run --net bridge`, `--net cni:NAME` and `-p`, on a host that is only a namespace.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::{Cofferdam, Namespaces, Outcome, finish, is_alive, start, wait_until};

use crate::LIMIT;

const SERVER: &str =
    "mkdir /tmp/www; echo hello > /tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www";

/// A host with a network, and a neighbour of it called `world`. Dropping it removes all containers where they were made.
struct Host {
    namespaces: Namespaces,
    cofferdam: Cofferdam,
}

impl Host {
    fn new(config: &str) -> Option<Self> {
        let cofferdam = Cofferdam::with_config(config)?;
        let namespaces = Namespaces::new(&["host", "world"]);
        namespaces.connect(("host", "out"), ("world", "peer"));
        namespaces.ip("host", "addr add 192.0.2.1/24 dev out");
        namespaces.ip("world", "addr add 192.0.2.2/24 dev peer");
        Some(Self {
            namespaces,
            cofferdam,
        })
    }

    fn command(&self, args: &[&str]) -> Command {
        let inner = self.cofferdam.command(args);
        let mut command = self.namespaces.command("host", inner.get_program());
        command.args(inner.get_args());
        for (name, value) in inner.get_envs() {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        if let Some(folder) = inner.get_current_dir() {
            command.current_dir(folder);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Outcome {
        finish(&mut self.command(args), LIMIT)
    }

    fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, 0, "{args:?}: {done:?}\n{}", self.cofferdam.log());
        done.stdout
    }

    /// What a web server answers to somebody in a namespace.
    fn get(&self, from: &str, address: &str) -> Option<String> {
        let mut page = None;
        let _came = wait_until(Duration::from_secs(30), || {
            page = self.namespaces.inside(from, || get(address)).ok();
            page.is_some()
        });
        page
    }

    /// Names of interfaces, rules and files that are ours.
    fn traces(&self) -> Vec<String> {
        let mut found = Vec::new();
        let links = self.namespaces.ip("host", "-o link");
        let links = links
            .lines()
            .filter(|line| !line.contains(": lo:") && !line.contains(": out@"));
        found.extend(links.map(str::to_owned));
        for args in [&["nft", "list", "ruleset"][..], &["iptables-save"]] {
            let mut command = self.namespaces.command("host", args[0]);
            let rules = finish(command.args(&args[1..]), LIMIT).stdout;
            found.extend(
                rules
                    .lines()
                    .filter(|line| line.contains("cofferdam") || line.contains("10.209"))
                    .map(str::to_owned),
            );
        }
        let book = self.cofferdam.data().join("network");
        let files = fs::read_dir(book)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path());
        found.extend(
            files
                .filter(|path| path.extension().is_some_and(|end| end == "json"))
                .map(|path| path.display().to_string()),
        );
        found
    }

    fn leaves_nothing(&self) {
        let clean = wait_until(Duration::from_secs(30), || self.traces().is_empty());
        assert!(clean, "{:?}\n{}", self.traces(), self.cofferdam.log());
        self.cofferdam.assert_nothing_left();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let names = fs::read_dir(self.cofferdam.root())
            .into_iter()
            .flatten()
            .flatten();
        for name in names {
            let _removed = self.run(&["rm", "-f", &name.file_name().to_string_lossy()]);
        }
    }
}

fn get(address: &str) -> std::io::Result<String> {
    let address = address.parse().expect("an address");
    let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    connection.set_read_timeout(Some(Duration::from_secs(20)))?;
    connection.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    connection.read_to_string(&mut text)?;
    Ok(text)
}

/// Ports, the way out, and the way between containers.
fn works(host: &Host) {
    let busybox = host.cofferdam.busybox();
    host.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "8080:80",
        "-p",
        "192.0.2.1:8081:80/tcp",
        busybox,
        "sh",
        "-c",
        SERVER,
    ]);
    for (from, address, answers) in [
        ("host", "127.0.0.1:8080", true),
        ("host", "192.0.2.1:8080", true),
        ("host", "192.0.2.1:8081", true),
        ("world", "192.0.2.1:8080", true),
        ("world", "192.0.2.1:8081", true),
    ] {
        let page = host.get(from, address);
        assert_eq!(
            page.is_some_and(|page| page.ends_with("\r\n\r\nhello\n")),
            answers,
            "{from} {address}"
        );
    }
    let only_there = host.namespaces.inside("host", || get("127.0.0.1:8081"));
    assert!(only_there.is_err(), "{only_there:?}");
    let script = "ping -c 1 -W 20 192.0.2.2 >&2 && wget -q -O - http://192.0.2.1:8080/ && wget -q -O - http://$WEB/ && grep -w $(hostname) /etc/hosts | grep -c 10.209 && cat /etc/resolv.conf | grep -c nameserver >&2";
    let list = host.ok(&[
        "exec", "web", "ip", "-o", "-4", "addr", "show", "dev", "eth0",
    ]);
    let address = list
        .split_whitespace()
        .find(|word| word.starts_with("10.209."))
        .expect("an address");
    let web = format!("WEB={}", address.split('/').next().expect("an address"));
    let client = host.run(&[
        "run", "--rm", "--net", "bridge", "-e", &web, busybox, "sh", "-c", script,
    ]);
    assert_eq!(client.stdout, "hello\nhello\n1\n", "{client:?}");
    assert!(!host.traces().is_empty(), "what is looked for can be found");
    host.ok(&["rm", "-f", "web"]);
    host.leaves_nothing();
}

#[test]
fn our_own_bridge_connects_and_goes_with_the_last_container() {
    let Some(host) = Host::new("cni_plugin_directories = []") else {
        return;
    };
    works(&host);
}

#[test]
fn plugins_connect_where_they_are_installed() {
    let Some(host) = Host::new("") else { return };
    if !Path::new("/usr/lib/cni/portmap").exists() {
        eprintln!("SKIPPED: containernetworking-plugins is not installed");
        return;
    }
    works(&host);
}

#[test]
fn a_described_network_is_joined_by_its_name() {
    let Some(host) = Host::new("cni_network_directory = \"networks\"") else {
        return;
    };
    if !Path::new("/usr/lib/cni/ptp").exists() {
        eprintln!("SKIPPED: containernetworking-plugins is not installed");
        return;
    }
    let folder = host.cofferdam.folder().join("networks");
    fs::create_dir_all(&folder).expect("a folder");
    let config = fs::read_to_string(host.cofferdam.config()).expect("a configuration");
    let absolute = format!("cni_network_directory = {folder:?}");
    fs::write(
        host.cofferdam.config(),
        config.replace("cni_network_directory = \"networks\"", &absolute),
    )
    .expect("a configuration");
    let description = serde_json::json!({
        "cniVersion": "0.4.0", "name": "lane", "plugins": [{
            "type": "ptp", "ipMasq": true,
            "ipam": { "type": "host-local", "subnet": "10.209.77.0/24", "dataDir": folder.join("ipam"), "routes": [{ "dst": "0.0.0.0/0" }] },
        }],
    });
    fs::write(folder.join("lane.conflist"), description.to_string()).expect("a description");
    let busybox = host.cofferdam.busybox();
    // The plugin has a route of its own to the gateway, and none to the rest of the network but through it.
    let script = "ping -c 1 -W 20 192.0.2.2 > /dev/null && ip route";
    let done = host.run(&[
        "run", "--rm", "--net", "cni:lane", busybox, "sh", "-c", script,
    ]);
    assert!(
        done.code == 0 && done.stdout.contains("10.209.77.1 dev eth0 scope link"),
        "{done:?}"
    );
    host.leaves_nothing();
    let missing = host.run(&["run", "--rm", "--net", "cni:street", busybox, "true"]);
    assert!(
        missing.code != 0 && missing.stderr.contains("no CNI network street"),
        "{missing:?}"
    );
    host.leaves_nothing();
}

#[test]
fn what_was_killed_is_cleared_up_by_the_next() {
    let Some(host) = Host::new("cni_plugin_directories = []") else {
        return;
    };
    let busybox = host.cofferdam.busybox();
    host.ok(&[
        "run", "-d", "--name", "a", "-p", "8080:80", busybox, "sleep", "100000",
    ]);
    let mut front = host.command(&[
        "run", "--rm", "--name", "b", "-p", "8081:80", busybox, "sleep", "100000",
    ]);
    let front = start(&mut front, None);
    host.cofferdam.wait_for_status("b", "running");
    let (a, b) = (host.cofferdam.actors("a"), host.cofferdam.actors("b"));
    host.cofferdam.kill9(a.driver);
    front.signal(9);
    let _ended = front.finish(LIMIT);
    let gone = wait_until(LIMIT, || {
        a.all().iter().chain(&b.all()).all(|&pid| !is_alive(pid))
    });
    assert!(gone, "{a:?} {b:?}");
    assert!(!host.traces().is_empty(), "{:?}", host.traces());
    // The first is removed by its name, the second by whoever comes next.
    host.ok(&["rm", "-f", "a"]);
    host.ok(&["run", "--rm", busybox, "true"]);
    host.leaves_nothing();
}

#[test]
fn a_failed_start_leaves_nothing() {
    let Some(host) = Host::new("cni_plugin_directories = []") else {
        return;
    };
    let busybox = host.cofferdam.busybox();
    let missing = host.run(&["run", "--rm", "--net", "bridge", busybox, "/nonexistent"]);
    assert_eq!(missing.code, 127, "{missing:?}");
    host.leaves_nothing();
    for (option, value, said) in [
        ("-p", "0:80", "between 1 and 65535"),
        ("--net", "container:a", "another virtual machine"),
        ("--net", "host", "publish ports with -p"),
    ] {
        let refused = host.run(&["run", "--rm", option, value, busybox, "true"]);
        assert!(
            refused.code != 0 && refused.stderr.contains(said),
            "{refused:?}"
        );
    }
    host.leaves_nothing();
}

#[test]
fn nobody_who_does_not_ask_gets_a_network() {
    let Some(host) = Host::new("") else { return };
    let script = "ls /sys/class/net; ip route";
    let done = host.run(&["run", "--rm", host.cofferdam.busybox(), "sh", "-c", script]);
    assert_eq!((done.code, done.stdout.as_str()), (0, "lo\n"), "{done:?}");
    assert!(!done.stderr.contains("forward"), "{done:?}");
    host.leaves_nothing();
}
