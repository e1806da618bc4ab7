//! A share that another process serves: virtio-fs (virtio 1.3, 5.11) over vhost-user.
