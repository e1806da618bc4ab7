//! The balloon.

#[path = "../../balloon/tests/record/mod.rs"]
mod record;

use std::sync::Arc;

use record::{PAGE, Record, list};
use vmm_balloon::{Balloon, Handle, Setup};
use vmm_virtio::testing::Driver;

use crate::input::Input;
use crate::script::{self, Subject};

const INFLATE: usize = 0;

struct Pages {
    record: Arc<Record>,
    handle: Handle,
}

impl Subject for Pages {
    fn act(&mut self, driver: &mut Driver, input: &mut Input<'_>) {
        match input.byte() & 7 {
            0 => self.handle.ask(),
            1 => {
                let _ = (self.handle.statistics(), self.handle.counts());
            }
            2 => self.handle.set_target(input.long()),
            3 => self.handle.set_target(u64::from(input.short()) * PAGE),
            // A long list of pages, more than one event discards.
            4 => {
                let (first, step, count) = (input.word(), input.word(), input.short());
                let pages = (0..u32::from(count) % 4096)
                    .map(|number| first.wrapping_add(number.wrapping_mul(step)));
                driver.add(input.below(2), &[&list(pages)], &[]);
            }
            queue => {
                let queue = usize::from(queue) % driver.queues();
                driver.kick(queue);
                script::serve(driver);
            }
        }
    }

    fn works(&mut self, driver: &mut Driver) {
        self.record.take();
        driver.request(INFLATE, &[&list([3])], &[]);
        let discarded = self.record.take();
        assert_eq!(discarded.last(), Some(&(3 * PAGE, PAGE)));
    }
}

/// Plays a script.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let setup = Setup {
        deflate_on_oom: choice & 1 == 0,
        reporting: choice & 2 == 0,
        statistics: choice & 4 == 0,
    };
    let record = Arc::new(Record::default());
    let device = Balloon::new(setup, record.clone()).expect("a balloon");
    let handle = device.handle();
    let mut pages = Pages { record, handle };
    script::run(Box::new(device), &mut pages, &mut input);
}
