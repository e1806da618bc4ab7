//! Network cards: finding, naming and switching them, and putting away those that nobody uses.

use std::collections::HashMap;
use std::fs;
use std::io;

use cofferdam_netlink::{Message, Socket};
use cofferdam_protocol::NetworkInterface;

use super::{NetworkError, kernel};

/// Where virtio devices are tied to their driver and untied.
const DRIVER: &str = "/sys/bus/virtio/drivers/virtio_net";

const PERMANENT_ADDRESS: u16 = 54;
const UP: u32 = 0x1;
const NO_ARP: u32 = 0x80;

/// Indices of interfaces by their names.
pub(super) type Indices = HashMap<String, u32>;

/// Cards without driver, by the address that they were born with: the name of their device.
///
/// A card that no interface stands for would be seen by containers otherwise.
#[derive(Debug, Default)]
pub(super) struct Cards {
    put_away: HashMap<Vec<u8>, String>,
}

#[derive(Debug)]
struct Link {
    index: u32,
    name: String,
    mac: Vec<u8>,
    born: Vec<u8>,
}

impl Cards {
    /// Gives each interface its card, with name, address and size of packets, switched as it is to be; puts away all
    /// others.
    pub(super) fn arrange(
        &mut self,
        socket: &mut Socket,
        wanted: &[NetworkInterface],
    ) -> Result<Indices, NetworkError> {
        let mut links = links(socket)?;
        for link in &links {
            if !wanted.iter().any(|one| one.card == link.born) {
                self.put_away(link)?;
            }
        }
        let mut fetched = false;
        for interface in wanted {
            if let Some(device) = self.put_away.remove(&interface.card) {
                fs::write(format!("{DRIVER}/bind"), &device)
                    .map_err(kernel(format!("take network card {device} into use")))?;
                fetched = true;
            }
        }
        links.retain(|link| wanted.iter().any(|one| one.card == link.born));
        if fetched {
            links = self::links(socket)?;
        }
        make_room(socket, &mut links, wanted)?;
        let mut indices = Indices::new();
        for interface in wanted {
            let link = links
                .iter()
                .find(|link| link.born == interface.card)
                .ok_or_else(|| NetworkError::NoCard(format!("{:02x?}", interface.card)))?;
            set(socket, link, interface)?;
            indices.insert(interface.name.clone(), link.index);
        }
        Ok(indices)
    }

    fn put_away(&mut self, link: &Link) -> Result<(), NetworkError> {
        let failed = || kernel(format!("put network card {} away", link.name));
        let device = fs::read_link(format!("/sys/class/net/{}/device", link.name))
            .map_err(failed())?
            .file_name()
            .and_then(|name| name.to_str())
            .map(str::to_owned)
            .ok_or_else(|| failed()(io::ErrorKind::InvalidData.into()))?;
        fs::write(format!("{DRIVER}/unbind"), &device).map_err(failed())?;
        self.put_away.insert(link.born.clone(), device);
        Ok(())
    }
}

/// The cards that are in use. Other interfaces (loopback, those that containers make) were not born with an address.
fn links(socket: &mut Socket) -> Result<Vec<Link>, NetworkError> {
    let all = socket
        .dump(&Message::new(libc::RTM_GETLINK, 0, &[0; 16]))
        .map_err(kernel("list network cards"))?;
    let links = all.iter().filter_map(|message| {
        let (fixed, attributes) = message.split::<16>()?;
        Some(Link {
            index: u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            name: attributes.find_text(libc::IFLA_IFNAME)?,
            mac: attributes.find(libc::IFLA_ADDRESS)?.to_vec(),
            born: attributes.find(PERMANENT_ADDRESS)?.to_vec(),
        })
    });
    Ok(links.collect())
}

/// Takes a name from the card that has it when another is to get it.
fn make_room(
    socket: &mut Socket,
    links: &mut [Link],
    wanted: &[NetworkInterface],
) -> Result<(), NetworkError> {
    for link in links {
        let taken = wanted
            .iter()
            .any(|one| one.name == link.name && one.card != link.born);
        if taken {
            let free = format!("card{}", link.index);
            change(socket, link.index, |message| {
                message.with_text(libc::IFLA_IFNAME, &free)
            })
            .map_err(kernel(format!("rename network card {}", link.name)))?;
            link.name = free;
        }
    }
    Ok(())
}

fn change(
    socket: &mut Socket,
    index: u32,
    fill: impl FnOnce(Message) -> Message,
) -> io::Result<()> {
    socket.request(fill(Message::new(
        libc::RTM_NEWLINK,
        0,
        &fixed(index, 0, 0),
    )))
}

/// `struct ifinfomsg`.
fn fixed(index: u32, flags: u32, mask: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..].copy_from_slice(&mask.to_ne_bytes());
    bytes
}

fn set(socket: &mut Socket, link: &Link, interface: &NetworkInterface) -> Result<(), NetworkError> {
    let failed = || kernel(format!("set network card {} up", interface.name));
    if link.name != interface.name {
        change(socket, link.index, |message| {
            message.with_text(libc::IFLA_IFNAME, &interface.name)
        })
        .map_err(failed())?;
    }
    let settings = format!("/proc/sys/net/ipv6/conf/{}", interface.name);
    for (name, value) in [
        // No address but those that are given: an own one would be taken for a forged sender.
        ("addr_gen_mode", "1"),
        ("accept_ra", "0"),
        ("disable_ipv6", if interface.ipv6 { "0" } else { "1" }),
    ] {
        fs::write(format!("{settings}/{name}"), value).map_err(failed())?;
    }
    let mut flags = 0;
    if interface.up {
        flags |= UP;
    }
    if !interface.arp {
        flags |= NO_ARP;
    }
    let mut message = Message::new(libc::RTM_NEWLINK, 0, &fixed(link.index, flags, UP | NO_ARP))
        .with_u32(libc::IFLA_MTU, interface.mtu);
    if link.mac != interface.mac {
        message = message.with(libc::IFLA_ADDRESS, &interface.mac);
    }
    socket.request(message).map_err(failed())
}
