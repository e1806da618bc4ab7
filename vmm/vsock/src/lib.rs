//! A guest's sockets to its host: virtio-vsock (virtio 1.3, 5.10).
