//! Random numbers.

use vmm_rng::Rng;
use vmm_virtio::testing::Driver;

use crate::input::Input;
use crate::script::{self, Subject};

struct Filled;

impl Subject for Filled {
    fn works(&mut self, driver: &mut Driver) {
        assert_eq!(driver.request(0, &[], &[77]).0, 77);
    }
}

/// Plays a script.
pub fn run(data: &[u8]) {
    script::run(Box::new(Rng::new()), &mut Filled, &mut Input::new(data));
}
