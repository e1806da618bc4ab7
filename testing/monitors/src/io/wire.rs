//! A network with one tap, and iperf3 through it.
#![expect(unsafe_code, reason = "TUNSETIFF has no safe wrapper")]
// UNSAFETY: the one call passes the `ifreq` that the kernel's header gives for the request, alive for the whole call.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// How often a server that does not listen yet is asked.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// The host's end of a card, in this process's network namespace.
pub struct Wire {
    number: u8,
}

impl Wire {
    /// A tap that is up, and its one queue. It is gone when that is closed.
    pub fn new(number: u8) -> Result<(Self, OwnedFd)> {
        let name = format!("measured{number}");
        let queue = tap(&name).context("make a tap")?;
        let address = format!("10.137.{number}.1/24");
        ip(&["address", "add", &address, "dev", &name])?;
        ip(&["link", "set", &name, "up"])?;
        Ok((Self { number }, queue))
    }

    /// What the guest is to do.
    pub fn script(&self) -> String {
        let address = self.guest();
        format!(
            "ip link set lo up && ip addr add {address}/24 dev eth0 && ip link set eth0 up || exit; \
             iperf3 --server </dev/null >/dev/null 2>&1 &"
        )
    }

    fn guest(&self) -> String {
        format!("10.137.{}.2", self.number)
    }

    /// Gigabits per second that arrive when so many bytes are sent, to the guest or from it.
    pub async fn throughput(&self, bytes: u64, from_guest: bool) -> Result<f64> {
        let mut told = String::new();
        for _ in 0..TRIES {
            let mut client = tokio::process::Command::new("iperf3");
            client.kill_on_drop(true);
            client.args(["--json", "--client", &self.guest()]);
            client.args(["--bytes", &bytes.to_string()]);
            if from_guest {
                client.arg("--reverse");
            }
            let done = client.output().await.context("run iperf3")?;
            told = String::from_utf8_lossy(&done.stdout).into_owned();
            let answer: Value = serde_json::from_str(&told).unwrap_or_default();
            if let Some(bits) = answer["end"]["sum_received"]["bits_per_second"].as_f64() {
                return Ok(bits / 1e9);
            }
            tokio::time::sleep(PAUSE).await;
        }
        bail!("iperf3: {told}");
    }
}

/// Gives this process a network of its own.
pub fn alone() -> Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).context("leave the network")?;
    ip(&["link", "set", "lo", "up"])
}

fn ip(words: &[&str]) -> Result<()> {
    let done = Command::new("ip").args(words).output().context("run ip")?;
    if !done.status.success() {
        bail!("ip {words:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}

fn tap(name: &str) -> io::Result<OwnedFd> {
    let file = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    // SAFETY: plain data, for which all zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = i8::from_ne_bytes([from]);
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(io::Error::other)?;
    // SAFETY: the kernel reads and writes an `ifreq`, which this is.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file.into())
}
