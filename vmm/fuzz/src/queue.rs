//! The transport's registers and the rings, with a device that gives back what it is sent.

#[path = "../../virtio/tests/device/mod.rs"]
mod device;

use device::{Echo, Habits};
use vmm_virtio::testing::Driver;

use crate::input::Input;
use crate::script::{self, Subject};

struct Returned;

impl Subject for Returned {
    /// It is taken away and plugged in again: the machine does that.
    fn act(&mut self, driver: &mut Driver, _input: &mut Input<'_>) {
        if let Some(device) = driver.transport.unplug() {
            driver.write(0x70, 15);
            driver.plug(device);
        }
    }

    fn works(&mut self, driver: &mut Driver) {
        // Over the ring's end.
        for round in 0..20 {
            let answer = driver.request(0, &[&[round], b"alive"], &[2, 9]);
            assert_eq!(answer.0, 6);
            assert_eq!(answer.1[..6], [round, b'a', b'l', b'i', b'v', b'e']);
        }
    }
}

/// Plays a script.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let habits = input.byte();
    let device = Echo::new(Habits {
        together: usize::from(habits & 7),
        silent: habits & 8 != 0,
        hesitant: habits & 16 != 0,
    });
    script::run(Box::new(device), &mut Returned, &mut input);
}
