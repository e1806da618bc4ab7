//! Memory that grows: no block is ever plugged or unplugged twice.

#[path = "../../mem/tests/machine/mod.rs"]
mod machine;

use machine::{BASE, BLOCK, Machine, SETUP, SIZE, UNPLUG_ALL, request};
use vmm_mem::{Handle, Mem};
use vmm_virtio::testing::Driver;

use crate::input::Input;
use crate::script::{self, Subject};

struct Region {
    machine: Machine,
    handle: Handle,
}

impl Subject for Region {
    fn act(&mut self, driver: &mut Driver, input: &mut Input<'_>) {
        match input.byte() & 7 {
            0 => {
                let blocks = u64::from(input.short()) % (SIZE + 2);
                let fits = self.handle.set_requested(blocks * BLOCK).is_ok();
                assert_eq!(fits, blocks <= SIZE);
            }
            // The machine has no memory left, and has again.
            1 => self.machine.be_patient(Some(u32::from(input.byte()))),
            2 => self.machine.be_patient(None),
            3 => {
                let _ = self.handle.set_requested(input.long());
            }
            _ => {
                let (kind, first) = (u16::from(input.byte()), u64::from(input.short()));
                let place = BASE + first % (SIZE + 9) * BLOCK;
                let question = request(kind % 5, place, input.short() % 1024);
                driver.add(0, &[&question], &[10]);
                driver.kick(0);
                script::serve(driver);
            }
        }
        let plugged = self.machine.blocks().len() as u64;
        assert_eq!(self.handle.plugged(), plugged * BLOCK);
    }

    fn works(&mut self, driver: &mut Driver) {
        self.machine.be_patient(None);
        let (length, answer) = driver.request(0, &[&request(UNPLUG_ALL, 0, 0)], &[10]);
        assert_eq!((length, &answer[..2]), (10, &[0, 0][..]));
        assert!(self.machine.blocks().is_empty());
        assert_eq!(self.handle.plugged(), 0);
    }
}

/// Plays a script.
pub fn run(data: &[u8]) {
    let machine = Machine::default();
    let device = Mem::new(SETUP, Box::new(machine.clone())).expect("a region");
    let handle = device.handle();
    let mut region = Region { machine, handle };
    script::run(Box::new(device), &mut region, &mut Input::new(data));
}
