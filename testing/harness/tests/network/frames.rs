//! Bundles with rights, and frames as they are on the wire.

use std::fs;
use std::process::Command;

use harness::{Cofferdam, Namespaces, finish, image};
use serde_json::{Value, json};

use crate::LIMIT;

/// Writes a bundle of busybox that sleeps, whose network is namespace `a`; answers its folder.
pub fn bundle(
    cofferdam: &Cofferdam,
    namespaces: &Namespaces,
    capabilities: &[&str],
    change: impl FnOnce(&mut Value),
) -> String {
    let folder = cofferdam.folder().join("bundle");
    let rootfs = folder.join("rootfs");
    if !rootfs.exists() {
        fs::create_dir_all(&rootfs).expect("a folder");
        let archive = image("busybox.rootfs.tar").unwrap_or_else(|reason| panic!("{reason}"));
        let mut tar = Command::new("tar");
        let done = finish(tar.arg("-xf").arg(archive).arg("-C").arg(&rootfs), LIMIT);
        assert_eq!(done.code, 0, "{done:?}");
    }
    let mount = |destination: &str, kind: &str| json!({ "destination": destination, "type": kind, "source": kind });
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "args": ["sleep", "100000"],
            "env": ["PATH=/bin:/sbin"],
            "cwd": "/",
            "user": { "uid": 0, "gid": 0 },
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        },
        "root": { "path": "rootfs" },
        "mounts": [mount("/proc", "proc"), mount("/dev", "tmpfs")],
        "linux": { "namespaces": [
            { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" },
            { "type": "network", "path": namespaces.path("a") },
        ] },
    });
    change(&mut config);
    fs::write(folder.join("config.json"), config.to_string()).expect("a configuration");
    folder.to_str().expect("a path that is text").to_owned()
}

/// Runs a bundle in the background.
pub fn detached(cofferdam: &Cofferdam, bundle: &str) {
    // The container has the command's stdio for as long as it lives.
    let null = || {
        fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .expect("/dev/null")
    };
    let mut run = cofferdam.command(["run", "--detach", "--bundle", bundle, "c"]);
    let done = run.stdin(null()).stdout(null()).stderr(null()).status();
    assert!(
        done.is_ok_and(|status| status.success()),
        "{}",
        cofferdam.log()
    );
}

pub type Mac = [u8; 6];

/// The Ethernet address in a line of `ip -o link`.
pub fn mac(line: &str) -> Mac {
    let text = line
        .split_whitespace()
        .skip_while(|word| *word != "link/ether")
        .nth(1)
        .unwrap_or_else(|| panic!("no address in {line}"));
    let bytes: Vec<_> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).expect("a byte"))
        .collect();
    bytes.try_into().expect("six bytes")
}

/// An Ethernet frame to everybody.
pub fn ethernet(sender: Mac, kind: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(sender);
    frame.extend(kind.to_be_bytes());
    frame.extend(body);
    frame
}

/// An IPv6 packet; ICMPv6 gets its checksum.
pub fn ipv6(sender: [u8; 16], target: [u8; 16], next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![0x60, 0, 0, 0];
    body.extend(
        u16::try_from(payload.len())
            .expect("a short one")
            .to_be_bytes(),
    );
    body.extend([next, hops]);
    body.extend(sender);
    body.extend(target);
    body.extend(payload);
    if next == 58 {
        let sum = checksum(&body);
        body[42..44].copy_from_slice(&sum.to_be_bytes());
    }
    body
}

/// Of an ICMPv6 packet whose own field is zero: over addresses, length, protocol and payload (RFC 4443).
fn checksum(packet: &[u8]) -> u16 {
    let length = u32::from(packet[4]) << 8 | u32::from(packet[5]);
    let mut sum = length + 58;
    for pair in packet[8..].chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("two bytes")
}

/// An IPv6 address by its text.
pub fn six(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>()
        .expect("an address")
        .octets()
}

/// The address that an interface with this Ethernet address gives itself.
pub fn link_local(mac: Mac) -> [u8; 16] {
    let mut address = six("fe80::");
    address[8..11].copy_from_slice(&mac[..3]);
    address[8] ^= 2;
    address[11..13].copy_from_slice(&[0xff, 0xfe]);
    address[13..].copy_from_slice(&mac[3..]);
    address
}

/// A router with the network fd55::/64, behind the interface of this line of `ip -o link`.
pub fn router_advertisement(line: &str) -> Vec<u8> {
    let sender = mac(line);
    // Type, code, checksum, hop limit, flags, lifetime, two timers; then the prefix option of 32 bytes.
    let mut payload = vec![134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    payload.extend([3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 0, 0]);
    payload.extend(six("fd55::"));
    let body = ipv6(link_local(sender), six("ff02::1"), 58, 255, &payload);
    let mut frame = ethernet(sender, 0x86dd, &body);
    frame[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    frame
}

/// Sends a frame out of an interface of a namespace.
pub fn send(namespaces: &Namespaces, name: &str, interface: &str, frame: &[u8]) {
    let link = namespaces.ip(name, &format!("-o link show {interface}"));
    let index = link.split(':').next().expect("an index");
    let mut perl = namespaces.command(name, "perl");
    let done = finish(perl.args(["-e", SENDER, index, &hex(frame)]), LIMIT);
    assert_eq!(done.code, 0, "{done:?}");
}

/// Sends frames: the interface's index or name, and each frame in hexadecimal digits.
pub const SENDER: &str = r#"
my $index = shift @ARGV;
if ($index =~ /^[a-z]/) {
    open(my $file, "<", "/sys/class/net/$index/ifindex") or die "index: $!";
    $index = <$file>;
}
socket(my $socket, 17, 3, 0) or die "socket: $!";
for my $frame (@ARGV) {
    send($socket, pack("H*", $frame), 0, pack("S n i S C C a8", 17, 3, $index, 0, 0, 6, "")) or die "send: $!";
}
"#;

/// In hexadecimal digits.
pub fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}
