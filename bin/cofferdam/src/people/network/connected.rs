//! Containers that we have connected ourselves: what was done for each is written down, so that it can be undone.
//!
//! `<data_directory>/network/<id>.json` appears before anything is done. It is on disk, not in /run: CNI plugins keep
//! addresses on disk, too, which have to be given back after a boot of the host.

use std::fs::{self, File};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use sandbox::ContainerId;
use sandbox::config::Config;
use sandbox::network::{Bridge, Namespace, stand_in};
use sandbox::state::{StateError, Store};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Net, Port, cni, rules};
use crate::cli::{NetworkArgs, NetworkStep};
use crate::context::container_id;

/// The bridge's name.
const BRIDGE: &str = "cofferdam0";
/// The container's interface.
const INTERFACE: &str = "eth0";

/// One container's connection.
#[derive(Debug, Serialize, Deserialize)]
struct Connected {
    /// State directory of the container.
    root: PathBuf,
    id: ContainerId,
    ports: Vec<Port>,
    way: Way,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Way {
    /// Through our own bridge.
    Bridge { address: Ipv4Addr },
    /// Through CNI plugins; what they answered, once they did.
    Cni { network: Value, result: Value },
}

/// A container on our own bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: Ipv4Addr,
    /// Ports that lead to it.
    pub ports: Vec<Port>,
}

/// What runtimes tell hooks (runtime-spec 1.2, "State"), as far as it counts here.
#[derive(Debug, Deserialize)]
struct State {
    id: String,
    #[serde(default)]
    pid: u32,
    bundle: PathBuf,
}

/// The hidden command, which is a hook of containers with a network.
pub fn run(args: &NetworkArgs) -> Result<ExitCode> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("cannot read the container's state")?;
    let state: State = serde_json::from_str(&text).context("the container's state is malformed")?;
    let config = Config::load()?;
    let book = Book::open(config)?;
    let id = container_id(&state.id)?;
    match args.step {
        NetworkStep::Up => book.connect(args, &state, id)?,
        NetworkStep::Down => book.forget(&id)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// All connections, locked against other commands.
struct Book {
    folder: PathBuf,
    bridge: Bridge,
    config: Config,
    _lock: File,
}

impl Book {
    fn open(config: Config) -> Result<Self> {
        let folder = config.data_directory.join("network");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join("lock");
        let lock = File::create(&path)
            .and_then(|file| file.lock().map(|()| file))
            .with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self {
            folder,
            bridge: bridge(&config)?,
            config,
            _lock: lock,
        })
    }

    fn path(&self, id: &ContainerId) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    fn has(&self, plugins: &[&str]) -> bool {
        cni::has(&self.config.cni_plugin_directories, plugins)
    }

    fn all(&self) -> Result<Vec<Connected>> {
        let entries = fs::read_dir(&self.folder)
            .with_context(|| format!("cannot list {}", self.folder.display()))?;
        let files = entries.flatten().filter_map(|entry| {
            let path = entry.path();
            let is_one = path.extension().is_some_and(|end| end == "json");
            is_one.then(|| fs::read(path).ok())?
        });
        Ok(files
            .filter_map(|bytes| serde_json::from_slice(&bytes).ok())
            .collect())
    }

    /// By one rename, so that nobody reads half of it.
    fn write(&self, connected: &Connected) -> Result<()> {
        let path = self.path(&connected.id);
        let temporary = path.with_extension("new");
        fs::write(&temporary, serde_json::to_vec(connected)?)
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn connect(&self, args: &NetworkArgs, state: &State, id: ContainerId) -> Result<()> {
        self.sweep()?;
        let ports = args.publish.iter().map(|text| text.parse());
        let ports = ports.collect::<Result<Vec<Port>>>()?;
        let way = match Net::parse(Some(&args.net), !ports.is_empty())? {
            Net::Cni(name) => Way::Cni {
                network: cni::find(&self.config.cni_network_directory, &name)?,
                result: Value::Null,
            },
            Net::Bridge if self.has(&["bridge", "portmap", "host-local"]) && has_iptables() => {
                Way::Cni {
                    network: self.described(),
                    result: Value::Null,
                }
            }
            Net::Bridge => Way::Bridge {
                address: self.free_address()?,
            },
            Net::None | Net::Namespace(_) => bail!("--net {} needs nothing done", args.net),
        };
        let mut connected = Connected {
            root: args.root.clone(),
            id,
            ports,
            way,
        };
        self.write(&connected)?;
        let path = PathBuf::from(format!("/proc/{}/ns/net", state.pid));
        let address = match &mut connected.way {
            Way::Bridge { address } => {
                let address = *address;
                self.bridge.raise()?;
                let namespace = Namespace::open(&path)?;
                self.bridge
                    .connect(&port_name(address), &namespace, INTERFACE, address)?;
                self.forward()?;
                self.write_rules()?;
                Some(address.to_string())
            }
            Way::Cni { network, result } => {
                *result = cni::Attachment {
                    network,
                    id: connected.id.as_str(),
                    namespace: &path,
                    interface: INTERFACE,
                    ports: &connected.ports,
                    folders: &self.config.cni_plugin_directories,
                }
                .add()?;
                let first = result["ips"][0]["address"].as_str();
                first.and_then(|text| Some(text.split('/').next()?.to_owned()))
            }
        };
        self.write(&connected)?;
        if let Some(address) = address {
            name(&state.bundle, &address)?;
        }
        Ok(())
    }

    /// Undoes a connection; nothing happens when there is none.
    fn forget(&self, id: &ContainerId) -> Result<()> {
        let found = self.all()?.into_iter().find(|one| one.id == *id);
        let Some(connected) = found else {
            return Ok(());
        };
        match &connected.way {
            Way::Bridge { address } => Bridge::disconnect(&port_name(*address))?,
            Way::Cni { network, result } => {
                let folders = &self.config.cni_plugin_directories;
                delete(&connected, network, result, folders)?;
            }
        }
        let path = self.path(id);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        let left = self.all()?;
        if matches!(connected.way, Way::Bridge { .. }) {
            self.write_rules()?;
        }
        // CNI's bridge plugin leaves its bridge behind.
        let is_used = left.iter().any(|one| match &one.way {
            Way::Bridge { .. } => true,
            Way::Cni { network, .. } => network["name"] == "cofferdam",
        });
        if !is_used {
            self.bridge.remove()?;
        }
        Ok(())
    }

    /// Undoes connections of containers that nobody knows any more.
    fn sweep(&self) -> Result<()> {
        for connected in self.all()? {
            // Opening a state directory would make it.
            let is_known = connected.root.is_dir()
                && Store::open(&connected.root).is_ok_and(|store| {
                    !matches!(store.load(&connected.id), Err(StateError::Missing(_)))
                });
            if !is_known && let Err(error) = self.forget(&connected.id) {
                tracing::warn!("network of {} is left: {error:#}", connected.id);
            }
        }
        Ok(())
    }

    fn write_rules(&self) -> Result<()> {
        let all = self.all()?.into_iter().filter_map(|one| match one.way {
            Way::Bridge { address } => Some(Neighbour {
                address,
                ports: one.ports,
            }),
            Way::Cni { .. } => None,
        });
        rules::write(&self.bridge, &all.collect::<Vec<_>>())
    }

    fn free_address(&self) -> Result<Ipv4Addr> {
        let all = self.all()?;
        let taken = |address: Ipv4Addr| {
            all.iter()
                .any(|one| matches!(one.way, Way::Bridge { address: used } if used == address))
        };
        let gateway = u32::from(self.bridge.address);
        let size = 1_u32 << (32 - self.bridge.prefix);
        let network = gateway & !(size - 1);
        // Not the network's own address, and not everybody's.
        (network + 1..network + size - 1)
            .filter(|&number| number != gateway)
            .map(Ipv4Addr::from)
            .find(|&address| !taken(address))
            .context("no address is left on the bridge; set a larger `bridge_network`")
    }

    /// The same network as our own bridge, for CNI plugins.
    fn described(&self) -> Value {
        let Bridge {
            name,
            address,
            prefix,
        } = &self.bridge;
        let mut plugins = vec![json!({
            "type": "bridge", "bridge": name, "isGateway": true, "ipMasq": true, "hairpinMode": true,
            "ipam": {
                "type": "host-local", "dataDir": self.folder.join("cni"),
                "routes": [{ "dst": "0.0.0.0/0" }],
                "ranges": [[{ "subnet": format!("{}/{prefix}", network_of(*address, *prefix)), "gateway": address }]],
            },
        })];
        plugins.push(json!({ "type": "portmap", "capabilities": { "portMappings": true } }));
        if self.has(&["firewall"]) {
            plugins.push(json!({ "type": "firewall", "backend": "iptables" }));
        }
        json!({ "cniVersion": "0.4.0", "name": "cofferdam", "plugins": plugins })
    }

    /// Has the host pass packets on, and lets its own loopback reach published ports.
    fn forward(&self) -> Result<()> {
        for (path, value) in [
            ("/proc/sys/net/ipv4/ip_forward".to_owned(), "1"),
            (
                format!(
                    "/proc/sys/net/ipv4/conf/{}/route_localnet",
                    self.bridge.name
                ),
                "1",
            ),
        ] {
            fs::write(&path, value).with_context(|| format!("cannot write {path}"))?;
        }
        Ok(())
    }
}

/// Disconnects by plugins. The namespace is gone with the container's processes, and some plugins undo nothing without
/// one: they get another in which the interface has the addresses that it had.
fn delete(
    connected: &Connected,
    network: &Value,
    result: &Value,
    folders: &[PathBuf],
) -> Result<()> {
    let addresses = result["ips"].as_array().into_iter().flatten();
    let addresses: Vec<_> = addresses
        .filter_map(|ip| parse(ip["address"].as_str()?))
        .collect();
    let namespace = stand_in(INTERFACE, &addresses)?;
    let number = namespace.as_fd().as_raw_fd();
    cni::Attachment {
        network,
        id: connected.id.as_str(),
        namespace: Path::new(&format!("/proc/{}/fd/{number}", std::process::id())),
        interface: INTERFACE,
        ports: &connected.ports,
        folders,
    }
    .delete(result)
}

/// An address with its prefix.
fn parse(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    Some((address.parse().ok()?, prefix.parse().ok()?))
}

/// The bridge that the configuration asks for.
pub fn bridge(config: &Config) -> Result<Bridge> {
    let wrong = || {
        format!(
            "configuration: `bridge_network` {:?} is not the bridge's IPv4 address with a prefix between 8 and 30, such as 10.209.0.1/16",
            config.bridge_network
        )
    };
    let (address, prefix) = config.bridge_network.split_once('/').with_context(wrong)?;
    let address: Ipv4Addr = address.parse().ok().with_context(wrong)?;
    let prefix: u8 = prefix.parse().ok().with_context(wrong)?;
    if !(8..=30).contains(&prefix) || network_of(address, prefix) == address {
        bail!(wrong());
    }
    Ok(Bridge {
        name: BRIDGE.to_owned(),
        address,
        prefix,
    })
}

fn network_of(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(address) & (u32::MAX << (32 - prefix)))
}

/// Interfaces' names are short; an address is never given twice.
fn port_name(address: Ipv4Addr) -> String {
    format!("cofd{:08x}", u32::from(address))
}

/// The container knows itself by its name.
fn name(bundle: &Path, address: &str) -> Result<()> {
    let hosts = bundle.join("hosts");
    let text =
        fs::read_to_string(&hosts).with_context(|| format!("cannot read {}", hosts.display()))?;
    let text = text.replace("127.0.1.1\t", &format!("{address}\t"));
    fs::write(&hosts, text).with_context(|| format!("cannot write {}", hosts.display()))
}

fn has_iptables() -> bool {
    ["/usr/sbin/iptables", "/sbin/iptables", "/usr/bin/iptables"]
        .iter()
        .any(|path| Path::new(path).exists())
}
