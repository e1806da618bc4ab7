//! Docker's default bridge and what an option says of a container's network.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use harness::wait_until;

use super::isolation::refused;
use super::{Verdict, exactly, observed};
use crate::daemon::LIMIT;
use crate::docker::Docker;

/// A server of one file on port 8080, which says first that it is ready.
pub const SERVER: &str =
    "mkdir /www; echo served > /www/file; httpd -p 8080 -h /www && echo ready; sleep 1000";

/// An address that the cases put beside the bridges.
const OUTSIDE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// A container in the background that serves; answers its name once it does.
pub fn server(docker: &Docker, name: &str, options: &[&str]) -> String {
    let name = docker.name(name);
    let args = [
        &["run", "--detach", "--name", &name],
        options,
        &["busybox", "sh", "-c", SERVER],
    ];
    docker.ok(&args.concat());
    docker.expect_log(&name, "ready");
    name
}

/// The command that prints what a [`server`] serves: `served`.
pub fn fetch(target: &str) -> String {
    format!("timeout 60 wget -q -O - http://{target}:8080/file")
}

/// What an HTTP server says to somebody in the daemon's namespace.
fn ask(docker: &Docker, target: SocketAddr) -> String {
    let asked = docker.daemon().inside_network(|| {
        let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(60))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(b"GET /file HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    });
    let answer = asked.unwrap_or_else(|error| panic!("{target}: {error}"));
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    body.to_owned()
}

pub fn default_bridge(docker: &Docker) -> Verdict {
    let server = server(docker, "server", &["--network", "bridge"]);
    let ip = docker.inspect(&server, ".NetworkSettings.IPAddress");
    let client = docker.sh(
        &["--network", "bridge"],
        &format!("{}; ping -c 2 -W 30 {ip} | grep -c from", fetch(&ip)),
    );
    let own = docker.ok(&["exec", &server, "ip", "-4", "-o", "addr", "show", "eth0"]);
    assert!(own.contains(&format!(" {ip}/")), "{ip}: {own}");
    let gateway = docker.inspect(&server, ".NetworkSettings.Gateway");
    let routes = docker.ok(&["exec", &server, "ip", "route"]);
    let is_default = routes.contains(&format!("default via {gateway} dev eth0"));
    let target = SocketAddr::new(ip.parse().expect("an address"), 8080);
    let seen = (client.as_str(), is_default, &*ask(docker, target));
    exactly(seen, ("served\n2\n", true, "served\n"))
}

pub fn outside(docker: &Docker) -> Verdict {
    // Behind the bridge, as the rest of the world is.
    let listener = docker.daemon().inside_network(|| {
        docker.daemon().add_address(OUTSIDE);
        TcpListener::bind((OUTSIDE, 0)).expect("a listener")
    });
    let port = listener.local_addr().expect("an address").port();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("a question");
        stream.write_all(b"heard\n").expect("an answer");
        said
    });
    let script =
        format!("echo said | nc -w 60 {OUTSIDE} {port}; ping -c 1 -W 30 {OUTSIDE} | grep -c from");
    let done = docker.try_sh(&["--network", "bridge"], &script);
    // Lets the peer go when nobody came.
    if done.code != 0 {
        let target = SocketAddr::new(OUTSIDE, port);
        let _woken = docker
            .daemon()
            .inside_network(|| TcpStream::connect(target));
    }
    assert_eq!(done.code, 0, "{done:?}");
    let said = peer.join().expect("a peer");
    exactly((&*done.stdout, &*said), ("heard\n1\n", "said\n"))
}

pub fn published_ports(docker: &Docker) -> Verdict {
    let number = if docker.runtime.is_ours() {
        18_081
    } else {
        18_080
    };
    let publish = [
        format!("{number}:8080"),
        format!("127.0.0.1:{}:8080", number + 10),
    ];
    let options = ["--network", "bridge", "-p", &publish[0], "-p", &publish[1]];
    let server = server(docker, "server", &options);
    let gateway = docker.inspect(&server, ".NetworkSettings.Gateway");
    let gateway: IpAddr = gateway.parse().expect("an address");
    let through_bridge = ask(docker, SocketAddr::new(gateway, number));
    let loopback = SocketAddr::from(([127, 0, 0, 1], number + 10));
    let through_loopback = ask(docker, loopback);
    let ports = docker
        .ok(&["port", &server])
        .replace(&number.to_string(), "A");
    let ports = ports.replace(&(number + 10).to_string(), "B");
    let mut ports: Vec<_> = ports.lines().collect();
    ports.sort_unstable();
    let served = (&*through_bridge, &*through_loopback);
    assert_eq!(served, ("served\n", "served\n"));
    observed(ports)
}

pub fn published_datagrams(docker: &Docker) -> Verdict {
    const ECHO: &str = "use Socket; $| = 1; socket(S, PF_INET, SOCK_DGRAM, 0) or die; bind(S, sockaddr_in(5000, INADDR_ANY)) or die; print \"ready\\n\"; while ($from = recv(S, $m, 1000, 0)) { send(S, \"<$m>\", 0, $from) }";
    let number = if docker.runtime.is_ours() {
        18_101
    } else {
        18_100
    };
    docker.daemon().load_debian();
    let name = docker.name("server");
    let publish = format!("{number}:5000/udp");
    docker.ok(&[
        "run",
        "--detach",
        "--name",
        &name,
        "--network",
        "bridge",
        "-p",
        &publish,
        "debian",
        "perl",
        "-e",
        ECHO,
    ]);
    docker.expect_log(&name, "ready");
    let gateway = docker.inspect(&name, ".NetworkSettings.Gateway");
    let gateway: IpAddr = gateway.parse().expect("an address");
    let socket = docker
        .daemon()
        .inside_network(|| UdpSocket::bind("0.0.0.0:0").expect("a socket"));
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .expect("a limit");
    let mut heard = String::new();
    // Datagrams may be lost.
    wait_until(LIMIT, || {
        let mut buffer = [0; 100];
        let asked = socket.send_to(b"asked", (gateway, number));
        let answer = asked.and_then(|_| socket.recv(&mut buffer));
        heard = answer.map_or_else(
            |error| error.to_string(),
            |length| String::from_utf8_lossy(&buffer[..length]).into_owned(),
        );
        heard == "<asked>"
    });
    exactly(&*heard, "<asked>")
}

pub fn no_network(docker: &Docker) -> Verdict {
    let seen = docker.sh(
        &["--network", "none"],
        "ls /sys/class/net; ping -c 1 -W 30 127.0.0.1 | grep -c from; ip route | wc -l",
    );
    exactly(&*seen, "lo\n1\n0\n")
}

pub fn servers_for_names(docker: &Docker) -> Verdict {
    let options = [
        "--network",
        "bridge",
        "--dns",
        "192.0.2.53",
        "--dns-search",
        "example.test",
        "--dns-option",
        "ndots:3",
    ];
    let seen = docker.sh(&options, "grep -v -e ^# -e ^$ /etc/resolv.conf | sort");
    exactly(
        &*seen,
        "nameserver 192.0.2.53\noptions ndots:3\nsearch example.test\n",
    )
}

pub fn network_of_another_container(docker: &Docker) -> Verdict {
    let other = server(docker, "other", &["--network", "bridge"]);
    let network = format!("container:{other}");
    refused(
        docker,
        &["--network", &network],
        "it belongs to another virtual machine",
    )
}

pub fn kept_over_a_restart(docker: &Docker) -> Verdict {
    let server = server(docker, "server", &["--network", "bridge"]);
    docker.ok(&["restart", "--time", "0", &server]);
    let ready = "ready\nready";
    docker.expect_log(&server, ready);
    let ip = docker.inspect(&server, ".NetworkSettings.IPAddress");
    let target = SocketAddr::new(ip.parse().expect("an address"), 8080);
    exactly(&*ask(docker, target), "served\n")
}
