//! Neighbours whose Ethernet addresses are set by hand.

use cofferdam_netlink::{Message, Socket};
use cofferdam_protocol::NetworkNeighbour;

use super::card::Indices;
use super::{NetworkError, family, kernel, unless_gone, written};

const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;
const PERMANENT: u16 = 0x80;

/// Removes the neighbours that are not wanted any more.
pub(super) fn remove(
    socket: &mut Socket,
    indices: &Indices,
    earlier: &[NetworkNeighbour],
    wanted: &[NetworkNeighbour],
) -> Result<(), NetworkError> {
    for neighbour in earlier.iter().filter(|one| !wanted.contains(one)) {
        // With a card that was put away its neighbours went.
        let Some(&index) = indices.get(&neighbour.interface) else {
            continue;
        };
        let message = message(libc::RTM_DELNEIGH, 0, index, neighbour)?;
        unless_gone(socket.request(message)).map_err(kernel(format!(
            "remove neighbour {}",
            written(&neighbour.ip)
        )))?;
    }
    Ok(())
}

/// Adds neighbours, or changes them.
pub(super) fn add(
    socket: &mut Socket,
    indices: &Indices,
    wanted: &[NetworkNeighbour],
) -> Result<(), NetworkError> {
    for neighbour in wanted {
        let index = *indices
            .get(&neighbour.interface)
            .ok_or_else(|| NetworkError::Invalid {
                what: "a neighbour at an interface that is not there:",
                value: neighbour.interface.clone(),
            })?;
        let message = message(libc::RTM_NEWNEIGH, CREATE | REPLACE, index, neighbour)?
            .with(libc::NDA_LLADDR, &neighbour.mac);
        socket
            .request(message)
            .map_err(kernel(format!("add neighbour {}", written(&neighbour.ip))))?;
    }
    Ok(())
}

fn message(
    kind: u16,
    flags: u16,
    index: u32,
    neighbour: &NetworkNeighbour,
) -> Result<Message, NetworkError> {
    // struct ndmsg
    let mut fixed = [0; 12];
    fixed[0] = family(&neighbour.ip)?;
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..10].copy_from_slice(&PERMANENT.to_ne_bytes());
    Ok(Message::new(kind, flags, &fixed).with(libc::NDA_DST, &neighbour.ip))
}
