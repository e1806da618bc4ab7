//! A network card on a tap, in a namespace of its own: it needs root.
//!
//! Card and tap stay the same from one script to the next, as making a tap takes longer than anything that is done with
//! it.

#[path = "../../net/tests/wire/mod.rs"]
mod wire;

use std::cell::RefCell;
use std::time::Duration;

use vmm_net::{Link, Net, Settings};
use vmm_virtio::testing::{Driver, wait};
use wire::{GUEST, HEADER, HOST, RECEIVE, TRANSMIT, Wire, frame, internet, pattern};

use crate::input::Input;
use crate::script::{self, Subject};

/// The pairs of queues, and the number of the queue for commands behind them.
const PAIRS: usize = 2;
const COMMANDS: usize = 2 * PAIRS;

struct Card {
    wire: Wire,
    link: Link,
    pulled: bool,
}

impl Card {
    /// The plug is in, and the host has noticed, which it does when it finds time: until then it loses packets.
    fn plug_in(&mut self, driver: &Driver) {
        if !std::mem::take(&mut self.pulled) {
            return;
        }
        self.link.set(true);
        script::serve(driver);
        wait("the carrier", || self.wire.has_carrier().then_some(()));
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Subject for Card {
    fn act(&mut self, driver: &mut Driver, input: &mut Input<'_>) {
        let choice = input.byte();
        let pair = usize::from(choice >> 7);
        match choice & 15 {
            0 | 1 => {
                let length = usize::from(input.short()) % 1500 + 1;
                self.wire.send(&frame(GUEST, HOST, &pattern(length, 1)));
            }
            // More than one buffer of a driver has room for.
            2 => {
                let length = usize::from(input.short()) % 60_000;
                let mut header = [0; wire::SHORT_HEADER];
                // GSO of TCP in IPv4, over 1448 bytes; the checksum is left out.
                header[..2].copy_from_slice(&[1, 1]);
                header[2..10].copy_from_slice(&[54, 0, 0xa8, 5, 34, 0, 16, 0]);
                let frame = internet(GUEST, HOST, 6, [1, 2], &pattern(length, 1));
                // The host refuses what is too short for that.
                let _ = self.wire.send_with(&header, &frame);
            }
            3 => while self.wire.try_receive().is_some() {},
            4 if input.byte() & 7 == 0 => {
                self.link.set(false);
                self.pulled = true;
            }
            4 => self.link.set(true),
            // A command: the number of pairs, and others.
            5 | 6 => {
                let (class, command) = (input.byte() & 7, input.byte() & 3);
                let length = input.below(4);
                let data = input.bytes(length);
                driver.add(COMMANDS, &[&[class, command], data], &[1]);
                driver.kick(COMMANDS);
                script::serve(driver);
            }
            7 | 8 => {
                let length = input.length() % 70_000;
                for _ in 0..input.below(16) {
                    driver.add(2 * pair + RECEIVE, &[], &[length]);
                }
                driver.kick(2 * pair + RECEIVE);
                script::serve(driver);
            }
            9 => script::serve(driver),
            _ => {
                let header = input.bytes(HEADER);
                let length = usize::from(input.short()) % 3000;
                let frame = internet(HOST, GUEST, 6, [1, 2], &pattern(length, 1));
                driver.add(2 * pair + TRANSMIT, &[header, &frame], &[]);
                driver.kick(2 * pair + TRANSMIT);
            }
        }
    }

    fn works(&mut self, driver: &mut Driver) {
        self.plug_in(driver);
        while self.wire.try_receive().is_some() {}
        wire::works(&self.wire, driver, u64::MAX);
        while self.wire.try_receive().is_some() {}
    }
}

thread_local! {
    static CARD: RefCell<(Card, Driver)> = RefCell::new(card());
}

fn card() -> (Card, Driver) {
    let (wire, taps) = Wire::new(PAIRS).expect("root, for a network namespace");
    let settings = Settings {
        mac: GUEST,
        taps,
        mtu: Some(1500),
        ..Settings::default()
    };
    let device = Net::new(settings).expect("a card");
    let link = device.link();
    let driver = Driver::find_unserved(Box::new(device), Driver::memory());
    let pulled = false;
    (Card { wire, link, pulled }, driver)
}

/// Plays a script.
pub fn run(data: &[u8]) {
    CARD.with_borrow_mut(|(card, driver)| script::play(driver, card, &mut Input::new(data)));
}
