//! Devices as the VMM is told of them.

use std::os::fd::OwnedFd;

use vmm_control::{Disk, Image, Nic, Share};

use crate::control::Descriptors;

pub fn disk(disk: backend_api::Disk, with: &mut Descriptors) -> Disk {
    Disk {
        file: with.add(disk.file),
        read_only: disk.read_only,
        serial: disk.serial,
    }
}

pub fn image(image: backend_api::Image, with: &mut Descriptors) -> Image {
    Image {
        file: with.add(image.file),
    }
}

/// A card whose packets the host's kernel passes, if it brings `vhosts`.
pub fn nic(nic: backend_api::Nic, vhosts: Vec<OwnedFd>, with: &mut Descriptors) -> Nic {
    Nic {
        mac: nic.mac,
        queues: nic.queues.into_iter().map(|fd| with.add(fd)).collect(),
        vhost: vhosts.into_iter().map(|fd| with.add(fd)).collect(),
    }
}

pub fn share(share: backend_api::Share, with: &mut Descriptors) -> Share {
    Share {
        tag: share.tag,
        socket: with.add(share.socket),
    }
}
