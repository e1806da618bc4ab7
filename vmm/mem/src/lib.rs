//! Memory that grows and shrinks: virtio-mem (virtio 1.3, 5.15).
