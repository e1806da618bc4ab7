//! What a guest says about its memory.

/// One entry: a kind and a value (virtio 1.3, 5.5.6.3).
pub(crate) const ENTRY: usize = 10;

/// As many entries are read of one report: more than there are kinds.
pub(crate) const ENTRIES: usize = 64;

/// What a guest has said about its memory; nobody has checked it. What it has not said is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// How many reports have come, with this one: a higher number than before was answered since.
    pub reports: u64,
    /// Bytes read from swap.
    pub swapped_in: Option<u64>,
    /// Bytes written to swap.
    pub swapped_out: Option<u64>,
    /// Page faults that waited for a disk.
    pub major_faults: Option<u64>,
    /// Other page faults.
    pub minor_faults: Option<u64>,
    /// Bytes that nothing is in.
    pub free: Option<u64>,
    /// Bytes that there are.
    pub total: Option<u64>,
    /// Bytes that a new program could have without swapping.
    pub available: Option<u64>,
    /// Bytes of caches that could be had back quickly.
    pub caches: Option<u64>,
    /// Huge pages that were had.
    pub huge_pages: Option<u64>,
    /// Huge pages that were not to be had.
    pub huge_page_failures: Option<u64>,
    /// Programs that were killed for want of memory.
    pub kills: Option<u64>,
}

impl Statistics {
    /// Reads a report. Kinds that are not known are skipped, of one that comes twice the last counts.
    pub(crate) fn parse(reports: u64, bytes: &[u8]) -> Self {
        let mut statistics = Self {
            reports,
            ..Self::default()
        };
        for entry in bytes.chunks_exact(ENTRY).take(ENTRIES) {
            let (kind, value) = entry.split_at(2);
            let (Ok(kind), Ok(value)) = (kind.try_into(), value.try_into()) else {
                continue;
            };
            let field = match u16::from_le_bytes(kind) {
                0 => &mut statistics.swapped_in,
                1 => &mut statistics.swapped_out,
                2 => &mut statistics.major_faults,
                3 => &mut statistics.minor_faults,
                4 => &mut statistics.free,
                5 => &mut statistics.total,
                6 => &mut statistics.available,
                7 => &mut statistics.caches,
                8 => &mut statistics.huge_pages,
                9 => &mut statistics.huge_page_failures,
                10 => &mut statistics.kills,
                _ => continue,
            };
            *field = Some(u64::from_le_bytes(value));
        }
        statistics
    }
}
