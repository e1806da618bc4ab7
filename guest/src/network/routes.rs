//! Routes of the main table.

use cofferdam_netlink::{Message, Socket};
use cofferdam_protocol::NetworkRoute;

use super::card::Indices;
use super::{NetworkError, bits, family, kernel, unless_gone, written};

const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;
const STATIC: u8 = 4;
const ONLINK: u32 = 4;
const VIA: u16 = 18;

/// Removes the routes that are not wanted any more.
pub(super) fn remove(
    socket: &mut Socket,
    earlier: &[NetworkRoute],
    wanted: &[NetworkRoute],
) -> Result<(), NetworkError> {
    for route in earlier.iter().filter(|one| !wanted.contains(one)) {
        // Destination, metric and scope tell it from others; its interface may have changed its index.
        let message = start(libc::RTM_DELROUTE, 0, route)?;
        unless_gone(socket.request(message))
            .map_err(kernel(format!("remove route {}", describe(route))))?;
    }
    Ok(())
}

/// Adds routes, or changes them.
pub(super) fn add(
    socket: &mut Socket,
    indices: &Indices,
    wanted: &[NetworkRoute],
) -> Result<(), NetworkError> {
    // A gateway has to be reached by a route that is there already.
    let mut left = wanted.to_vec();
    left.sort_by_key(|route| !route.gateway.is_empty());
    loop {
        let mut refused = Vec::new();
        for route in &left {
            if let Err(source) = socket.request(message(indices, route)?) {
                refused.push((route.clone(), source));
            }
        }
        let is_stuck = refused.len() == left.len();
        left.clear();
        for (mut route, source) in refused {
            let is_lost = !route.gateway.is_empty() && !route.onlink;
            if is_stuck && !is_lost {
                return Err(kernel(format!("add route {}", describe(&route)))(source));
            }
            // What led to its gateway is gone, and the host has kept it all the same.
            route.onlink |= is_stuck;
            left.push(route);
        }
        if left.is_empty() {
            return Ok(());
        }
    }
}

fn describe(route: &NetworkRoute) -> String {
    let mut text = format!("{}/{}", written(&route.destination), route.prefix);
    if !route.gateway.is_empty() {
        text += &format!(" via {}", written(&route.gateway));
    }
    text
}

/// What names a route.
fn start(kind: u16, flags: u16, route: &NetworkRoute) -> Result<Message, NetworkError> {
    let byte = |value| u8::try_from(value).unwrap_or_default();
    // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
    let mut fixed = [
        family(&route.destination)?,
        bits(route.prefix)?,
        0,
        0,
        libc::RT_TABLE_MAIN,
        STATIC,
        byte(route.scope),
        byte(route.kind),
        0,
        0,
        0,
        0,
    ];
    if route.onlink {
        fixed[8..].copy_from_slice(&ONLINK.to_ne_bytes());
    }
    let mut message = Message::new(kind, flags, &fixed);
    if route.prefix > 0 {
        message = message.with(libc::RTA_DST, &route.destination);
    }
    if route.metric > 0 {
        message = message.with_u32(libc::RTA_PRIORITY, route.metric);
    }
    Ok(message)
}

fn message(indices: &Indices, route: &NetworkRoute) -> Result<Message, NetworkError> {
    let mut message = start(libc::RTM_NEWROUTE, CREATE | REPLACE, route)?;
    if !route.interface.is_empty() {
        let index = indices
            .get(&route.interface)
            .ok_or_else(|| NetworkError::Invalid {
                what: "a route through an interface that is not there:",
                value: route.interface.clone(),
            })?;
        message = message.with_u32(libc::RTA_OIF, *index);
    }
    if !route.source.is_empty() {
        message = message.with(libc::RTA_PREFSRC, &route.source);
    }
    if route.gateway.len() == route.destination.len() {
        message = message.with(libc::RTA_GATEWAY, &route.gateway);
    } else if !route.gateway.is_empty() {
        let mut via = u16::from(family(&route.gateway)?).to_ne_bytes().to_vec();
        via.extend(&route.gateway);
        message = message.with(VIA, &via);
    }
    if !route.metrics.is_empty() {
        message = message.with_nested(libc::RTA_METRICS, |mut nested| {
            for metric in &route.metrics {
                let kind = u16::try_from(metric.kind).unwrap_or_default();
                nested = nested.with_u32(kind, metric.value);
            }
            nested
        });
    }
    Ok(message)
}
