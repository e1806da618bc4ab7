//! The root filesystem, devices, masked and read-only paths, and the host name.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::case::{Case, Verdict, case, differs, passed};
use crate::environment::Env;

/// The cases of this group.
pub const CASES: &[Case] = &[
    case("rootfs/writes-reach-the-bundle", writes),
    case("rootfs/read-only", read_only),
    case("rootfs/absolute-path", absolute),
    case("rootfs/missing-named", missing),
    case("rootfs/host-is-out-of-reach", out_of_reach),
    case("rootfs/default-devices", default_devices),
    case("rootfs/default-links", default_links),
    case("rootfs/extra-device", extra_device),
    case("rootfs/shared-memory", shared_memory),
    case("rootfs/masked-paths", masked),
    case("rootfs/read-only-paths", read_only_paths),
    case("namespaces/process-1", process_one),
    case("namespaces/host-name", host_name),
    case("namespaces/domain-name", domain_name),
    differs(
        "namespaces/differ-from-host",
        "namespaces of the guest's kernel have numbers that say nothing on the host: the other kernel itself is checked",
        differ_from_host,
    ),
    case("namespaces/own-ipc", own_ipc),
    case("namespaces/network-has-loopback-only", own_network),
    case("sysctl/ipc-limits", sysctl_ipc),
    case("sysctl/network", sysctl_network),
    case("sysctl/unknown-refused", sysctl_unknown),
];

fn writes(env: &Env) -> Result<Verdict> {
    let bundle = env.script("echo content > /written; mkdir /made; rm /etc/group")?;
    env.run_text(&bundle)?;
    ensure!(
        fs::read_to_string(bundle.rootfs("written"))? == "content\n",
        "the file is not in the bundle"
    );
    ensure!(
        bundle.rootfs("made").is_dir() && !bundle.rootfs("etc/group").exists(),
        "changes are not in the bundle"
    );
    passed()
}

fn read_only(env: &Env) -> Result<Verdict> {
    let mut bundle = env.script(
        "touch /new 2>&1; rm /etc/passwd 2>&1; echo x > /dev/shm/fine && cat /dev/shm/fine",
    )?;
    bundle.set("/root/readonly", json!(true));
    let text = env.run_text(&bundle)?;
    ensure!(
        text.matches("Read-only file system").count() == 2,
        "the root is not read-only: {text:?}"
    );
    ensure!(
        text.ends_with('x'),
        "mounts on a read-only root are not writable: {text:?}"
    );
    ensure!(
        !bundle.rootfs("new").exists() && bundle.rootfs("etc/passwd").exists(),
        "the root was changed"
    );
    passed()
}

fn absolute(env: &Env) -> Result<Verdict> {
    let mut bundle = env.script("cat /marker")?;
    let elsewhere = env.dir.join("elsewhere");
    fs::rename(bundle.path.join("rootfs"), &elsewhere)?;
    fs::write(elsewhere.join("marker"), "found")?;
    bundle.set("/root/path", json!(elsewhere));
    ensure!(
        env.run_text(&bundle)? == "found",
        "an absolute root.path is not used"
    );
    passed()
}

fn missing(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    bundle.set("/root/path", json!("no-such-rootfs"));
    env.refuses(&bundle, &["no-such-rootfs"])?;
    env.nothing_left()?;
    passed()
}

fn out_of_reach(env: &Env) -> Result<Verdict> {
    let secret = env.dir.join("secret");
    fs::write(&secret, "secret")?;
    let path = secret.to_string_lossy();
    let script = format!(
        "cat {path} /../../../..{path} 2>/dev/null; cat /proc/1/root{path} 2>/dev/null; \
         ls -d /../bin/busybox; cd /; cd ..; pwd; grep -c {} /proc/mounts; exit 0",
        env.dir.join("root").display()
    );
    let text = env.run_text(&env.script(&script)?)?;
    ensure!(
        text == "/../bin/busybox\n/\n0",
        "the container sees {text:?}"
    );
    passed()
}

fn default_devices(env: &Env) -> Result<Verdict> {
    let script = "for d in null zero full random urandom tty; do stat -c '%n %F %t %T %a' /dev/$d; done; \
                  head -c 4 /dev/zero | od -An -tx1; echo x > /dev/null && echo null; head -c 8 /dev/urandom | wc -c; \
                  echo x 2>/dev/null > /dev/full || echo full";
    let text = env.run_text(&env.script(script)?)?;
    for (name, major, minor) in [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ] {
        let line = format!("/dev/{name} character special file {major} {minor} 666");
        ensure!(text.contains(&line), "wanted {line:?} in\n{text}");
    }
    ensure!(
        text.ends_with(" 00 00 00 00\nnull\n8\nfull"),
        "the devices do not work:\n{text}"
    );
    passed()
}

fn default_links(env: &Env) -> Result<Verdict> {
    let script = "for l in fd stdin stdout stderr; do readlink /dev/$l; done; test -c /dev/ptmx && echo ptmx";
    let text = env.run_text(&env.script(script)?)?;
    let wanted = "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\nptmx";
    ensure!(text == wanted, "the links are {text:?}");
    passed()
}

fn extra_device(env: &Env) -> Result<Verdict> {
    // A second /dev/zero, which every kernel has, with a mode and owner of its own.
    let mut bundle =
        env.script("stat -c '%F %t %T %a %u %g' /dev/extra; head -c 2 /dev/extra | od -An -tx1")?;
    bundle.set(
        "/linux/devices",
        json!([{"path": "/dev/extra", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 0, "gid": 2000}]),
    );
    bundle.push(
        "/linux/resources/devices",
        json!({"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm"}),
    );
    let text = env.run_text(&bundle)?;
    ensure!(
        text == "character special file 1 5 640 0 2000\n 00 00",
        "it printed {text:?}"
    );
    passed()
}

fn shared_memory(env: &Env) -> Result<Verdict> {
    let text = env.run_text(&env.script(
        "grep ' /dev/shm ' /proc/mounts; stat -c %a /dev/shm; echo x > /dev/shm/y; cat /dev/shm/y",
    )?)?;
    ensure!(
        text.contains("tmpfs") && text.contains("size=65536k"),
        "it printed {text:?}"
    );
    ensure!(text.ends_with("1777\nx"), "it printed {text:?}");
    passed()
}

fn masked(env: &Env) -> Result<Verdict> {
    let mut bundle = env.script("ls /secret-dir; cat /secret-file; echo end; echo x 2>/dev/null > /secret-dir/y || echo refused")?;
    fs::create_dir(bundle.rootfs("secret-dir"))?;
    fs::write(bundle.rootfs("secret-dir/inside"), "hidden")?;
    fs::write(bundle.rootfs("secret-file"), "hidden")?;
    bundle.push("/linux/maskedPaths", json!("/secret-dir"));
    bundle.push("/linux/maskedPaths", json!("/secret-file"));
    bundle.push("/linux/maskedPaths", json!("/not/there"));
    let text = env.run_text(&bundle)?;
    ensure!(text == "end\nrefused", "masked paths show {text:?}");
    let text = env.run_text(&env.script(
        "cat /proc/timer_list /proc/keys 2>/dev/null | wc -c; ls /sys/firmware | wc -l",
    )?)?;
    ensure!(text == "0\n0", "masked paths of the kernel show {text:?}");
    passed()
}

fn read_only_paths(env: &Env) -> Result<Verdict> {
    let mut bundle = env.script("cat /kept/file; touch /kept/new 2>&1; echo 1 2>/dev/null > /proc/sys/kernel/msgmax || echo refused")?;
    fs::create_dir(bundle.rootfs("kept"))?;
    fs::write(bundle.rootfs("kept/file"), "content ")?;
    bundle.push("/linux/readonlyPaths", json!("/kept"));
    bundle.push("/linux/readonlyPaths", json!("/not/there"));
    let text = env.run_text(&bundle)?;
    ensure!(
        text.contains("Read-only file system") && text.ends_with("refused"),
        "it printed {text:?}"
    );
    passed()
}

fn process_one(env: &Env) -> Result<Verdict> {
    let text = env.run_text(&env.script(
        "echo $$; ls -d /proc/[0-9]* | wc -l; tr '\\0' ' ' < /proc/1/cmdline | cut -c1-10",
    )?)?;
    let lines: Vec<_> = text.lines().collect();
    ensure!(
        lines.len() == 3 && lines[0] == "1" && lines[2].starts_with("/bin/sh -c"),
        "it printed {text:?}"
    );
    // The shell, ls and wc at most.
    let count: u32 = lines[1].trim().parse()?;
    ensure!((1..=4).contains(&count), "{count} processes are in sight");
    passed()
}

fn host_name(env: &Env) -> Result<Verdict> {
    let own = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let mut bundle = env.script("hostname; cat /proc/sys/kernel/hostname")?;
    bundle.set("/hostname", json!("a-name.example"));
    let text = env.run_text(&bundle)?;
    ensure!(
        text == "a-name.example\na-name.example",
        "the host name is {text:?}"
    );
    ensure!(
        fs::read_to_string("/proc/sys/kernel/hostname")? == own,
        "the host's own name was changed"
    );
    passed()
}

fn domain_name(env: &Env) -> Result<Verdict> {
    use crate::case::skipped;
    let mut bundle = env.bundle()?;
    bundle
        .args(&["/bin/cat", "/proc/sys/kernel/domainname"])
        .set("/domainname", json!("domain.example"));
    bundle.set("/ociVersion", json!("1.1.0"));
    let text = env.run_text(&bundle)?;
    // The field came with runtime-spec 1.1, after the reference runtimes in Debian 12.
    if text == "(none)" && (env.is_reference("runc")? || env.is_reference("crun")?) {
        return skipped("this runtime is older than the field");
    }
    ensure!(text == "domain.example", "the domain name is {text:?}");
    passed()
}

fn differ_from_host(env: &Env) -> Result<Verdict> {
    let kinds = ["pid", "ipc", "uts", "mnt", "net"];
    let script = "for n in pid ipc uts mnt net; do readlink /proc/self/ns/$n; done; cat /proc/sys/kernel/random/boot_id";
    let text = env.run_text(&env.script(script)?)?;
    let lines: Vec<_> = text.lines().collect();
    ensure!(lines.len() == 6, "it printed {text:?}");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    if env.vm {
        ensure!(
            lines[5] != boot.trim(),
            "the container runs on the host's kernel"
        );
        return passed();
    }
    ensure!(
        lines[5] == boot.trim(),
        "the container does not run on the host's kernel; is --expect-vm missing?"
    );
    for (kind, inside) in kinds.iter().zip(&lines) {
        let own = fs::read_link(format!("/proc/self/ns/{kind}")).context("read a namespace")?;
        ensure!(
            own.to_string_lossy() != *inside,
            "the container shares the host's {kind} namespace"
        );
    }
    passed()
}

fn own_ipc(env: &Env) -> Result<Verdict> {
    let (first, second) = (env.sleeper()?, env.sleeper()?);
    first.exec_text("touch /dev/shm/mine /dev/mqueue/mine")?;
    let text = second.exec_text("ls /dev/shm /dev/mqueue | grep -c mine; exit 0")?;
    ensure!(
        text == "0",
        "another container sees shared memory or queues"
    );
    passed()
}

fn own_network(env: &Env) -> Result<Verdict> {
    let text = env.run_text(&env.script("ls /sys/class/net | grep -v -E '^(lo|sit0|ip6tnl0|tunl0|gre0|gretap0|erspan0|ip_vti0|ip6_vti0|ip6gre0|bonding_masters|dummy0|ifb[0-9])$'; ls -d /sys/class/net/lo")?)?;
    ensure!(
        text == "/sys/class/net/lo",
        "a network of its own holds {text:?}"
    );
    passed()
}

fn sysctl_ipc(env: &Env) -> Result<Verdict> {
    let own = fs::read_to_string("/proc/sys/kernel/msgmax")?;
    let mut bundle = env.script("cat /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max")?;
    bundle.set(
        "/linux/sysctl",
        json!({"kernel.msgmax": "12345", "fs.mqueue.msg_max": "20"}),
    );
    let text = env.run_text(&bundle)?;
    ensure!(text == "12345\n20", "the values are {text:?}");
    ensure!(
        fs::read_to_string("/proc/sys/kernel/msgmax")? == own,
        "the host's own value was changed"
    );
    passed()
}

fn sysctl_network(env: &Env) -> Result<Verdict> {
    let mut bundle = env.script(
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ip_unprivileged_port_start",
    )?;
    bundle.set(
        "/linux/sysctl",
        json!({"net.ipv4.ip_forward": "1", "net.ipv4.ip_unprivileged_port_start": "77"}),
    );
    let text = env.run_text(&bundle)?;
    ensure!(text == "1\n77", "the values are {text:?}");
    passed()
}

fn sysctl_unknown(env: &Env) -> Result<Verdict> {
    let mut bundle = env.bundle()?;
    bundle.set("/linux/sysctl", json!({"net.no_such_key": "1"}));
    env.refuses(&bundle, &["no_such_key", "net/no_such_key"])?;
    env.nothing_left()?;
    passed()
}
