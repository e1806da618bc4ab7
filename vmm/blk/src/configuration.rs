//! What a disk tells its driver: features (5.2.3) and configuration (5.2.4).

use crate::buffers::MOST_ZEROES;
use crate::options::Options;

/// Sectors are 512 bytes, whatever the block size.
pub(crate) const SECTOR: u64 = 512;

/// Descriptors of a queue.
pub(crate) const QUEUE_SIZE: u16 = 256;

/// Header and status are descriptors, too.
const MOST_SEGMENTS: u32 = QUEUE_SIZE as u32 - 2;

/// The most that one discard takes: what a host's file system does in a moment.
pub(crate) const MOST_DISCARDED: u32 = 1 << 21;

/// The most that one request for zeros takes: what can be written at once where there is no better way.
pub(crate) const MOST_ZEROED: u32 = (MOST_ZEROES / SECTOR) as u32;

/// The unit in which hosts keep files; a driver that aligns its blocks to it spares them reading before writing.
const PHYSICAL_BLOCK: u32 = 4096;

/// Where the driver may write: whether the disk caches writes (`writeback`).
pub(crate) const WRITEBACK: u64 = 32;

/// Feature bits.
pub(crate) mod feature {
    pub(crate) const SEG_MAX: u64 = 1 << 2;
    pub(crate) const RO: u64 = 1 << 5;
    pub(crate) const BLK_SIZE: u64 = 1 << 6;
    pub(crate) const FLUSH: u64 = 1 << 9;
    pub(crate) const TOPOLOGY: u64 = 1 << 10;
    pub(crate) const CONFIG_WCE: u64 = 1 << 11;
    pub(crate) const MQ: u64 = 1 << 12;
    pub(crate) const DISCARD: u64 = 1 << 13;
    pub(crate) const WRITE_ZEROES: u64 = 1 << 14;
    pub(crate) const INDIRECT_DESC: u64 = 1 << 28;
    pub(crate) const EVENT_IDX: u64 = 1 << 29;
}

/// What a disk with these options can do.
pub(crate) fn features(options: &Options) -> u64 {
    let mut features = feature::SEG_MAX
        | feature::BLK_SIZE
        | feature::TOPOLOGY
        | feature::INDIRECT_DESC
        | feature::EVENT_IDX;
    if options.read_only {
        features |= feature::RO;
    } else {
        features |= feature::FLUSH | feature::CONFIG_WCE | feature::DISCARD | feature::WRITE_ZEROES;
    }
    if options.queues > 1 {
        features |= feature::MQ;
    }
    features
}

/// `struct virtio_blk_config`, up to what is about secure erasure, which there is none of.
pub(crate) fn bytes(options: &Options, sectors: u64, writeback: bool) -> [u8; 60] {
    let mut bytes = [0; 60];
    let mut put = |offset: usize, value: &[u8]| {
        bytes[offset..offset + value.len()].copy_from_slice(value);
    };
    let block = options.block_size;
    let blocks = PHYSICAL_BLOCK / block;
    put(0, &sectors.to_le_bytes());
    put(12, &MOST_SEGMENTS.to_le_bytes());
    put(20, &block.to_le_bytes());
    // `physical_block_exp`, no offset, `min_io_size`; there is no best size for large requests.
    put(24, &[blocks.trailing_zeros() as u8, 0, blocks as u8, 0]);
    put(32, &[u8::from(writeback)]);
    put(34, &options.queues.to_le_bytes());
    if !options.read_only {
        put(36, &MOST_DISCARDED.to_le_bytes());
        put(40, &1_u32.to_le_bytes());
        put(44, &(block / SECTOR as u32).to_le_bytes());
        put(48, &MOST_ZEROED.to_le_bytes());
        put(52, &1_u32.to_le_bytes());
        // Zeros may be holes.
        put(56, &[1]);
    }
    bytes
}
