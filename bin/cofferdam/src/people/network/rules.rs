//! What the host's packet filter does for containers on our bridge: one table of nftables, written anew each time.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use sandbox::network::Bridge;

use super::connected::Neighbour;

/// The table's name; nothing else of ours is outside of it.
const TABLE: &str = "ip cofferdam";

/// Has the table say what these containers need; without any there is none.
pub fn write(bridge: &Bridge, containers: &[Neighbour]) -> Result<()> {
    load(&text(bridge, containers))
}

fn text(bridge: &Bridge, containers: &[Neighbour]) -> String {
    // To delete it, it has to be there; all of it is one transaction.
    let mut text = format!("table {TABLE}\ndelete table {TABLE}\n");
    if containers.is_empty() {
        return text;
    }
    let Bridge {
        name,
        address,
        prefix,
    } = bridge;
    let mut ports = String::new();
    for container in containers {
        for port in &container.ports {
            let address = match port.address {
                Some(address) => format!("ip daddr {address} "),
                None => String::new(),
            };
            let _infallible = writeln!(
                ports,
                "    fib daddr type local {address}{} dport {} dnat to {}:{}",
                port.protocol, port.host, container.address, port.guest
            );
        }
    }
    let network = format!("{address}/{prefix}");
    let _infallible = write!(
        text,
        r#"table {TABLE} {{
  chain loopback {{
    type filter hook prerouting priority raw; policy accept;
    iifname != "lo" ip daddr 127.0.0.0/8 drop
  }}
  chain arriving {{
    type nat hook prerouting priority dstnat; policy accept;
{ports}  }}
  chain own {{
    type nat hook output priority -100; policy accept;
{ports}  }}
  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {network} ip daddr != {network} masquerade
    ip saddr {network} ip daddr {network} ct status dnat masquerade
    ip saddr 127.0.0.0/8 oifname "{name}" masquerade
  }}
}}
"#
    );
    text
}

fn load(text: &str) -> Result<()> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run nft, which --net bridge needs (apt-get install nftables)")?;
    if let Some(mut stdin) = nft.stdin.take() {
        stdin
            .write_all(text.as_bytes())
            .context("cannot write to nft")?;
    }
    let done = nft.wait_with_output().context("cannot wait for nft")?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        bail!("nft refuses the rules of --net bridge: {}", said.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_goes_with_the_last_container() {
        let bridge = Bridge {
            name: "cofferdam0".to_owned(),
            address: [10, 209, 0, 1].into(),
            prefix: 24,
        };
        let none = text(&bridge, &[]);
        assert_eq!(none, "table ip cofferdam\ndelete table ip cofferdam\n");
        let some = Neighbour {
            address: [10, 209, 0, 2].into(),
            ports: vec![
                "127.0.0.1:8080:80".parse().unwrap(),
                "53:53/udp".parse().unwrap(),
            ],
        };
        let text = text(&bridge, &[some]);
        for rule in [
            "fib daddr type local ip daddr 127.0.0.1 tcp dport 8080 dnat to 10.209.0.2:80\n",
            "fib daddr type local udp dport 53 dnat to 10.209.0.2:53\n",
            "ip saddr 10.209.0.1/24 ip daddr != 10.209.0.1/24 masquerade\n",
        ] {
            assert!(text.contains(rule), "{rule}: {text}");
        }
    }
}
