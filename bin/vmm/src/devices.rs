//! Devices, as they are wanted and of the descriptors that come with the request.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context, bail};
use rustix::fs::FileType;
use vmm_blk::{Disk, Engine};
use vmm_control::{Handle, Received, Request, SERIAL_LIMIT};
use vmm_fs::Fs;
use vmm_jail::{Jail, Role};
use vmm_net::Net;
use vmm_pmem::Image;
use vmm_virtio::{Device, Memory, Rates};

use crate::counters::Source;

/// A device, and where it counts.
pub type Made = (Box<dyn Device>, Source);

/// A network card.
///
/// # Errors
/// What it brings is no card, or is refused by the host.
pub fn card(wanted: vmm_control::Nic, received: &mut Received<Request>) -> anyhow::Result<Made> {
    let by_kernel = !wanted.vhost.is_empty();
    let mut take = |handles: Vec<Handle>| {
        handles
            .into_iter()
            .map(|handle| received.take(handle))
            .collect::<Result<Vec<_>, _>>()
    };
    let settings = vmm_net::Settings {
        mac: wanted.mac,
        taps: take(wanted.queues)?,
        mtu: None,
        vhosts: take(wanted.vhost)?,
        receive: Rates::default(),
        transmit: Rates::default(),
    };
    let card = Net::new(settings).context("a network card")?;
    let source = if by_kernel {
        Source::KernelNetwork
    } else {
        Source::Network(card.statistics())
    };
    Ok((Box::new(card), source))
}

/// A file share. This waits for the file server.
///
/// # Errors
/// What the file server refuses.
pub fn share(
    wanted: &vmm_control::Share,
    received: &mut Received<Request>,
    memory: &Memory,
) -> anyhow::Result<Made> {
    let setup = vmm_fs::Setup::new(&wanted.tag);
    let socket = received.take(wanted.socket)?;
    let share = Fs::connect(&setup, socket, memory).context("the file share")?;
    let source = Source::Share(share.handle());
    Ok((Box::new(share), source))
}

/// When a disk is plugged in.
pub enum Moment {
    /// Before any guest runs: it is served by `io_uring`, if the host has that for us.
    Boot,
    /// While one does, which may have taken this process over: nobody can make a ring any more, which could do what no
    /// list of system calls sees. A thread serves the disk, which is no longer than this where the guest can write.
    Later(u64),
}

/// A disk, and what serves it.
///
/// # Errors
/// What is no disk, or too long.
pub fn disk(
    wanted: &vmm_control::Disk,
    file: OwnedFd,
    when: &Moment,
) -> anyhow::Result<(Made, Engine)> {
    let (engine, limit) = match when {
        Moment::Boot => (None, None),
        Moment::Later(limit) => (Some(Engine::Worker), Some(*limit)),
    };
    if let Some(limit) = limit.filter(|_| !wanted.read_only) {
        let length = file_length(&file)?;
        if length > limit {
            bail!(
                "a disk of {length} bytes is longer than the machine was made for, which is {limit}"
            );
        }
    }
    let bytes = wanted.serial.as_bytes();
    let mut serial = [0; SERIAL_LIMIT];
    let Some(place) = serial
        .get_mut(..bytes.len())
        .filter(|_| wanted.serial.is_ascii())
    else {
        bail!("a disk's serial number has at most {SERIAL_LIMIT} characters of ASCII");
    };
    place.copy_from_slice(bytes);
    let options = vmm_blk::Options {
        read_only: wanted.read_only,
        serial,
        engine,
        ..vmm_blk::Options::default()
    };
    // In the thread that it is for, if there is one.
    let begin = || {
        let filter = Jail::also(Role::Disk).map_err(io::Error::other)?;
        filter.apply().map_err(io::Error::other)
    };
    let disk = Disk::confined(file, options, Arc::new(begin)).context("a disk")?;
    let (source, engine) = (Source::Disk(disk.statistics()), disk.engine());
    Ok(((Box::new(disk), source), engine))
}

/// An image in memory.
///
/// # Errors
/// What is no image, or cannot be mapped.
pub fn image(
    wanted: &vmm_control::Image,
    received: &mut Received<Request>,
) -> anyhow::Result<Image> {
    Image::map(received.take(wanted.file)?).context("an image")
}

/// How far a disk writes into a file; nothing of a block device.
///
/// # Errors
/// When it cannot be looked at.
pub fn file_length(file: &OwnedFd) -> anyhow::Result<u64> {
    let status = rustix::fs::fstat(file).context("look at a disk")?;
    Ok(match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => status.st_size.cast_unsigned(),
        _ => 0,
    })
}
