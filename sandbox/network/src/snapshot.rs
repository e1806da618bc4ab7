//! What a network namespace looks like at one moment.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cofferdam_netlink::{Attributes, Message, Received, Socket};

use crate::error::NetworkError;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Interfaces that a guest gets, with all that is set up for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// In the order of their index.
    pub interfaces: Vec<Interface>,
    /// Of the main table, through these interfaces.
    pub routes: Vec<Route>,
    /// Those that were set by hand.
    pub neighbours: Vec<Neighbour>,
    /// Whether the engine has a server for names on 127.0.0.11, or had one before.
    pub resolver: bool,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// In its namespace.
    pub index: u32,
    /// E.g. `eth0`.
    pub name: String,
    /// Its Ethernet address.
    pub mac: Mac,
    /// The most bytes of a packet.
    pub mtu: u32,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether neighbours are asked for their Ethernet addresses.
    pub arp: bool,
    /// Whether IPv6 is enabled on it.
    pub ipv6: bool,
    /// All its addresses.
    pub addresses: Vec<Address>,
}

/// One address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The interface's own.
    pub ip: IpAddr,
    /// Bits of its network.
    pub prefix: u8,
    /// The other end of a point-to-point connection.
    pub peer: Option<IpAddr>,
    /// IPv4's broadcast address.
    pub broadcast: Option<Ipv4Addr>,
    /// `RT_SCOPE_…`.
    pub scope: u8,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// `RTN_…`: unicast, blackhole, unreachable or prohibit.
    pub kind: u8,
    /// Where to: an address and how many of its bits count.
    pub destination: (IpAddr, u8),
    /// The interface's name; none where packets go nowhere.
    pub interface: Option<String>,
    /// Through whom; may be of the other family.
    pub gateway: Option<IpAddr>,
    /// With which address as sender.
    pub source: Option<IpAddr>,
    /// The lower, the sooner it is taken.
    pub metric: u32,
    /// `RT_SCOPE_…`.
    pub scope: u8,
    /// The gateway is there although no route leads to it.
    pub onlink: bool,
    /// `RTAX_…` and their values: a path MTU, for instance.
    pub metrics: Vec<(u16, u32)>,
}

/// A neighbour's Ethernet address that was set by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface's name.
    pub interface: String,
    /// Whose.
    pub ip: IpAddr,
    /// Its Ethernet address.
    pub mac: Mac,
}

const SYSCTL_DISABLE_IPV6: usize = 26;
const INET6_CONF: u16 = 2;
const ARPHRD_ETHER: u16 = 1;
const FLAG_UP: u32 = 0x1;
const FLAG_LOOPBACK: u32 = 0x8;
const FLAG_NOARP: u32 = 0x80;
const ADDRESS_DAD_FAILED: u32 = 0x08;
const ROUTE_CLONED: u32 = 0x200;
const NEXT_HOP_ONLINK: u32 = 4;
const STATE_PERMANENT: u16 = 0x80;
/// `RTA_VIA` begins with the address family.
const VIA_FAMILY: usize = 2;
const RTA_VIA: u16 = 18;
const RTA_ENCAP: u16 = 22;
const UNICAST: u8 = 1;
/// `RTN_BLACKHOLE`, `RTN_UNREACHABLE`, `RTN_PROHIBIT`.
const REJECTING: [u8; 3] = [6, 7, 8];

/// Reads everything through a socket of the namespace. Interfaces whose index is among `ours` do not count.
pub(crate) fn read(socket: &mut Socket, ours: &[u32]) -> Result<Snapshot, NetworkError> {
    let mut table = |kind: u16, fixed: &[u8], what: &str| {
        socket
            .dump(&Message::new(kind, 0, fixed))
            .map_err(NetworkError::kernel(format!("list {what}")))
    };
    let links = table(libc::RTM_GETLINK, &[0; 16], "network interfaces")?;
    let addresses = table(libc::RTM_GETADDR, &[0; 8], "addresses")?;
    let routes = table(libc::RTM_GETROUTE, &[0; 12], "routes")?;
    let neighbours = table(libc::RTM_GETNEIGH, &[0; 12], "neighbours")?;

    let addresses: Vec<_> = addresses.iter().filter_map(address).collect();
    let mut interfaces = Vec::new();
    for link in &links {
        let Some(mut interface) = interface(link, ours, &addresses)? else {
            continue;
        };
        let own = addresses
            .iter()
            .filter(|(index, _)| *index == interface.index);
        interface.addresses = own.map(|(_, address)| address.clone()).collect();
        interfaces.push(interface);
    }
    interfaces.sort_by_key(|interface| interface.index);

    let mut snapshot = Snapshot {
        interfaces,
        ..Snapshot::default()
    };
    for message in &routes {
        if let Some(route) = route(message, &snapshot)? {
            snapshot.routes.push(route);
        }
    }
    for message in &neighbours {
        if let Some(neighbour) = neighbour(message, &snapshot) {
            snapshot.neighbours.push(neighbour);
        }
    }
    Ok(snapshot)
}

impl Snapshot {
    fn name_of(&self, index: u32) -> Option<String> {
        self.interfaces
            .iter()
            .find(|interface| interface.index == index)
            .map(|interface| interface.name.clone())
    }
}

fn interface(
    link: &Received,
    ours: &[u32],
    addresses: &[(u32, Address)],
) -> Result<Option<Interface>, NetworkError> {
    let Some((fixed, attributes)) = link.split::<16>() else {
        return Ok(None);
    };
    let number =
        |at: usize| u32::from_ne_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let kind = u16::from_ne_bytes([fixed[2], fixed[3]]);
    let (index, flags) = (number(4), number(8));
    // What belongs to a bridge or bond is used through that.
    if flags & FLAG_LOOPBACK != 0
        || ours.contains(&index)
        || attributes.find(libc::IFLA_MASTER).is_some()
    {
        return Ok(None);
    }
    let name = attributes.find_text(libc::IFLA_IFNAME).unwrap_or_default();
    let mac = attributes
        .find(libc::IFLA_ADDRESS)
        .and_then(|bytes| Mac::try_from(bytes).ok())
        .unwrap_or_default();
    if kind != ARPHRD_ETHER {
        // Some kernels put tunnels into each namespace, which nobody uses.
        if flags & FLAG_UP == 0 || !addresses.iter().any(|(owner, _)| *owner == index) {
            return Ok(None);
        }
        return Err(NetworkError::Unsupported {
            what: format!("network interface {name}"),
            why: "it carries no Ethernet frames, which a virtual machine's network card needs; use a veth, macvlan or ipvlan interface",
        });
    }
    if mac == [0; 6] {
        return Ok(None);
    }
    let disabled = attributes
        .find(libc::IFLA_AF_SPEC)
        .and_then(|families| Attributes::inside(families).find(libc::AF_INET6 as u16))
        .map(|inet6| {
            Attributes::inside(inet6)
                .find(INET6_CONF)
                .and_then(|conf| conf.get(SYSCTL_DISABLE_IPV6 * 4..)?.first_chunk())
                .is_some_and(|value| i32::from_ne_bytes(*value) != 0)
        });
    Ok(Some(Interface {
        index,
        name,
        mac,
        mtu: attributes.find_u32(libc::IFLA_MTU).unwrap_or(1500),
        up: flags & FLAG_UP != 0,
        arp: flags & FLAG_NOARP == 0,
        // A kernel without IPv6 does not speak of it.
        ipv6: disabled == Some(false),
        addresses: Vec::new(),
    }))
}

fn address(message: &Received) -> Option<(u32, Address)> {
    let (fixed, attributes) = message.split::<8>()?;
    let index = u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    let flags = attributes
        .find_u32(libc::IFA_FLAGS)
        .unwrap_or(u32::from(fixed[2]));
    if flags & ADDRESS_DAD_FAILED != 0 {
        return None;
    }
    let far = attributes.find(libc::IFA_ADDRESS).and_then(ip);
    let near = attributes.find(libc::IFA_LOCAL).and_then(ip);
    let own = near.or(far)?;
    Some((
        index,
        Address {
            ip: own,
            prefix: fixed[1],
            peer: far.filter(|&far| far != own),
            broadcast: match attributes.find(libc::IFA_BROADCAST).and_then(ip) {
                Some(IpAddr::V4(address)) => Some(address),
                _ => None,
            },
            scope: fixed[3],
        },
    ))
}

fn route(message: &Received, snapshot: &Snapshot) -> Result<Option<Route>, NetworkError> {
    let Some((fixed, attributes)) = message.split::<12>() else {
        return Ok(None);
    };
    let &[family, bits, source_bits, _, table, _, scope, kind, ..] = fixed;
    let flags = u32::from_ne_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]);
    let table = attributes
        .find_u32(libc::RTA_TABLE)
        .unwrap_or(u32::from(table));
    let any = match i32::from(family) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return Ok(None),
    };
    if table != u32::from(libc::RT_TABLE_MAIN) || flags & ROUTE_CLONED != 0 {
        return Ok(None);
    }
    let destination = attributes.find(libc::RTA_DST).and_then(ip).unwrap_or(any);
    let interface = attributes
        .find_u32(libc::RTA_OIF)
        .and_then(|index| snapshot.name_of(index));
    let goes_nowhere = REJECTING.contains(&kind);
    if !goes_nowhere && kind != UNICAST {
        return Ok(None);
    }
    let unsupported = |why| NetworkError::Unsupported {
        what: format!("route to {destination}/{bits}"),
        why,
    };
    if attributes.find(libc::RTA_MULTIPATH).is_some() {
        return Err(unsupported(
            "it has several next hops, which are not carried into the guest; give it one",
        ));
    }
    if interface.is_none() && !goes_nowhere {
        // Through an interface that the guest does not have: loopback, or a bridge's port.
        return Ok(None);
    }
    if attributes.find(RTA_ENCAP).is_some() || source_bits != 0 {
        return Err(unsupported(
            "encapsulation and source-specific routes are not carried into the guest; leave them out",
        ));
    }
    let via = attributes
        .find(RTA_VIA)
        .and_then(|via| ip(via.get(VIA_FAMILY..)?));
    let metrics = attributes.find(libc::RTA_METRICS).map(|value| {
        Attributes::inside(value)
            .filter_map(|(kind, value)| Some((kind, u32::from_ne_bytes(*value.first_chunk()?))))
            .collect()
    });
    Ok(Some(Route {
        kind,
        destination: (destination, bits),
        interface: interface.filter(|_| !goes_nowhere),
        gateway: attributes.find(libc::RTA_GATEWAY).and_then(ip).or(via),
        source: attributes.find(libc::RTA_PREFSRC).and_then(ip),
        metric: attributes.find_u32(libc::RTA_PRIORITY).unwrap_or(0),
        scope,
        onlink: flags & NEXT_HOP_ONLINK != 0,
        metrics: metrics.unwrap_or_default(),
    }))
}

fn neighbour(message: &Received, snapshot: &Snapshot) -> Option<Neighbour> {
    let (fixed, attributes) = message.split::<12>()?;
    let index = u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    let state = u16::from_ne_bytes([fixed[8], fixed[9]]);
    if state & STATE_PERMANENT == 0 {
        return None;
    }
    Some(Neighbour {
        interface: snapshot.name_of(index)?,
        ip: attributes.find(libc::NDA_DST).and_then(ip)?,
        mac: attributes
            .find(libc::NDA_LLADDR)
            .and_then(|bytes| Mac::try_from(bytes).ok())?,
    })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).into());
    }
    <[u8; 16]>::try_from(bytes)
        .ok()
        .map(|sixteen| Ipv6Addr::from(sixteen).into())
}
