//! Images in memory that machines share: virtio-pmem (virtio 1.3, 5.19).
