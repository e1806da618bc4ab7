//! Frames between a namespace and what runs behind it: a container of runc's, one of ours, and QEMU on a tap with
//! nothing of ours on the host.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use harness::{Namespaces, wait_until};
use serde_json::Value;

use crate::bundle::Bundle;
use crate::floor;
use crate::runtime::Runtime;

/// The address that is measured from, and the one that is measured.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 136, 0, 1);
const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 136, 0, 2);

/// Longer than a start takes, and than anything is measured.
const LIMIT: Duration = Duration::from_secs(60);

/// Bytes and round trips of one subject.
#[derive(Debug)]
pub struct Throughput {
    pub name: String,
    /// Gigabits per second towards it.
    pub towards: Vec<f64>,
    /// Gigabits per second from it.
    pub from: Vec<f64>,
    /// Mean round trips in milliseconds.
    pub ping: Vec<f64>,
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    pub rounds: u32,
    pub seconds: u64,
    pub pings: u32,
}

/// Why nothing can be measured here.
pub fn missing() -> Option<String> {
    let programs = ["/usr/bin/iperf3", "/usr/bin/cpio", "/usr/bin/nsenter"];
    let missing = programs.iter().find(|path| !Path::new(path).exists())?;
    Some(format!(
        "{missing} is missing: `packaging/deps.sh test` installs it"
    ))
}

/// Measures bare QEMU, then the runtimes; the first of the list is what others are compared with.
pub fn measure(
    runtimes: &[&Runtime],
    prefix: &Path,
    folder: &Path,
    extent: Extent,
) -> Result<Vec<Throughput>> {
    let image = guest(&folder.join("guest"))?;
    let mut all = vec![subject("QEMU on a tap".to_owned())];
    all.extend(
        runtimes
            .iter()
            .map(|runtime| subject(runtime.description())),
    );
    for round in 0..extent.rounds {
        eprintln!("network: round {} of {}", round + 1, extent.rounds);
        for (number, measured) in all.iter_mut().enumerate() {
            let runtime = number.checked_sub(1).and_then(|index| runtimes.get(index));
            let done = match runtime {
                None => bare(prefix, &image, measured, extent),
                Some(runtime) => container(runtime, folder, measured, extent),
            };
            done.with_context(|| format!("the network of {}", measured.name))?;
        }
    }
    Ok(all)
}

fn subject(name: String) -> Throughput {
    Throughput {
        name,
        towards: Vec::new(),
        from: Vec::new(),
        ping: Vec::new(),
    }
}

fn bare(prefix: &Path, image: &Path, measured: &mut Throughput, extent: Extent) -> Result<()> {
    let namespaces = Namespaces::new(&["out"]);
    namespaces.ip("out", "tuntap add tap0 mode tap vnet_hdr");
    namespaces.ip("out", &format!("addr add {OUTSIDE}/24 dev tap0"));
    namespaces.ip("out", "link set tap0 up");
    let mut command = namespaces.command("out", floor::QEMU);
    let kernel = prefix.join("lib/cofferdam/vmlinux");
    floor::machine(&mut command, &kernel, image, floor::rate()?);
    command
        .args([
            "-netdev",
            "tap,id=net,ifname=tap0,script=no,downscript=no,vnet_hdr=on",
        ])
        .args(["-device", "virtio-net-device,netdev=net"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _machine = Ended(command.spawn().context("cannot start QEMU")?);
    throughput(&namespaces, measured, extent)
}

fn container(
    runtime: &Runtime,
    folder: &Path,
    measured: &mut Throughput,
    extent: Extent,
) -> Result<()> {
    let namespaces = Namespaces::new(&["out", "in"]);
    namespaces.connect(("in", "eth0"), ("out", "peer0"));
    namespaces.ip("in", &format!("addr add {INSIDE}/24 dev eth0"));
    namespaces.ip("out", &format!("addr add {OUTSIDE}/24 dev peer0"));
    let folder = tempfile::tempdir_in(folder).context("cannot make a folder")?;
    let command = ["/bin/iperf3", "--server"];
    let bundle = Bundle::with_network(folder.path(), &command, &namespaces.path("in"))?;
    copy_program(&bundle.path().join("rootfs"))?;
    let id = "bench-network";
    let path = bundle.path().display().to_string();
    runtime.call(&["create", "--bundle", &path, id])?;
    let done = runtime
        .call(&["start", id])
        .and_then(|_| throughput(&namespaces, measured, extent));
    runtime.call(&["delete", "--force", id])?;
    done
}

fn throughput(namespaces: &Namespaces, measured: &mut Throughput, extent: Extent) -> Result<()> {
    let seconds = extent.seconds.to_string();
    let time = ["--time", &seconds];
    measured.towards.push(iperf(namespaces, &time)?);
    let reverse = ["--reverse", "--time", &seconds];
    measured.from.push(iperf(namespaces, &reverse)?);
    let count = extent.pings;
    let done = namespaces.busybox("out", &format!("ping -q -i 0.02 -c {count} {INSIDE}"));
    // round-trip min/avg/max = 0.1/0.2/0.3 ms
    let mean = done.stdout.lines().find_map(|line| {
        line.strip_prefix("round-trip")?
            .split('/')
            .nth(3)?
            .parse()
            .ok()
    });
    let mean = mean.with_context(|| format!("ping: {done:?}"))?;
    measured.ping.push(mean);
    Ok(())
}

/// Gigabits per second that have arrived. The guest's address and its server come up one after the other, and the server
/// does not listen for a moment behind each client, so a client that is refused tries again.
fn iperf(namespaces: &Namespaces, options: &[&str]) -> Result<f64> {
    let mut last = None;
    let mut bits = None;
    wait_until(LIMIT, || {
        let mut command = namespaces.command("out", "iperf3");
        command
            .args(["--json", "--connect-timeout", "1000"])
            .args(["--client", &INSIDE.to_string()])
            .args(options);
        let done = harness::finish(&mut command, LIMIT);
        let told: Value = serde_json::from_str(&done.stdout).unwrap_or_default();
        bits = told["end"]["sum_received"]["bits_per_second"].as_f64();
        last = Some(done);
        bits.is_some()
    });
    let bits = bits.with_context(|| format!("iperf3 {options:?} within {LIMIT:?}: {last:?}"))?;
    Ok(bits / 1e9)
}

/// A guest image with busybox and a server for iperf3.
fn guest(folder: &Path) -> Result<PathBuf> {
    let bundle = Bundle::make(folder, &[])?;
    let root = bundle.path().join("rootfs");
    copy_program(&root)?;
    let script = format!(
        "#!/bin/busybox sh\n\
         /bin/busybox mount -t devtmpfs none /dev\n\
         /bin/busybox ip addr add {INSIDE}/24 dev eth0\n\
         /bin/busybox ip link set lo up\n\
         /bin/busybox ip link set eth0 up\n\
         exec /bin/iperf3 --server\n"
    );
    let init = root.join("init");
    fs::write(&init, script).context("cannot write a script")?;
    let image = folder.join("initramfs.cpio");
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "chmod +x init && find . | cpio --quiet -o -H newc > ../initramfs.cpio",
        ])
        .current_dir(&root);
    let done = harness::finish(&mut command, LIMIT);
    if done.code != 0 {
        bail!("cannot pack a guest image: {}", done.stderr);
    }
    Ok(image)
}

/// Puts the machine's iperf3 into a root file system, with its libraries.
fn copy_program(root: &Path) -> Result<()> {
    let program = "/usr/bin/iperf3";
    let done = harness::finish(Command::new("ldd").arg(program), LIMIT);
    let libraries = done
        .stdout
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for library in libraries {
        let to = root.join(library.trim_start_matches('/'));
        let folder = to.parent().context("a library is in a folder")?;
        fs::create_dir_all(folder).context("cannot make a folder")?;
        fs::copy(library, &to).with_context(|| format!("cannot copy {library}"))?;
    }
    fs::copy(program, root.join("bin/iperf3")).with_context(|| format!("cannot copy {program}"))?;
    Ok(())
}

/// A process that ends with this value.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Failures mean that it has ended already.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}
