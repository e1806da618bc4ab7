//! What a card offers, and what is no card.

mod wire;

use std::fs::File;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;

use vmm_net::{Net, NetError, Settings};
use vmm_virtio::testing::Driver;
use wire::{GUEST, Wire};

const ALL: u64 = u64::MAX;
const MRG_RXBUF: u64 = 1 << 15;

fn settings(taps: Vec<OwnedFd>) -> Settings {
    Settings {
        mac: GUEST,
        taps,
        mtu: Some(1500),
        ..Settings::default()
    }
}

#[test]
fn what_a_card_offers() {
    let Some((_wire, taps)) = Wire::new(1) else {
        return;
    };
    let net = Net::new(settings(taps)).expect("a card");
    let driver = Driver::start(Box::new(net), ALL);
    assert_eq!(driver.read(8), 1);
    let mut config = GUEST.to_vec();
    config.extend([1, 0, 1, 0]);
    config.extend(1500_u16.to_le_bytes());
    config.extend([0; 4]);
    assert_eq!(driver.config(0, 16), config);
    driver.transport.write(0x100, &[0xff; 6]);
    assert_eq!(driver.config(0, 6), GUEST);
    // MTU, MAC, STATUS, and no control queue for one pair.
    let bits = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 5 | MRG_RXBUF | 1 << 16;
    assert_eq!(driver.features & (bits | 1 << 17 | 1 << 22), bits);
}

#[test]
fn what_is_no_card() {
    let error = |settings| Net::new(settings).map(drop).expect_err("no card");
    assert!(matches!(error(settings(Vec::new())), NetError::Pairs(0)));
    let file = || File::open("/dev/null").expect("a file").into();
    assert!(matches!(
        error(settings(vec![file()])),
        NetError::NotATap {
            number: 0,
            source: Some(_)
        }
    ));
    let Some((_wire, taps)) = Wire::new(1) else {
        return;
    };
    let copy = || vec![taps[0].try_clone().expect("a copy")];
    let with = |change: fn(&mut Settings)| {
        let mut settings = settings(copy());
        change(&mut settings);
        error(settings)
    };
    assert!(matches!(
        with(|settings| settings.mtu = Some(67)),
        NetError::Mtu(67)
    ));
    let both = |settings: &mut Settings| {
        let null = || File::open("/dev/null").expect("a file").into();
        settings.vhosts = vec![null(), null()];
    };
    assert!(matches!(
        with(both),
        NetError::Vhosts { given: 2, pairs: 1 }
    ));
    let limited = |settings: &mut Settings| {
        settings.vhosts = vec![File::open("/dev/null").expect("a file").into()];
        settings.transmit.operations = NonZeroU64::new(1);
    };
    assert!(matches!(with(limited), NetError::VhostLimits));
    let wrong = |settings: &mut Settings| {
        settings.vhosts = vec![File::open("/dev/null").expect("a file").into()];
    };
    assert!(matches!(with(wrong), NetError::Vhost { number: 0, .. }));
    // Two descriptors of a tap that has one queue.
    let twice = [copy(), copy()].into_iter().flatten().collect();
    assert!(matches!(
        error(settings(twice)),
        NetError::NotATap {
            number: 0,
            source: None
        }
    ));
}
