//! `--net` and `-p`.

mod cni;
mod connected;
mod port;
mod rules;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use sandbox::config::{CONFIG_VARIABLE, Config};
use serde_json::json;

use crate::cli::ImageRunArgs;

pub use connected::run as hook;
pub use port::Port;

/// Where hooks look for programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Seconds that connecting may take.
const TIMEOUT: u32 = 120;

/// What the container is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Net {
    /// Nothing but loopback.
    None,
    /// A bridge of this host, with the rest of the world behind it.
    Bridge,
    /// What is in this network namespace.
    Namespace(PathBuf),
    /// A network that CNI plugins set up, by its name.
    Cni(String),
}

impl Net {
    /// Reads what the user gave. Who publishes ports and says nothing else means the bridge.
    pub fn parse(text: Option<&str>, publishes: bool) -> Result<Self> {
        let net = match text {
            None if publishes => Self::Bridge,
            None | Some("none") => Self::None,
            Some("bridge") => Self::Bridge,
            Some(text) => match text.split_once(':') {
                Some(("ns", path)) if path.starts_with('/') => Self::Namespace(path.into()),
                Some(("cni", name)) if !name.is_empty() => Self::Cni(name.to_owned()),
                Some(("container", _)) => bail!(
                    "unsupported: --net {text}: the network of another container belongs to another virtual machine; use --net bridge for both"
                ),
                _ if text == "host" => bail!(
                    "unsupported: --net host: a virtual machine has a network stack of its own; use --net bridge and publish ports with -p"
                ),
                _ => bail!("--net {text}: it is none, bridge, ns:PATH or cni:NAME"),
            },
        };
        if publishes && !matches!(net, Self::Bridge | Self::Cni(_)) {
            bail!("-p needs --net bridge or --net cni:NAME: nothing else can publish ports");
        }
        Ok(net)
    }

    /// The hooks that connect a container and disconnect it again; nothing when there is nothing to do.
    pub fn hooks(&self, options: &ImageRunArgs, root: &Path) -> Result<Option<serde_json::Value>> {
        let net = match self {
            Self::None | Self::Namespace(_) => return Ok(None),
            Self::Bridge => "bridge".to_owned(),
            Self::Cni(name) => format!("cni:{name}"),
        };
        let program = std::env::current_exe().context("cannot find our own program")?;
        let root = std::path::absolute(root).context("cannot find the state directory")?;
        let mut environment = vec![format!("PATH={PATH}")];
        if let Some(config) = Config::file() {
            let config = std::path::absolute(config).context("cannot find the configuration")?;
            environment.push(format!("{CONFIG_VARIABLE}={}", config.display()));
        }
        let hook = |step: &str| {
            let mut args = vec![json!("cofferdam"), json!("network"), json!(step)];
            args.extend([json!("--net"), json!(net), json!("--state"), json!(root)]);
            for port in &options.publish {
                args.extend([json!("--publish"), json!(port)]);
            }
            json!([{ "path": program, "args": args, "env": environment, "timeout": TIMEOUT }])
        };
        Ok(Some(
            json!({ "createRuntime": hook("up"), "poststop": hook("down") }),
        ))
    }

    /// Says what is changed on the host beside what goes away again.
    pub fn announce(&self) {
        let forwards = fs::read_to_string("/proc/sys/net/ipv4/ip_forward");
        if *self == Self::Bridge && forwards.is_ok_and(|text| text.trim() == "0") {
            eprintln!(
                "cofferdam: --net bridge has this host forward IPv4 packets (net.ipv4.ip_forward)"
            );
        }
    }

    /// The namespace that exists already.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Namespace(path) => Some(path),
            Self::None | Self::Bridge | Self::Cni(_) => None,
        }
    }

    /// What the container reads as `/etc/resolv.conf`; nothing: its own file.
    pub fn resolv_conf(&self) -> Result<Option<String>> {
        // As ip-netns(8) has it.
        let of_namespace = self
            .path()
            .and_then(Path::file_name)
            .map(|name| Path::new("/etc/netns").join(name).join("resolv.conf"));
        // Where systemd's resolver keeps the servers that it asks itself.
        let of_resolver = PathBuf::from("/run/systemd/resolve/resolv.conf");
        let candidates = of_namespace
            .into_iter()
            .chain([PathBuf::from("/etc/resolv.conf"), of_resolver]);
        if *self == Self::None {
            return Ok(None);
        }
        for path in candidates {
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot read {}", path.display()));
                }
            };
            // The host's loopback is not the container's.
            let kept: Vec<_> = text.lines().filter(|line| !is_loopback(line)).collect();
            if kept.iter().any(|line| line.starts_with("nameserver")) {
                return Ok(Some(kept.join("\n") + "\n"));
            }
        }
        Ok(None)
    }
}

/// Whether this names a server that only the host itself can ask.
fn is_loopback(line: &str) -> bool {
    line.strip_prefix("nameserver")
        .and_then(|rest| rest.trim().parse::<std::net::IpAddr>().ok())
        .is_some_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_told_apart() {
        assert_eq!(Net::parse(None, false).unwrap(), Net::None);
        assert_eq!(Net::parse(None, true).unwrap(), Net::Bridge);
        assert_eq!(Net::parse(Some("bridge"), true).unwrap(), Net::Bridge);
        assert_eq!(
            Net::parse(Some("ns:/run/netns/a"), false).unwrap(),
            Net::Namespace("/run/netns/a".into())
        );
        assert_eq!(
            Net::parse(Some("cni:a"), true).unwrap(),
            Net::Cni("a".to_owned())
        );
        for (text, publishes, named) in [
            ("host", false, "publish ports with -p"),
            ("container:a", false, "another virtual machine"),
            ("none", true, "-p needs"),
            ("ns:/a", true, "-p needs"),
            ("ns:a", false, "ns:PATH"),
            ("cni:", false, "cni:NAME"),
            ("x", false, "none, bridge"),
        ] {
            let error = Net::parse(Some(text), publishes).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn servers_on_loopback_are_left_out() {
        for line in [
            "nameserver 127.0.0.53",
            "nameserver ::1",
            "nameserver\t127.1.2.3 ",
        ] {
            assert!(is_loopback(line), "{line:?}");
        }
        for line in [
            "nameserver 10.0.0.1",
            "search 127.0.0.1",
            "# nameserver ::1",
            "nameserver",
        ] {
            assert!(!is_loopback(line), "{line:?}");
        }
    }
}
