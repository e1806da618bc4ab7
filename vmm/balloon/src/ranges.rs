//! Putting pages together.

use vm_memory::{Address, GuestMemory, GuestMemoryRegion, VolatileSlice};
use vmm_virtio::Memory;

use crate::PAGE;

/// From where to where, in bytes; the end is not part of it.
pub(crate) type Range = (u64, u64);

/// The range of a page by its number.
pub(crate) fn page(number: u32) -> Range {
    let begin = u64::from(number) * PAGE;
    (begin, begin + PAGE)
}

/// The whole pages of a range.
pub(crate) fn whole_pages((begin, end): Range) -> Option<Range> {
    let begin = begin.checked_next_multiple_of(PAGE)?;
    let end = end - end % PAGE;
    (begin < end).then_some((begin, end))
}

/// The same bytes in as few ranges as possible.
pub(crate) fn merge(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut merged: Vec<Range> = Vec::new();
    for (begin, end) in ranges {
        match merged.last_mut() {
            Some((_, last)) if begin <= *last => *last = end.max(*last),
            _ => merged.push((begin, end)),
        }
    }
    merged
}

/// Where in the guest's memory a slice of it is.
pub(crate) fn guest_range(memory: &Memory, slice: &VolatileSlice<'_>) -> Option<Range> {
    let at = slice.ptr_guard().as_ptr().addr();
    memory.iter().find_map(|region| {
        let offset = at.checked_sub(region.as_ptr().addr())? as u64;
        if offset >= region.len() {
            return None;
        }
        let begin = region.start_addr().raw_value().checked_add(offset)?;
        Some((begin, begin.checked_add(slice.len() as u64)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::GuestAddress;

    #[test]
    fn neighbours_become_one() {
        let pages = [7, 3, 4, 7, 5, 9, 0].map(page).to_vec();
        let ranges = [(0, 1), (3, 6), (7, 8), (9, 10)];
        let bytes = ranges.map(|(begin, end)| (begin * PAGE, end * PAGE));
        assert_eq!(merge(pages), bytes);
        assert_eq!(merge(vec![(0, 10), (2, 4), (10, 12)]), [(0, 12)]);
        assert_eq!(merge(Vec::new()), []);
    }

    #[test]
    fn parts_of_pages_are_left() {
        assert_eq!(whole_pages((1, 4096)), None);
        assert_eq!(whole_pages((0, 4096)), Some((0, 4096)));
        assert_eq!(whole_pages((1, 3 * 4096 - 1)), Some((4096, 8192)));
        assert_eq!(whole_pages((4096, 4096)), None);
        assert_eq!(whole_pages((u64::MAX - 1, u64::MAX)), None);
    }

    #[test]
    fn slices_are_found_in_their_region() {
        let places = [(GuestAddress(0), 8192), (GuestAddress(1 << 32), 8192)];
        let memory = Memory::from_ranges(&places).expect("memory");
        for begin in [0, 100, 8191, 1 << 32, (1 << 32) + 8000] {
            let slice = memory.get_slice(GuestAddress(begin), 1).expect("a slice");
            assert_eq!(guest_range(&memory, &slice), Some((begin, begin + 1)));
        }
        let other = Memory::from_ranges(&places).expect("memory");
        let slice = other.get_slice(GuestAddress(0), 1).expect("a slice");
        assert_eq!(guest_range(&memory, &slice), None);
    }
}
