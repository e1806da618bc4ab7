//! Changing interfaces in a namespace.

use std::io;

use cofferdam_netlink::{Attributes, Message, Socket};

const UP: u32 = 1;

/// `struct ifinfomsg`: of the interface with this index, with the flags of `change` set as in `flags`.
fn fixed(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..].copy_from_slice(&change.to_ne_bytes());
    bytes
}

/// The index of the interface with this name.
pub(crate) fn index(socket: &mut Socket, name: &str) -> io::Result<u32> {
    for link in socket.dump(&Message::new(libc::RTM_GETLINK, 0, &[0; 16]))? {
        if let Some((fixed, attributes)) = link.split::<16>()
            && attributes.find_text(libc::IFLA_IFNAME).as_deref() == Some(name)
        {
            return Ok(u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]));
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Keeps the namespace's own network stack from giving a tap an IPv6 address, and from speaking on it.
pub(crate) fn silence(socket: &mut Socket, index: u32) -> io::Result<()> {
    const ADDRESS_GENERATION: u16 = 8;
    const NONE: [u8; 1] = [1];
    let message = Message::new(libc::RTM_NEWLINK, 0, &fixed(index, 0, 0)).with_nested(
        libc::IFLA_AF_SPEC,
        |families| {
            families.with_nested(libc::AF_INET6 as u16, |inet6| {
                inet6.with(ADDRESS_GENERATION, &NONE)
            })
        },
    );
    match socket.request(message) {
        // Kernels without IPv6 have nothing to say.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(()),
        other => other,
    }
}

/// What stands in the alias of a tap, before whose it is.
const SIGNATURE: &str = "cofferdam ";

fn alias(owner: u32) -> String {
    format!("{SIGNATURE}{owner}")
}

/// The processes that have signed taps.
pub(crate) fn owners(socket: &mut Socket) -> io::Result<Vec<u32>> {
    Ok(socket
        .dump(&Message::new(libc::RTM_GETLINK, 0, &[0; 16]))?
        .iter()
        .filter_map(|link| {
            let (_, attributes) = link.split::<16>()?;
            let alias = attributes.find_text(libc::IFLA_IFALIAS)?;
            alias.strip_prefix(SIGNATURE)?.parse().ok()
        })
        .collect())
}

/// Notes on a tap which process it belongs to.
pub(crate) fn sign(socket: &mut Socket, index: u32, owner: u32) -> io::Result<()> {
    let message = Message::new(libc::RTM_NEWLINK, 0, &fixed(index, 0, 0));
    socket.request(message.with_text(libc::IFLA_IFALIAS, &alias(owner)))
}

/// The taps that belong to a process.
pub(crate) fn signed(socket: &mut Socket, owner: u32) -> io::Result<Vec<u32>> {
    let wanted = alias(owner);
    Ok(socket
        .dump(&Message::new(libc::RTM_GETLINK, 0, &[0; 16]))?
        .iter()
        .filter_map(|link| {
            let (fixed, attributes) = link.split::<16>()?;
            let is_wanted = attributes.find_text(libc::IFLA_IFALIAS)? == wanted;
            is_wanted.then(|| u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]))
        })
        .collect())
}

/// Removes an interface. A tap goes by itself with its last descriptor, but the kernel may hold that for a moment after
/// its process has ended.
pub(crate) fn remove(socket: &mut Socket, index: u32) -> io::Result<()> {
    match socket.request(Message::new(libc::RTM_DELLINK, 0, &fixed(index, 0, 0))) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        done => done,
    }
}

/// Sets the size of packets and switches it on.
pub(crate) fn raise(socket: &mut Socket, index: u32, mtu: u32) -> io::Result<()> {
    let message =
        Message::new(libc::RTM_NEWLINK, 0, &fixed(index, UP, UP)).with_u32(libc::IFLA_MTU, mtu);
    socket.request(message)
}

/// Switches it on as it is.
pub(crate) fn switch_on(socket: &mut Socket, index: u32) -> io::Result<()> {
    socket.request(Message::new(libc::RTM_NEWLINK, 0, &fixed(index, UP, UP)))
}

/// Switches it off.
pub(crate) fn lower(socket: &mut Socket, index: u32) -> io::Result<()> {
    socket.request(Message::new(libc::RTM_NEWLINK, 0, &fixed(index, 0, UP)))
}

/// The indices of all interfaces.
pub(crate) fn indices(socket: &mut Socket) -> io::Result<Vec<u32>> {
    Ok(socket
        .dump(&Message::new(libc::RTM_GETLINK, 0, &[0; 16]))?
        .iter()
        .filter_map(|link| {
            let (fixed, _): (_, Attributes<'_>) = link.split::<16>()?;
            Some(u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]))
        })
        .collect())
}
