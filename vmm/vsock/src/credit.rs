//! How much each side may send (virtio 1.3, 5.10.6.3). Counters come round.

use crate::BUFFER;
use crate::packet::Header;

/// The guest hears of the room it has again when it is this much.
const WORTH_TELLING: u32 = BUFFER / 4;

/// The accounts of one connection.
#[derive(Debug, Default)]
pub(crate) struct Credit {
    /// Bytes that have come from the guest, that have left for the host, and how many the guest knows to have left.
    received: u32,
    forwarded: u32,
    told: u32,
    /// The guest should be told.
    pub(crate) wanted: bool,
    /// Bytes that were sent to the guest, and what it says of its buffer.
    sent: u32,
    peer_buffer: u32,
    peer_forwarded: u32,
    /// The guest was asked for room since it had any.
    pub(crate) asked: bool,
}

impl Credit {
    /// Takes note of what a packet says of the guest's buffer.
    pub(crate) fn hear(&mut self, header: &Header) {
        self.peer_buffer = header.buf_alloc;
        self.peer_forwarded = header.fwd_cnt;
        if self.room() > 0 {
            self.asked = false;
        }
    }

    /// The bytes that the guest has room for. One that contradicts itself has none.
    pub(crate) fn room(&self) -> u32 {
        let unread = self.sent.wrapping_sub(self.peer_forwarded);
        self.peer_buffer.saturating_sub(unread)
    }

    /// So many bytes were sent to the guest.
    pub(crate) fn send(&mut self, count: u32) {
        self.sent = self.sent.wrapping_add(count);
    }

    /// So many bytes have come from the guest: whether it might send them, from what it was told.
    pub(crate) fn receive(&mut self, count: u32) -> bool {
        let outstanding = self.received.wrapping_sub(self.told);
        let allowed = count <= BUFFER.saturating_sub(outstanding);
        if allowed {
            self.received = self.received.wrapping_add(count);
        }
        allowed
    }

    /// So many of them have left.
    pub(crate) fn forward(&mut self, count: usize) {
        // At most what a packet or the backlog holds: both are less than 4 GiB.
        self.forwarded = self.forwarded.wrapping_add(count as u32);
        if self.forwarded.wrapping_sub(self.told) >= WORTH_TELLING {
            self.wanted = true;
        }
    }

    /// The number that a packet tells the guest.
    pub(crate) fn tell(&mut self) -> u32 {
        self.told = self.forwarded;
        self.wanted = false;
        self.forwarded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::op;

    fn header(buf_alloc: u32, fwd_cnt: u32) -> Header {
        Header {
            src_cid: 3,
            dst_cid: 2,
            src_port: 1,
            dst_port: 1,
            len: 0,
            kind: 1,
            op: op::CREDIT_UPDATE,
            flags: 0,
            buf_alloc,
            fwd_cnt,
        }
    }

    #[test]
    fn the_guest_may_send_what_it_was_told_and_no_more() {
        // So that all counters come round.
        let begin = u32::MAX - BUFFER / 2;
        let mut credit = Credit {
            received: begin,
            forwarded: begin,
            told: begin,
            ..Credit::default()
        };
        assert!(!credit.receive(BUFFER + 1));
        assert!(credit.receive(BUFFER));
        assert!(!credit.receive(1));
        assert!(credit.receive(0));
        credit.forward(WORTH_TELLING as usize - 1);
        assert!(!credit.wanted);
        // It has left, but the guest can't know.
        assert!(!credit.receive(1));
        credit.forward(1);
        assert!(credit.wanted);
        assert_eq!(credit.tell(), begin.wrapping_add(WORTH_TELLING));
        assert!(!credit.receive(WORTH_TELLING + 1));
        assert!(credit.receive(WORTH_TELLING));
        assert!(!credit.wanted);
    }

    #[test]
    fn the_guest_gets_what_it_has_room_for() {
        let mut credit = Credit::default();
        assert_eq!(credit.room(), 0);
        credit.asked = true;
        credit.hear(&header(10, 0));
        assert!(!credit.asked);
        assert_eq!(credit.room(), 10);
        credit.send(10);
        assert_eq!(credit.room(), 0);
        credit.hear(&header(10, 4));
        assert_eq!(credit.room(), 4);
        // A smaller buffer than it has taken, and more taken than was sent.
        for (buffer, forwarded) in [(5, 4), (10, 11), (u32::MAX - 1, 11)] {
            credit.hear(&header(buffer, forwarded));
            assert_eq!(credit.room(), 0, "{buffer} {forwarded}");
        }
    }
}
