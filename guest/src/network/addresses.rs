//! Addresses of interfaces.

use cofferdam_netlink::{Message, Socket};
use cofferdam_protocol::{NetworkAddress, NetworkInterface};

use super::{NetworkError, bits, family, kernel, unless_gone, written};

const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;
/// The host has asked the neighbours already.
const NO_DAD: u32 = 0x02;
/// Routes come from the host, those to the address's own network too: it may have others there.
const NO_PREFIX_ROUTE: u32 = 0x200;

/// Gives an interface its addresses, and takes away those that it had `earlier`.
pub(super) fn update<'a>(
    socket: &mut Socket,
    index: u32,
    interface: &NetworkInterface,
    earlier: impl Iterator<Item = &'a NetworkAddress>,
) -> Result<(), NetworkError> {
    for address in earlier.filter(|one| !interface.addresses.contains(one)) {
        let message = message(libc::RTM_DELADDR, 0, index, address)?;
        unless_gone(socket.request(message)).map_err(kernel(format!(
            "take address {} from {}",
            written(&address.ip),
            interface.name
        )))?;
    }
    for address in &interface.addresses {
        let mut message = message(libc::RTM_NEWADDR, CREATE | REPLACE, index, address)?
            .with_u32(libc::IFA_FLAGS, NO_DAD | NO_PREFIX_ROUTE);
        if !address.broadcast.is_empty() {
            message = message.with(libc::IFA_BROADCAST, &address.broadcast);
        }
        socket.request(message).map_err(kernel(format!(
            "give address {} to {}",
            written(&address.ip),
            interface.name
        )))?;
    }
    Ok(())
}

fn message(
    kind: u16,
    flags: u16,
    index: u32,
    address: &NetworkAddress,
) -> Result<Message, NetworkError> {
    let scope = u8::try_from(address.scope).unwrap_or_default();
    // struct ifaddrmsg
    let mut fixed = [
        family(&address.ip)?,
        bits(address.prefix)?,
        0,
        scope,
        0,
        0,
        0,
        0,
    ];
    fixed[4..].copy_from_slice(&index.to_ne_bytes());
    let far = if address.peer.is_empty() {
        &address.ip
    } else {
        &address.peer
    };
    Ok(Message::new(kind, flags, &fixed)
        .with(libc::IFA_LOCAL, &address.ip)
        .with(libc::IFA_ADDRESS, far))
}
