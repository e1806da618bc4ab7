//! A bridge of the host's, and cables from it into network namespaces.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};

use cofferdam_netlink::{Message, Socket};

use crate::error::NetworkError;
use crate::link;
use crate::namespace::Namespace;

const EXCLUSIVE: u16 = 0x200;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const PEER: u16 = 1;
const UNIVERSE: u8 = 0;
const UNICAST: u8 = 1;
const STATIC: u8 = 4;

/// A bridge in the calling thread's network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Its interface's name.
    pub name: String,
    /// Its own address, which is everybody's gateway.
    pub address: Ipv4Addr,
    /// Bits of its network.
    pub prefix: u8,
}

impl Bridge {
    /// Makes sure that it is there.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn raise(&self) -> Result<(), NetworkError> {
        let failed = || NetworkError::kernel(format!("make bridge {}", self.name));
        let mut socket = Socket::open().map_err(failed())?;
        let message = Message::new(libc::RTM_NEWLINK, CREATE | EXCLUSIVE, &[0; 16])
            .with_text(libc::IFLA_IFNAME, &self.name)
            .with_nested(libc::IFLA_LINKINFO, |info| {
                info.with_text(INFO_KIND, "bridge")
            });
        match socket.request(message) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map_err(failed())?,
        }
        let index = link::index(&mut socket, &self.name).map_err(failed())?;
        give(&mut socket, index, self.address.into(), self.prefix).map_err(failed())?;
        link::switch_on(&mut socket, index).map_err(failed())
    }

    /// Removes it; nothing happens when it is not there.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn remove(&self) -> Result<(), NetworkError> {
        remove(&self.name)
    }

    /// Lays a cable from a port with this name to an interface in a namespace, which gets an address of the bridge's
    /// network and a default route to the bridge.
    ///
    /// # Errors
    /// What the kernel refuses; the port may be there then.
    pub fn connect(
        &self,
        port: &str,
        namespace: &Namespace,
        interface: &str,
        address: Ipv4Addr,
    ) -> Result<(), NetworkError> {
        let failed = || NetworkError::kernel(format!("connect {interface} to {}", self.name));
        let mut socket = Socket::open().map_err(failed())?;
        let bridge = link::index(&mut socket, &self.name).map_err(failed())?;
        let inside = u32::try_from(namespace.as_fd().as_raw_fd()).unwrap_or_default();
        let message = Message::new(libc::RTM_NEWLINK, CREATE | EXCLUSIVE, &[0; 16])
            .with_text(libc::IFLA_IFNAME, port)
            .with_u32(libc::IFLA_MASTER, bridge)
            .with_nested(libc::IFLA_LINKINFO, |info| {
                info.with_text(INFO_KIND, "veth")
                    .with_nested(INFO_DATA, |data| {
                        data.with_nested(PEER, |peer| {
                            peer.with_fixed(&[0; 16])
                                .with_text(libc::IFLA_IFNAME, interface)
                                .with_u32(libc::IFLA_NET_NS_FD, inside)
                        })
                    })
            });
        socket.request(message).map_err(failed())?;
        let outside = link::index(&mut socket, port).map_err(failed())?;
        link::switch_on(&mut socket, outside).map_err(failed())?;
        namespace.enter(|| {
            let mut socket = Socket::open().map_err(failed())?;
            let index = link::index(&mut socket, interface).map_err(failed())?;
            give(&mut socket, index, address.into(), self.prefix).map_err(failed())?;
            link::switch_on(&mut socket, index).map_err(failed())?;
            // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
            let family = libc::AF_INET as u8;
            let fixed = [
                family,
                0,
                0,
                0,
                libc::RT_TABLE_MAIN,
                STATIC,
                UNIVERSE,
                UNICAST,
                0,
                0,
                0,
                0,
            ];
            let route = Message::new(libc::RTM_NEWROUTE, CREATE | REPLACE, &fixed)
                .with_u32(libc::RTA_OIF, index)
                .with(libc::RTA_GATEWAY, &self.address.octets());
            socket.request(route).map_err(failed())
        })
    }

    /// Takes a cable away; nothing happens when it is gone, with its namespace for instance.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn disconnect(port: &str) -> Result<(), NetworkError> {
        remove(port)
    }
}

/// A new namespace whose interface with this name has these addresses: as one looked that is gone.
///
/// # Errors
/// What the kernel refuses.
pub fn stand_in(interface: &str, addresses: &[(IpAddr, u8)]) -> Result<Namespace, NetworkError> {
    let failed = || NetworkError::kernel("make a network namespace");
    let namespace = Namespace::new()?;
    namespace.enter(|| {
        let mut socket = Socket::open().map_err(failed())?;
        let message = Message::new(libc::RTM_NEWLINK, CREATE | EXCLUSIVE, &[0; 16])
            .with_text(libc::IFLA_IFNAME, interface)
            .with_nested(libc::IFLA_LINKINFO, |info| {
                info.with_text(INFO_KIND, "veth")
            });
        socket.request(message).map_err(failed())?;
        let index = link::index(&mut socket, interface).map_err(failed())?;
        for &(address, prefix) in addresses {
            give(&mut socket, index, address, prefix).map_err(failed())?;
        }
        Ok(())
    })?;
    Ok(namespace)
}

fn remove(name: &str) -> Result<(), NetworkError> {
    let failed = || NetworkError::kernel(format!("remove network interface {name}"));
    let mut socket = Socket::open().map_err(failed())?;
    let message = Message::new(libc::RTM_DELLINK, 0, &[0; 16]).with_text(libc::IFLA_IFNAME, name);
    match socket.request(message) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        other => other.map_err(failed()),
    }
}

pub(crate) fn give(socket: &mut Socket, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
    let (family, octets) = match address {
        IpAddr::V4(four) => (libc::AF_INET, four.octets().to_vec()),
        IpAddr::V6(six) => (libc::AF_INET6, six.octets().to_vec()),
    };
    // struct ifaddrmsg
    let mut fixed = [family as u8, prefix, 0, UNIVERSE, 0, 0, 0, 0];
    fixed[4..].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(libc::RTM_NEWADDR, CREATE | REPLACE, &fixed)
        .with(libc::IFA_LOCAL, &octets)
        .with(libc::IFA_ADDRESS, &octets);
    if let IpAddr::V4(four) = address {
        let mask = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        let broadcast = Ipv4Addr::from(u32::from(four) | mask);
        message = message.with(libc::IFA_BROADCAST, &broadcast.octets());
    }
    socket.request(message)
}
