//! Feature bits (virtio 1.3, 5.1.3), and what they ask of a tap.

pub(crate) const CSUM: u64 = 1 << 0;
pub(crate) const GUEST_CSUM: u64 = 1 << 1;
pub(crate) const MTU: u64 = 1 << 3;
pub(crate) const MAC: u64 = 1 << 5;
pub(crate) const GUEST_TSO4: u64 = 1 << 7;
pub(crate) const GUEST_TSO6: u64 = 1 << 8;
pub(crate) const GUEST_ECN: u64 = 1 << 9;
pub(crate) const GUEST_UFO: u64 = 1 << 10;
pub(crate) const HOST_TSO4: u64 = 1 << 11;
pub(crate) const HOST_TSO6: u64 = 1 << 12;
pub(crate) const HOST_ECN: u64 = 1 << 13;
pub(crate) const HOST_UFO: u64 = 1 << 14;
pub(crate) const MRG_RXBUF: u64 = 1 << 15;
pub(crate) const STATUS: u64 = 1 << 16;
pub(crate) const CTRL_VQ: u64 = 1 << 17;
pub(crate) const MQ: u64 = 1 << 22;
pub(crate) const INDIRECT: u64 = 1 << 28;
pub(crate) const EVENT_IDX: u64 = 1 << 29;
pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const GUEST_USO4: u64 = 1 << 54;
pub(crate) const GUEST_USO6: u64 = 1 << 55;
pub(crate) const HOST_USO: u64 = 1 << 56;

/// What the rings of a queue are made with: whoever serves them must know of these.
pub(crate) const OF_RINGS: u64 = INDIRECT | EVENT_IDX | MRG_RXBUF | VERSION_1;

/// What a card offers. A control queue is there only for what it controls here: the number of queues.
pub(crate) fn offered(pairs: usize, mtu: bool, uso: bool) -> u64 {
    let mut features = CSUM
        | GUEST_CSUM
        | MAC
        | GUEST_TSO4
        | GUEST_TSO6
        | GUEST_ECN
        | GUEST_UFO
        | HOST_TSO4
        | HOST_TSO6
        | HOST_ECN
        | HOST_UFO
        | MRG_RXBUF
        | STATUS
        | INDIRECT
        | EVENT_IDX;
    if mtu {
        features |= MTU;
    }
    if pairs > 1 {
        features |= CTRL_VQ | MQ;
    }
    if uso {
        features |= GUEST_USO4 | GUEST_USO6 | HOST_USO;
    }
    features
}

/// Both at once, or none: so a tap has it.
pub(crate) const TAP_USO: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// What a tap may leave to a driver that has accepted these features, for `TUNSETOFFLOAD`. All of it rests on checksums
/// that are left to the driver (5.1.3.1).
pub(crate) fn tap_offload(features: u64) -> u32 {
    let has = |bits: u64| features & bits == bits;
    if !has(GUEST_CSUM) {
        return 0;
    }
    let mut offload = libc::TUN_F_CSUM;
    for (bits, flags) in [
        (GUEST_TSO4, libc::TUN_F_TSO4),
        (GUEST_TSO6, libc::TUN_F_TSO6),
        (GUEST_UFO, libc::TUN_F_UFO),
        (GUEST_USO4 | GUEST_USO6, TAP_USO),
    ] {
        if has(bits) {
            offload |= flags;
        }
    }
    if has(GUEST_ECN) && offload & (libc::TUN_F_TSO4 | libc::TUN_F_TSO6) != 0 {
        offload |= libc::TUN_F_TSO_ECN;
    }
    offload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_leaves_to_the_driver_what_it_accepted_and_nothing_else() {
        assert_eq!(tap_offload(offered(1, false, true)), 0x7f);
        assert_eq!(tap_offload(offered(1, false, false)), 0x1f);
        assert_eq!(tap_offload(0), 0);
        assert_eq!(tap_offload(GUEST_CSUM), 1);
        assert_eq!(tap_offload(!GUEST_CSUM), 0);
        assert_eq!(tap_offload(GUEST_CSUM | GUEST_ECN), 1);
        assert_eq!(tap_offload(GUEST_CSUM | GUEST_TSO6 | GUEST_ECN), 1 | 4 | 8);
        assert_eq!(tap_offload(GUEST_CSUM | GUEST_USO4), 1);
        // What the driver sends is no matter of the tap's.
        assert_eq!(tap_offload(CSUM | HOST_TSO4 | HOST_USO), 0);
    }
}
