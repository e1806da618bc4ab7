//! Network cards on a tap, served here or by vhost-net: virtio-net (virtio 1.3, 5.1).
