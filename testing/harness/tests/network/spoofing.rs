//! Two tenants on one network: the one in a virtual machine cannot pass for anybody else.

use std::time::Duration;

use harness::{Cofferdam, Namespaces, image};

use crate::frames::{Mac, SENDER, ethernet, hex, ipv6, link_local, mac, six};

/// In all frames of these tests.
const MARK: &[u8] = b"cofferdam-frame-";

/// A bridge, the attacker's namespace `a` and a neighbour's, `n`, both connected to it.
fn street() -> Namespaces {
    let namespaces = Namespaces::new(&["a", "n", "bridge"]);
    namespaces.ip("bridge", "link add br0 type bridge");
    namespaces.ip("bridge", "link set br0 up");
    for (name, port, four, six) in [
        ("a", "port-a", "10.77.0.2/24", "fd77::2/64"),
        ("n", "port-n", "10.77.0.3/24", "fd77::3/64"),
    ] {
        namespaces.connect((name, "eth0"), ("bridge", port));
        namespaces.ip("bridge", &format!("link set {port} master br0"));
        namespaces.ip(name, &format!("addr add {four} dev eth0"));
        namespaces.ip(name, &format!("addr add {six} dev eth0 nodad"));
    }
    namespaces
}

/// Frames with names; those that a well-behaved guest may send are marked so.
fn frames(own: Mac) -> Vec<(&'static str, bool, Vec<u8>)> {
    let other: Mac = [2, 0, 0, 0, 0, 0x99];
    let ip = |sender: [u8; 4]| {
        let mut body = vec![0x45, 0, 0, 60, 0, 0, 0, 0, 64, 17, 0, 0];
        body.extend(sender);
        body.extend([10, 77, 0, 3, 0, 9, 0, 9, 0, 40, 0, 0]);
        body
    };
    let arp = |hardware: Mac, sender: [u8; 4]| {
        let mut body = vec![0, 1, 8, 0, 6, 4, 0, 2];
        body.extend(hardware);
        body.extend(sender);
        body.extend([0; 6]);
        body.extend([10, 77, 0, 3]);
        body
    };
    let me = link_local(own);
    let all = six("ff02::1");
    let icmp = |kind: u8, target: &str| {
        let mut payload = vec![kind, 0, 0, 0, 0x60, 0, 0, 0];
        payload.extend(six(target));
        payload.extend([2, 1]);
        payload.extend(own);
        payload
    };
    let v6 = |sender: [u8; 16], next: u8, hops: u8, payload: Vec<u8>| {
        ethernet(own, 0x86dd, &ipv6(sender, all, next, hops, &payload))
    };
    let mut advertisement = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    advertisement.extend([3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 0, 0]);
    advertisement.extend(six("fd66::"));
    // Destination options in front of it: padding of four bytes.
    let mut hidden = vec![58, 0, 1, 4, 0, 0, 0, 0];
    hidden.extend(&advertisement);
    // A fragment that is the whole.
    let mut fragment = vec![58, 0, 0, 0, 0, 0, 0, 1];
    fragment.extend(&advertisement);
    let mut tagged = vec![0, 5, 8, 0];
    tagged.extend(ip([10, 77, 0, 2]));
    let six_of = |text: &str| six(text);
    let list = vec![
        ("own IPv4", true, ethernet(own, 0x0800, &ip([10, 77, 0, 2]))),
        (
            "own ARP",
            true,
            ethernet(own, 0x0806, &arp(own, [10, 77, 0, 2])),
        ),
        ("ARP probe", true, ethernet(own, 0x0806, &arp(own, [0; 4]))),
        ("own IPv6", true, v6(six_of("fd77::2"), 17, 64, vec![0; 8])),
        ("own link-local", true, v6(me, 17, 64, vec![0; 8])),
        (
            "own advertisement",
            true,
            v6(me, 58, 255, icmp(136, "fd77::2")),
        ),
        ("solicitation", true, v6(me, 58, 255, icmp(135, "fd77::3"))),
        (
            "neighbour's IPv4",
            false,
            ethernet(own, 0x0800, &ip([10, 77, 0, 3])),
        ),
        (
            "gateway's IPv4",
            false,
            ethernet(own, 0x0800, &ip([10, 77, 0, 1])),
        ),
        (
            "other MAC",
            false,
            ethernet(other, 0x0800, &ip([10, 77, 0, 2])),
        ),
        (
            "ARP for the gateway",
            false,
            ethernet(own, 0x0806, &arp(own, [10, 77, 0, 1])),
        ),
        (
            "ARP with other MAC inside",
            false,
            ethernet(own, 0x0806, &arp(other, [10, 77, 0, 2])),
        ),
        (
            "neighbour's IPv6",
            false,
            v6(six_of("fd77::3"), 17, 64, vec![0; 8]),
        ),
        (
            "other link-local",
            false,
            v6(six_of("fe80::1"), 17, 64, vec![0; 8]),
        ),
        (
            "advertisement for the neighbour",
            false,
            v6(me, 58, 255, icmp(136, "fd77::3")),
        ),
        ("router", false, v6(me, 58, 255, advertisement.clone())),
        (
            "router from elsewhere",
            false,
            v6(six_of("fe80::1"), 58, 255, advertisement),
        ),
        ("router behind options", false, v6(me, 60, 255, hidden)),
        ("router in a fragment", false, v6(me, 44, 255, fragment)),
        ("redirect", false, v6(me, 58, 255, icmp(137, "fd77::3"))),
        ("VLAN", false, ethernet(own, 0x8100, &tagged)),
        (
            "two VLANs",
            false,
            ethernet(own, 0x88a8, &[0, 5, 0x81, 0, 0, 6, 8, 0]),
        ),
        (
            "spanning tree",
            false,
            ethernet(own, 0x0026, &[0x42, 0x42, 3, 0, 0]),
        ),
        ("LLDP", false, ethernet(own, 0x88cc, &[2, 7, 4])),
        ("last", true, ethernet(own, 0x0800, &ip([10, 77, 0, 2]))),
    ];
    list.into_iter()
        .enumerate()
        .map(|(number, (name, passes, mut frame))| {
            frame.resize(frame.len().max(60), 0);
            frame.extend(MARK);
            frame.push(u8::try_from(number).expect("few frames"));
            // Bridges may look at packets, and drop or trim those that are wrong in themselves.
            correct(&mut frame);
            (name, passes, frame)
        })
        .collect()
}

/// Sets lengths, and IPv4's checksum.
fn correct(frame: &mut [u8]) {
    let length = u16::try_from(frame.len() - 14).expect("a short frame");
    match frame[12..14] {
        [0x08, 0x00] => {
            frame[16..18].copy_from_slice(&length.to_be_bytes());
            let mut sum: u32 = frame[14..34]
                .chunks(2)
                .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
                .sum();
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            let sum = !u16::try_from(sum).expect("two bytes");
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        [0x86, 0xdd] => frame[18..20].copy_from_slice(&(length - 40).to_be_bytes()),
        _ => {}
    }
}

/// Sends all of them from inside the virtual machine; answers the names of those that the neighbour hears.
fn heard(cofferdam: &Cofferdam) -> Option<(Vec<&'static str>, Vec<&'static str>)> {
    let archive = match image("debian.docker.tar") {
        Ok(archive) => archive,
        Err(reason) => {
            eprintln!("SKIPPED: {reason}");
            return None;
        }
    };
    let namespaces = street();
    let own = mac(&namespaces.ip("a", "-o link show eth0"));
    let frames = frames(own);
    let ear = namespaces.listen("n");
    let net = format!("ns:{}", namespaces.path("a").display());
    let archive = archive.to_str().expect("a path that is text");
    let mut args = vec![
        "run", "--rm", "--net", &net, archive, "perl", "-e", SENDER, "eth0",
    ];
    let digits: Vec<_> = frames.iter().map(|(_, _, frame)| hex(frame)).collect();
    args.extend(digits.iter().map(String::as_str));
    let sent = cofferdam.run(args);
    assert_eq!(sent.code, 0, "{sent:?}");
    let mut names = Vec::new();
    while names.last() != Some(&"last") {
        let frame = ear.next(Duration::from_secs(30)).expect("an ear");
        let frame =
            frame.unwrap_or_else(|| panic!("the last frame does not arrive after {names:?}"));
        let mark = frame.windows(MARK.len()).position(|part| part == MARK);
        if let Some(&number) = mark.and_then(|at| frame.get(at + MARK.len())) {
            names.push(frames[usize::from(number)].0);
        }
    }
    let allowed = frames.iter().filter(|(_, passes, _)| *passes);
    Some((names, allowed.map(|(name, _, _)| *name).collect()))
}

#[test]
fn nobody_hears_forged_frames() {
    let Some(cofferdam) = Cofferdam::new() else {
        return;
    };
    if let Some((heard, allowed)) = heard(&cofferdam) {
        assert_eq!(heard, allowed);
    }
}

#[test]
fn without_the_filter_they_are_heard() {
    let Some(cofferdam) = Cofferdam::with_config("anti_spoofing = false") else {
        return;
    };
    if let Some((heard, allowed)) = heard(&cofferdam) {
        // So the test above can fail.
        assert!(heard.len() > allowed.len() + 10, "{heard:?}");
        for forged in [
            "neighbour's IPv4",
            "ARP for the gateway",
            "router",
            "other MAC",
        ] {
            assert!(heard.contains(&forged), "{forged} is not among {heard:?}");
        }
    }
}
