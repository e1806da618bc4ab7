//! Traffic control (tc): what the kernel is told to do with an interface's frames.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use cofferdam_netlink::{Attributes, Message, Socket};

use crate::filter::Instruction;

const NEW_QDISC: u16 = 36;
const DELETE_QDISC: u16 = 37;
const GET_QDISC: u16 = 38;
const NEW_FILTER: u16 = 44;
const DELETE_FILTER: u16 = 45;
const GET_FILTER: u16 = 46;

const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

const KIND: u16 = 1;
const OPTIONS: u16 = 2;
// Of a bpf filter.
const ACTIONS: u16 = 1;
const FLAGS: u16 = 8;
/// Its program's answer is the action.
const DIRECT: u32 = 1;

/// The qdisc that frames pass before anything else sees them; it queues nothing.
const CLSACT: u32 = 0xffff_0000;
const CLSACT_PARENT: u32 = 0xffff_fff1;
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
const ROOT: u32 = 0xffff_ffff;

/// Marks what is ours: no other program gives its filters this place, nor its qdiscs this handle.
const OURS: u16 = 0xc0ff;
const OUR_QDISC: u32 = (OURS as u32) << 16;
/// `ETH_P_ALL` as it travels.
const EVERY_PROTOCOL: u32 = 0x0300;

/// `struct tcmsg`.
fn fixed(index: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut bytes = [0; 20];
    for (number, value) in [index, handle, parent, info].into_iter().enumerate() {
        bytes[4 + 4 * number..8 + 4 * number].copy_from_slice(&value.to_ne_bytes());
    }
    bytes
}

/// First come frames for the namespace itself, then those that are passed on; what is left is dropped, on taps.
pub(crate) const OWN: u16 = 0;
pub(crate) const PASS: u16 = 1;
pub(crate) const REST: u16 = 2;

/// A filter's place among others; the lower goes first.
fn info(place: u16) -> u32 {
    u32::from(OURS + place) << 16 | EVERY_PROTOCOL
}

/// What a filter does with a frame that its program takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Sends it out of the interface with this index; nothing else sees it.
    SendOutOf(u32),
    /// The program's answer is the action.
    Answer,
}

/// Has every arriving frame pass filters. Nothing changes where that is so already.
pub(crate) fn open_ingress(socket: &mut Socket, index: u32) -> io::Result<()> {
    let message = Message::new(
        NEW_QDISC,
        CREATE | EXCLUSIVE,
        &fixed(index, CLSACT, CLSACT_PARENT, 0),
    )
    .with_text(KIND, "clsact");
    match socket.request(message) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Adds a filter, or replaces the one in the same place without a gap.
pub(crate) fn set_filter(
    socket: &mut Socket,
    index: u32,
    place: u16,
    program: &[Instruction],
    action: Action,
) -> io::Result<()> {
    const LENGTH: u16 = 4;
    const PROGRAM: u16 = 5;
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let bytes: Vec<u8> = program.iter().flat_map(|one| one.bytes()).collect();
    let message = filter(index, place).with_nested(OPTIONS, |options| {
        let options = options
            .with(LENGTH, &length.to_ne_bytes())
            .with(PROGRAM, &bytes);
        match action {
            Action::SendOutOf(target) => {
                options.with_nested(ACTIONS, |list| redirect(list, target))
            }
            Action::Answer => options.with_u32(FLAGS, DIRECT),
        }
    });
    socket.request(message)
}

/// Adds a filter that is an eBPF program, whose answer is the action.
pub(crate) fn set_program(
    socket: &mut Socket,
    index: u32,
    place: u16,
    program: &OwnedFd,
) -> io::Result<()> {
    const DESCRIPTOR: u16 = 6;
    const NAME: u16 = 7;
    let descriptor = u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?;
    socket.request(filter(index, place).with_nested(OPTIONS, |options| {
        options
            .with_u32(DESCRIPTOR, descriptor)
            .with_text(NAME, "cofferdam")
            .with_u32(FLAGS, DIRECT)
    }))
}

fn filter(index: u32, place: u16) -> Message {
    // A filter carries the number of the process that answers for it.
    let owner = std::process::id();
    Message::new(
        NEW_FILTER,
        CREATE,
        &fixed(index, owner, INGRESS, info(place)),
    )
    .with_text(KIND, "bpf")
}

/// The first and only action: `mirred`, egress redirect.
fn redirect(list: Message, target: u32) -> Message {
    const FIRST: u16 = 1;
    const ACTION_KIND: u16 = 1;
    const ACTION_OPTIONS: u16 = 2;
    const PARAMETERS: u16 = 2;
    const STOLEN: u32 = 4;
    const EGRESS_REDIRECT: u32 = 1;
    // struct tc_mirred: index, capab, action, refcnt, bindcnt, eaction, ifindex.
    let parameters: Vec<u8> = [0, 0, STOLEN, 0, 0, EGRESS_REDIRECT, target]
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect();
    list.with_nested(FIRST, |action| {
        action
            .with_text(ACTION_KIND, "mirred")
            .with_nested(ACTION_OPTIONS, |options| {
                options.with(PARAMETERS, &parameters)
            })
    })
}

/// A filter of ours, of this process or another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wire {
    /// The process that answers for it.
    pub(crate) owner: u32,
    /// The interface that it sends frames to.
    pub(crate) target: u32,
}

/// Our filter on an interface.
pub(crate) fn wire(socket: &mut Socket, index: u32) -> io::Result<Option<Wire>> {
    for filter in filters(socket, index, INGRESS)? {
        let Some((fixed, attributes)) = filter.split::<20>() else {
            continue;
        };
        if u16::from_ne_bytes([fixed[18], fixed[19]]) != OURS + PASS {
            continue;
        }
        // Of the options, the actions; of these, the first; of that, the options; of these, the parameters' last.
        let nested = [OPTIONS, 1, 1, 2, 2]
            .into_iter()
            .try_fold(attributes, |outer, kind| {
                outer.find(kind).map(Attributes::inside)
            });
        let Some(bytes) =
            nested.and_then(|parameters| parameters.rest().get(24..28)?.first_chunk())
        else {
            continue;
        };
        return Ok(Some(Wire {
            owner: u32::from_ne_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            target: u32::from_ne_bytes(*bytes),
        }));
    }
    Ok(None)
}

fn filters(
    socket: &mut Socket,
    index: u32,
    parent: u32,
) -> io::Result<Vec<cofferdam_netlink::Received>> {
    match socket.dump(&Message::new(GET_FILTER, 0, &fixed(index, 0, parent, 0))) {
        // There is no qdisc that could have filters.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(Vec::new()),
        other => other,
    }
}

/// Removes our filter in this place; nothing happens when there is none.
pub(crate) fn remove_filter(socket: &mut Socket, index: u32, place: u16) -> io::Result<()> {
    // Handle 0: everything in that place.
    let message = Message::new(DELETE_FILTER, 0, &fixed(index, 0, INGRESS, info(place)));
    gone(socket.request(message))
}

/// Takes off all that is ours; the qdisc too, if nobody else uses it. Nothing happens where nothing is ours, or when the
/// interface is gone.
pub(crate) fn clear(socket: &mut Socket, index: u32) -> io::Result<()> {
    limit(socket, index, None)?;
    // In this order: the last one tells whose they are.
    for place in [OWN, PASS] {
        match remove_filter(socket, index, place) {
            // No qdisc, no filters.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(()),
            other => other?,
        }
    }
    for parent in [INGRESS, EGRESS] {
        if !gone(filters(socket, index, parent).map(|left| left.is_empty())).unwrap_or(false) {
            return Ok(());
        }
    }
    let message = Message::new(DELETE_QDISC, 0, &fixed(index, CLSACT, CLSACT_PARENT, 0));
    gone(socket.request(message))
}

/// A result, where "there is none" is as good as done.
fn gone<T: Default>(result: io::Result<T>) -> io::Result<T> {
    match result {
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(libc::ENODEV) =>
        {
            Ok(T::default())
        }
        other => other,
    }
}

/// Limits what an interface sends to this many bits a second; none takes our limit off.
pub(crate) fn limit(socket: &mut Socket, index: u32, bits: Option<u64>) -> io::Result<()> {
    let Some(bits) = bits else {
        let ours = socket
            .dump(&Message::new(GET_QDISC, 0, &fixed(index, 0, 0, 0)))?
            .iter()
            .filter_map(|qdisc| qdisc.split::<20>())
            .any(|(fixed, _)| {
                u32::from_ne_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]) == index
                    && u32::from_ne_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]) == OUR_QDISC
            });
        if !ours {
            return Ok(());
        }
        return gone(socket.request(Message::new(
            DELETE_QDISC,
            0,
            &fixed(index, OUR_QDISC, ROOT, 0),
        )));
    };
    const REPLACE: u16 = 0x100;
    const PARAMETERS: u16 = 1;
    const RATE64: u16 = 4;
    const BURST: u16 = 6;
    let bytes = bits.div_ceil(8).max(1);
    // As much at once as 10 ms bring, and never less than the largest frame that a card makes by itself.
    let burst = u32::try_from(bytes / 100)
        .unwrap_or(u32::MAX)
        .max(128 << 10);
    // What may wait: 50 ms' worth.
    let waiting = u32::try_from(bytes / 20)
        .unwrap_or(u32::MAX)
        .saturating_add(burst);
    // struct tc_tbf_qopt: two tc_ratespec (cell_log, linklayer, overhead, cell_align, mpu, rate), limit, buffer, mtu.
    let mut options = [0; 36];
    options[1] = 1;
    options[8..12].copy_from_slice(&u32::try_from(bytes).unwrap_or(u32::MAX).to_ne_bytes());
    options[24..28].copy_from_slice(&waiting.to_ne_bytes());
    let message = Message::new(
        NEW_QDISC,
        CREATE | REPLACE,
        &fixed(index, OUR_QDISC, ROOT, 0),
    )
    .with_text(KIND, "tbf")
    .with_nested(OPTIONS, |nested| {
        let nested = nested.with(PARAMETERS, &options).with_u32(BURST, burst);
        if bytes > u64::from(u32::MAX) {
            nested.with(RATE64, &bytes.to_ne_bytes())
        } else {
            nested
        }
    });
    socket.request(message)
}
