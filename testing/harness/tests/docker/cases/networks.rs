//! User-defined networks, and the names of the containers in them.

use std::net::UdpSocket;

use super::network::{fetch, server};
use super::{Verdict, exactly};
use crate::docker::Docker;

/// Resolves a name, and says whether the answer is this address.
fn knows(name: &str, ip: &str) -> String {
    format!("nslookup -type=a {name} 127.0.0.11 | grep -c 'Address: *{ip}$'")
}

pub fn names_of_both_kinds(docker: &Docker) -> Verdict {
    // One of runc's, as on an engine that has both.
    let network = docker.network("n", &[]);
    let old = docker.name("old");
    let new = server(docker, "new", &["--network", &network]);
    let args = [
        "run",
        "--runtime",
        "runc",
        "--detach",
        "--name",
        &old,
        "--network",
        &network,
        "busybox",
        "sh",
        "-c",
        super::network::SERVER,
    ];
    docker.ok(&args);
    docker.expect_log(&old, "ready");
    let there = docker.ok(&["exec", &new, "sh", "-c", &fetch(&old)]);
    let back = docker.ok(&["exec", &old, "sh", "-c", &fetch(&new)]);
    let ip = docker.inspect(&old, "range .NetworkSettings.Networks}}{{.IPAddress}}{{end");
    let asked = docker.ok(&["exec", &new, "sh", "-c", &knows(&old, &ip)]);
    let resolver = docker.ok(&["exec", &new, "grep", "^nameserver", "/etc/resolv.conf"]);
    // Not by a name that nobody has.
    let unknown = docker.run(&["exec", &new, "nslookup", "-type=a", "nobody", "127.0.0.11"]);
    exactly(
        (&*there, &*back, &*asked, &*resolver, unknown.code == 0),
        (
            "served\n",
            "served\n",
            "1\n",
            "nameserver 127.0.0.11\n",
            false,
        ),
    )
}

pub fn names_of_each_other(docker: &Docker) -> Verdict {
    let network = docker.network("n", &[]);
    let one = server(docker, "one", &["--network", &network]);
    let two = server(
        docker,
        "two",
        &["--network", &network, "--network-alias", "also-two"],
    );
    let asked = |who: &str, name: &str| docker.ok(&["exec", who, "sh", "-c", &fetch(name)]);
    let seen = [
        asked(&one, &two),
        asked(&two, &one),
        asked(&one, "also-two"),
    ];
    exactly(seen, [(); 3].map(|()| "served\n".to_owned()))
}

/// As clients do when an answer was too long for a datagram.
pub fn names_by_connection(docker: &Docker) -> Verdict {
    const ASK: &str = "use Socket; socket(S, PF_INET, SOCK_STREAM, 0) or die; connect(S, sockaddr_in(53, inet_aton('127.0.0.11'))) or die; for (1, 2) { $q = pack('nnnnnn', 7, 256, 1, 0, 0, 0) . join('', map { pack('C/a', $_) } split(/\\./, $ARGV[0])) . pack('Cnn', 0, 1, 1); syswrite(S, pack('n/a', $q)); sysread(S, $l, 2); sysread(S, $a, unpack('n', $l)); ($id, $flags, undef, $answers) = unpack('nnnn', $a); print \"$id \", $flags & 15, \" $answers \", inet_ntoa(substr($a, -4)), \"\\n\" }";
    docker.daemon().load_debian();
    let network = docker.network("n", &[]);
    let name = server(docker, "server", &["--network", &network]);
    let args = [
        "run",
        "--rm",
        "--network",
        &network,
        "debian",
        "perl",
        "-e",
        ASK,
        &name,
    ];
    let seen = docker.ok(&args);
    let ip = docker.inspect(
        &name,
        "range .NetworkSettings.Networks}}{{.IPAddress}}{{end",
    );
    exactly(&*seen.replace(&ip, "IP"), "7 0 1 IP\n7 0 1 IP\n")
}

pub fn names_of_the_world(docker: &Docker) -> Verdict {
    // A server beside the bridges; Docker's own asks it for what it does not know.
    let outside = docker.daemon().inside_network(|| {
        let address = if docker.runtime.is_ours() {
            "192.0.2.54"
        } else {
            "192.0.2.53"
        };
        docker
            .daemon()
            .add_address(address.parse().expect("an address"));
        UdpSocket::bind((address, 53)).expect("a socket")
    });
    let address = outside.local_addr().expect("an address").ip().to_string();
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let limit = Some(std::time::Duration::from_millis(200));
    outside.set_read_timeout(limit).expect("a limit");
    let end = std::sync::Arc::clone(&ended);
    let server = std::thread::spawn(move || {
        let mut question = [0; 1500];
        while !end.load(std::sync::atomic::Ordering::Relaxed) {
            if let Ok((length, from)) = outside.recv_from(&mut question) {
                let _lost = outside.send_to(&answer(&question[..length]), from);
            }
        }
    });
    let network = docker.network("n", &[]);
    let options = ["--network", &network, "--dns", &address];
    let done = docker.try_sh(&options, &knows("far.example", "198.51.100.7"));
    ended.store(true, std::sync::atomic::Ordering::Relaxed);
    server.join().expect("a server");
    exactly((done.code, &*done.stdout), (0, "1\n"))
}

/// The answer to a DNS question for an address: 198.51.100.7, or none for any other kind.
fn answer(question: &[u8]) -> Vec<u8> {
    let name = question[12..]
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(0);
    let end = (12 + name + 5).min(question.len());
    let is_address = question[end - 4..end] == [0, 1, 0, 1];
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    answer.extend(&question[12..end]);
    if is_address {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, 7]);
    }
    answer
}

pub fn several_at_the_start(docker: &Docker) -> Verdict {
    let (one, two) = (docker.network("one", &[]), docker.network("two", &[]));
    let near = server(docker, "near", &["--network", &one]);
    let far = server(docker, "far", &["--network", &two]);
    let name = docker.name("c");
    docker.ok(&[
        "create",
        "--name",
        &name,
        "--network",
        &one,
        "busybox",
        "sh",
        "-c",
        // Its first look, however late the engine connected it.
        "ip -4 -o addr | grep -c eth; sleep 1000",
    ]);
    docker.ok(&["network", "connect", &two, &name]);
    docker.ok(&["start", &name]);
    docker.expect_log(&name, "\n");
    let first = docker.ok(&["logs", &name]);
    let inside = |script: &str| docker.ok(&["exec", &name, "sh", "-c", script]);
    let seen = (
        &*first,
        &*inside("ls /sys/class/net"),
        &*inside(&fetch(&near)),
        &*inside(&fetch(&far)),
    );
    exactly(seen, ("2\n", "eth0\neth1\nlo\n", "served\n", "served\n"))
}

pub fn connected_while_it_runs(docker: &Docker) -> Verdict {
    let network = docker.network("n", &[]);
    let other = server(docker, "other", &["--network", &network]);
    let name = server(docker, "server", &["--network", "bridge"]);
    let inside = |script: &str| docker.run(&["exec", &name, "sh", "-c", script]);
    let before = inside(&fetch(&other)).code == 0;
    docker.ok(&["network", "connect", "--alias", "late", &network, &name]);
    let came = harness::wait_until(crate::daemon::LIMIT, || inside(&fetch(&other)).code == 0);
    let there = inside(&fetch(&other)).stdout;
    let back = docker.ok(&["exec", &other, "sh", "-c", &fetch("late")]);
    let interfaces = inside("ls /sys/class/net").stdout;
    docker.ok(&["network", "disconnect", &network, &name]);
    let gone = harness::wait_until(crate::daemon::LIMIT, || {
        inside("ls /sys/class/net").stdout == "eth0\nlo\n"
    });
    exactly(
        (before, came, &*there, &*back, &*interfaces, gone),
        (
            false,
            true,
            "served\n",
            "served\n",
            "eth0\neth1\nlo\n",
            true,
        ),
    )
}

pub fn chosen_addresses(docker: &Docker) -> Verdict {
    let third = if docker.runtime.is_ours() { 1 } else { 0 };
    let subnet = format!("10.123.{third}.0/24");
    let network = docker.network("n", &["--subnet", &subnet]);
    let ip = format!("10.123.{third}.77");
    let options = [
        "--network",
        &network,
        "--ip",
        &ip,
        "--mac-address",
        "02:42:00:00:12:34",
    ];
    let seen = docker.sh(
        &options,
        "cat /sys/class/net/eth0/address; ip -4 -o addr show eth0",
    );
    let has_ip = seen.contains(&format!(" {ip}/24"));
    exactly(
        (seen.lines().next(), has_ip),
        (Some("02:42:00:00:12:34"), true),
    )
}

pub fn both_families(docker: &Docker) -> Verdict {
    let third = if docker.runtime.is_ours() { 1 } else { 0 };
    let subnet = format!("fd00:123:{third}::/64");
    let network = docker.network("n", &["--ipv6", "--subnet", &subnet]);
    let other = server(docker, "other", &["--network", &network]);
    let ip = docker.inspect(
        &other,
        "range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end",
    );
    let script = format!(
        "{}; ping -6 -c 2 -W 30 {ip} | grep -c from; nslookup -type=aaaa {other} 127.0.0.11 | grep -c 'Address: *{ip}$'",
        fetch(&format!("[{ip}]"))
    );
    let seen = docker.sh(&["--network", &network], &script);
    exactly(&*seen, "served\n2\n1\n")
}

pub fn internal(docker: &Docker) -> Verdict {
    let network = docker.network("n", &["--internal"]);
    let other = server(docker, "other", &["--network", &network]);
    let seen = docker.sh(&["--network", &network], &fetch(&other));
    exactly(&*seen, "served\n")
}

pub fn linked(docker: &Docker) -> Verdict {
    let network = docker.network("n", &[]);
    let other = server(docker, "other", &["--network", &network]);
    let options = ["--network", &network, "--link", &format!("{other}:alias")];
    exactly(&*docker.sh(&options, &fetch("alias")), "served\n")
}
