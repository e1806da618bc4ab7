//! An image in memory.

use vmm_pmem::Pmem;
use vmm_virtio::testing::Driver;

use crate::input::Input;
use crate::script::{self, Subject};

struct Flushed;

impl Subject for Flushed {
    fn works(&mut self, driver: &mut Driver) {
        assert_eq!(driver.request(0, &[&[0; 4]], &[4]), (4, vec![0; 4]));
        assert_eq!(driver.request(0, &[&[1; 4]], &[4]).1, [1, 0, 0, 0]);
    }
}

/// Plays a script.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let device = Pmem::new(input.long(), input.long());
    script::run(Box::new(device), &mut Flushed, &mut input);
}
