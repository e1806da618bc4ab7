//! Disks on files and block devices: virtio-blk (virtio 1.3, 5.2).
