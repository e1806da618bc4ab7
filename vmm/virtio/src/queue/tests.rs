//! The arithmetic of indices, all of it for small rings: they are 16 bits wide, go on round, and a driver may write any.

use super::*;

const SIZES: [u16; 3] = [1, 2, 4];

/// Where positions go round, in the ring and in the index.
const CORNERS: [u16; 3] = [0, 0x7fff, 0xfffe];

const TABLE: u64 = 0;
pub(super) const DRIVER: u64 = 0x1000;
pub(super) const DEVICE: u64 = 0x2000;

/// A queue whose driver has written one descriptor into each place of the table, and all heads into its ring, the last
/// one first.
fn queue(size: u16, event_idx: bool) -> (Queue, Arc<Memory>) {
    let host = Host::new();
    (host.queue(size, event_idx), host.memory)
}

/// What a queue needs, to be used again and again.
pub(super) struct Host {
    pub(super) memory: Arc<Memory>,
    kick: Arc<EventFd>,
    interrupt: Interrupt,
}

impl Host {
    pub(super) fn new() -> Self {
        let ranges = [(GuestAddress(0), 0x4000)];
        Self {
            memory: Arc::new(Memory::from_ranges(&ranges).expect("memory")),
            kick: Arc::new(EventFd::new(libc::EFD_NONBLOCK).expect("an event")),
            interrupt: Interrupt::new().expect("an interrupt"),
        }
    }

    pub(super) fn queue(&self, size: u16, event_idx: bool) -> Queue {
        let memory = &self.memory;
        for slot in 0..size {
            let descriptor = [0x3000_u64, 1].map(u64::to_le_bytes).concat();
            let place = TABLE + u64::from(slot) * 16;
            memory
                .write_slice(&descriptor, GuestAddress(place))
                .expect("memory");
            let place = DRIVER + 4 + u64::from(slot) * 2;
            memory
                .write_obj((size - 1 - slot).to_le(), GuestAddress(place))
                .expect("memory");
        }
        let mut ring = virtio_queue::Queue::new(4).expect("a size");
        ring.set_size(size);
        ring.set_desc_table_address(Some(TABLE as u32), None);
        ring.set_avail_ring_address(Some(DRIVER as u32), None);
        ring.set_used_ring_address(Some(DEVICE as u32), None);
        ring.set_event_idx(event_idx);
        ring.set_ready(true);
        assert!(ring.is_valid(&**memory));
        let kick = Arc::clone(&self.kick);
        Queue::new(0, ring, Arc::clone(memory), kick, self.interrupt.clone())
    }
}

pub(super) fn store(memory: &Memory, address: u64, value: u16) {
    memory
        .store(value.to_le(), GuestAddress(address), Ordering::Relaxed)
        .expect("memory");
}

pub(super) fn load(memory: &Memory, address: u64) -> u16 {
    let value = memory.load(GuestAddress(address), Ordering::Relaxed);
    u16::from_le(value.expect("memory"))
}

#[test]
fn at_every_position_what_was_offered_is_taken_in_order() {
    for size in SIZES {
        let (mut queue, memory) = queue(size, false);
        for position in 0..=u16::MAX {
            // The ring is full, then it is empty, and one is given up again.
            store(&memory, DRIVER + 2, position.wrapping_add(size));
            for offered in 0..size {
                let slot = position.wrapping_add(offered) % size;
                let chain = queue.pop(&memory).expect("no break").expect("a request");
                assert_eq!(chain.head(), size - 1 - slot);
            }
            assert!(queue.pop(&memory).expect("no break").is_none());
            for _ in 1..size {
                queue.undo_pop();
            }
        }
    }
}

#[test]
fn an_index_that_is_further_than_the_ring_is_long_breaks_it() {
    for size in SIZES {
        let (mut queue, memory) = queue(size, false);
        for position in CORNERS {
            queue.ring.set_next_avail(position);
            for offered in 0..=u16::MAX {
                store(&memory, DRIVER + 2, position.wrapping_add(offered));
                match queue.pop(&memory) {
                    Ok(chain) => {
                        assert_eq!(chain.is_some(), offered > 0);
                        assert!(offered <= size, "{offered} of {size}");
                    }
                    Err(_) => assert!(offered > size, "{offered} of {size}"),
                }
                queue.ring.set_next_avail(position);
            }
        }
    }
}

#[test]
fn at_every_position_what_is_given_back_together_is_told_of_at_once() {
    for size in SIZES {
        for together in 1..=size {
            let (mut queue, memory) = queue(size, false);
            let requests: Vec<_> = (0..together)
                .map(|number| (number, 100 + u32::from(number)))
                .collect();
            let mut position = 0_u16;
            for _ in 0..(1 << 16) / u32::from(together) + 2 {
                queue.complete_all(&requests).expect("no break");
                for &(head, written) in &requests {
                    let slot = u64::from(position % size);
                    let entry: u64 = memory
                        .read_obj(GuestAddress(DEVICE + 4 + slot * 8))
                        .expect("memory");
                    let expected = u64::from(head) | u64::from(written) << 32;
                    assert_eq!(u64::from_le(entry), expected, "{position}");
                    position = position.wrapping_add(1);
                }
                assert_eq!(load(&memory, DEVICE + 2), position);
            }
        }
    }
}

/// 2.7.7: an interrupt for the request that the driver has named by its position, and for no other.
#[test]
fn a_driver_is_told_if_what_it_waits_for_is_among_what_was_completed() {
    for size in SIZES {
        let (mut queue, memory) = queue(size, true);
        for before in CORNERS {
            for completed in [size, u16::MAX] {
                queue.ring.set_next_used(before.wrapping_add(completed));
                for wish in 0..=u16::MAX {
                    store(&memory, DRIVER + 4 + u64::from(size) * 2, wish);
                    // Either the range of positions goes round or not.
                    let end = u32::from(before) + u32::from(completed);
                    let among = |wish: u32| u32::from(before) <= wish && wish < end;
                    let expected = among(wish.into()) || among(u32::from(wish) + 0x1_0000);
                    let waits = queue.driver_waits(completed).expect("no break");
                    assert_eq!(waits, expected, "{wish} of {completed} from {before}");
                }
            }
        }
    }
}

#[test]
fn a_driver_without_event_idx_is_told_unless_it_says_no() {
    let (queue, memory) = queue(4, false);
    for flags in 0..=u16::MAX {
        store(&memory, DRIVER, flags);
        assert_eq!(queue.driver_waits(1).expect("no break"), flags & 1 == 0);
    }
}

#[test]
fn at_every_position_the_next_request_is_asked_for() {
    for (size, event_idx) in SIZES.into_iter().zip([true, false, true]) {
        let (mut queue, memory) = queue(size, event_idx);
        for position in 0..=u16::MAX {
            queue.ring.set_next_avail(position);
            store(&memory, DRIVER + 2, position);
            queue.silence().expect("no break");
            assert!(!queue.listen().expect("no break"), "{position}");
            if event_idx {
                let event = load(&memory, DEVICE + 4 + u64::from(size) * 8);
                assert_eq!(event, position);
            } else {
                assert_eq!(load(&memory, DEVICE) & 1, 0);
            }
            // One has come in the meantime.
            store(&memory, DRIVER + 2, position.wrapping_add(1));
            assert!(queue.listen().expect("no break"), "{position}");
        }
    }
}
