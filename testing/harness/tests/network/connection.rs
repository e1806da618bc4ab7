//! What a guest has of its namespace.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use harness::Cofferdam;

use crate::{background, inside, pair};

#[test]
fn the_guest_has_what_the_namespace_has() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let namespaces = pair();
    for words in [
        "link set eth0 mtu 1400 address 02:00:00:00:77:02",
        "addr add 10.77.9.9/32 dev eth0",
        "route add 192.0.2.0/24 via 10.77.0.7 metric 7 mtu 1300 src 10.77.9.9",
        "route add 198.51.100.1 dev eth0 scope link",
        "route add blackhole 203.0.113.0/24",
        "route add 192.0.3.0/24 via 10.5.5.5 dev eth0 onlink",
        "neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent",
        "-6 route add 2001:db8:1::/64 via fd77::7 metric 77",
        "-6 route add 2001:db8:2::/64 via fd99::1 dev eth0 onlink",
        "-6 route add 2001:db8:3::1 dev eth0",
        "-6 route add blackhole 2001:db8:4::/64",
        "neigh add fd77::9 lladdr 02:00:00:00:00:0a dev eth0 nud permanent",
    ] {
        namespaces.ip("a", words);
    }
    namespaces.ip("b", "link set peer0 mtu 1400");
    background(&cofferdam, &namespaces, "c", &[]);
    let seen = inside(
        &cofferdam,
        "c",
        "ip addr; ip route; ip -6 route; ip neigh; ls /sys/class/net",
    );
    for part in [
        "mtu 1400",
        "link/ether 02:00:00:00:77:02",
        "inet 10.77.0.2/24",
        "inet 10.77.9.9/32",
        "inet6 fd77::2/64",
        "default via 10.77.0.1 dev eth0",
        "10.77.0.0/24 dev eth0 scope link  src 10.77.0.2",
        "192.0.2.0/24 via 10.77.0.7 dev eth0  src 10.77.9.9  metric 7",
        "198.51.100.1 dev eth0 scope link",
        "blackhole 203.0.113.0/24",
        "192.0.3.0/24 via 10.5.5.5 dev eth0 onlink",
        "default via fd77::1 dev eth0",
        "10.77.0.9 dev eth0 lladdr 02:00:00:00:00:09",
        "2001:db8:1::/64 via fd77::7 dev eth0  metric 77",
        "2001:db8:2::/64 via fd99::1 dev eth0",
        "2001:db8:3::1 dev eth0",
        "blackhole 2001:db8:4::/64",
        "fd77::9 dev eth0 lladdr 02:00:00:00:00:0a",
        // No card beside it can be seen, though the machine has a spare one.
        "eth0\nlo\n",
    ] {
        assert!(seen.stdout.contains(part), "{part}: {}", seen.stdout);
    }
    // Nothing is still being tried, and nothing of its own was added.
    assert!(!seen.stdout.contains("tentative"), "{}", seen.stdout);
    assert_eq!(
        seen.stdout.matches("inet6 fe80").count(),
        1,
        "{}",
        seen.stdout
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
fn both_ends_reach_each_other() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let namespaces = pair();
    background(&cofferdam, &namespaces, "c", &[]);
    for target in ["10.77.0.1", "fd77::1"] {
        let pinged = inside(&cofferdam, "c", &format!("ping -c 2 -W 10 {target}"));
        assert_eq!(pinged.code, 0, "{pinged:?}");
    }
    for target in ["10.77.0.2", "fd77::2"] {
        let pinged = namespaces.busybox("b", &format!("ping -c 2 -W 10 {target}"));
        assert_eq!(pinged.code, 0, "{pinged:?}");
    }
    // Whole packets pass, none larger than the interface's.
    let large = inside(
        &cofferdam,
        "c",
        "ping -c 1 -W 10 -s 1472 10.77.0.1 && ping -c 1 -W 10 -s 20000 10.77.0.1",
    );
    assert_eq!(large.code, 0, "{large:?}");
}

#[test]
fn the_namespaces_own_services_are_out_of_reach() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let namespaces = pair();
    // Listens on every address of the namespace, as a careless service of the host would.
    let listener = namespaces.inside("a", || TcpListener::bind("0.0.0.0:7777"));
    let listener = listener.expect("a listener");
    let reached = || {
        namespaces.inside("b", || {
            let address = "10.77.0.2:7777".parse().expect("an address");
            TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok()
        })
    };
    assert!(reached(), "the listener is there before the container");
    background(&cofferdam, &namespaces, "c", &[]);
    for target in ["10.77.0.2", "127.0.0.1"] {
        let tried = inside(
            &cofferdam,
            "c",
            &format!("nc -w 5 {target} 7777 < /dev/null"),
        );
        assert_ne!(tried.code, 0, "{target}: {tried:?}");
    }
    assert!(
        !reached(),
        "the container answers for its addresses, and has no listener"
    );
    cofferdam.ok(["rm", "-f", "c"]);
    assert!(reached(), "and all is as before after it");
    drop(listener);
}

#[test]
fn much_data_goes_both_ways() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    const MEBIBYTES: usize = 64;
    let namespaces = pair();
    // Two processors: two queues.
    background(&cofferdam, &namespaces, "c", &["--cpus", "2"]);
    let queues = inside(&cofferdam, "c", "ls -d /sys/class/net/eth0/queues/rx-*");
    assert_eq!(queues.stdout.lines().count(), 2, "{queues:?}");
    let listener = namespaces
        .inside("b", || TcpListener::bind("0.0.0.0:5000"))
        .expect("a listener");
    let block: Vec<u8> = (0..1_u32 << 18)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    std::thread::scope(|scope| {
        let peer = scope.spawn(|| {
            let (mut sending, _) = listener.accept().expect("a connection");
            for _ in 0..MEBIBYTES {
                sending.write_all(&block).expect("all is taken");
            }
            drop(sending);
            let (mut receiving, _) = listener.accept().expect("a connection");
            let mut all = Vec::new();
            receiving.read_to_end(&mut all).expect("all arrives");
            all
        });
        let script = "cd /sys/class/net/eth0/statistics
            nc 10.77.0.1 5000 < /dev/null > /dev/shm/data && wc -c < /dev/shm/data && cat rx_bytes rx_packets tx_bytes tx_packets
            nc 10.77.0.1 5000 < /dev/shm/data && cat tx_bytes tx_packets";
        let done = inside(&cofferdam, "c", script);
        assert_eq!(done.code, 0, "{done:?}");
        let numbers = done
            .stdout
            .lines()
            .map(|line| line.parse().expect("a number"));
        let numbers: Vec<usize> = numbers.collect();
        let [size, received, came, sent, went, sent_then, went_then] = numbers[..] else {
            panic!("{done:?}");
        };
        assert_eq!(size, MEBIBYTES << 20);
        // Pieces larger than the interface's, which whoever can do it best takes apart.
        assert!(received / came > 3000, "{done:?}");
        assert!((sent_then - sent) / (went_then - went) > 3000, "{done:?}");
        let back = peer.join().expect("a peer");
        assert!(
            back.len() == MEBIBYTES << 20 && back.chunks(block.len()).all(|part| part == block),
            "{} bytes came back changed",
            back.len()
        );
    });
}

#[test]
fn names_are_asked_for_where_the_namespace_says() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let namespaces = pair();
    let name = namespaces.path("a");
    let folder = std::path::Path::new("/etc/netns").join(name.file_name().expect("a name"));
    fs::create_dir_all(&folder).expect("a folder");
    let written = fs::write(
        folder.join("resolv.conf"),
        "search test\nnameserver 127.0.0.1\nnameserver 10.77.0.1\n",
    );
    let net = format!("ns:{}", name.display());
    let read = cofferdam.run([
        "run",
        "--rm",
        "--net",
        &net,
        cofferdam.busybox(),
        "cat",
        "/etc/resolv.conf",
    ]);
    fs::remove_dir_all(&folder).expect("a folder that goes");
    // Nothing else of ours may stay in /etc.
    let _others_use_it = fs::remove_dir("/etc/netns");
    written.expect("a file");
    assert_eq!(
        read.stdout, "search test\nnameserver 10.77.0.1\n",
        "{read:?}"
    );
}

#[test]
fn what_cannot_be_is_refused() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    let busybox = cofferdam.busybox();
    let namespaces = pair();
    let net = format!("ns:{}", namespaces.path("a").display());
    for (net, said) in [
        ("host", "use --net bridge"),
        ("ns:/proc/self/ns/net", "--network bridge"),
        ("ns:/nonexistent", "/nonexistent"),
        ("ns:/dev/null", "/dev/null"),
        ("container:x", "another virtual machine"),
    ] {
        let refused = cofferdam.run(["run", "--rm", "--net", net, busybox, "true"]);
        assert!(
            refused.code == 125 || refused.code == 1,
            "{net}: {refused:?}"
        );
        assert!(refused.stderr.contains(said), "{net}: {refused:?}");
    }
    background(&cofferdam, &namespaces, "first", &[]);
    let second = cofferdam.run(["run", "--rm", "--net", &net, busybox, "true"]);
    assert!(second.stderr.contains("container first"), "{second:?}");
    // A process's namespace, through which engines join containers of other runtimes.
    let mut other = namespaces
        .command("b", "sleep")
        .arg("1000")
        .spawn()
        .expect("a process");
    let of_process = format!("ns:/proc/{}/ns/net", other.id());
    let joined = cofferdam.run(["run", "--rm", "--net", &of_process, busybox, "true"]);
    let (_killed, _reaped) = (other.kill(), other.wait());
    assert!(
        joined
            .stderr
            .contains("would take the network's interfaces away"),
        "{joined:?}"
    );
    // The first is none the worse for it.
    let pinged = inside(&cofferdam, "first", "ping -c 1 -W 10 10.77.0.1");
    assert_eq!(pinged.code, 0, "{pinged:?}");
}
