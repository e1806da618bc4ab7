//! The console, between a driver and whoever reads and types.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use vmm_console::Console;
use vmm_virtio::testing::Driver;

use crate::input::Input;
use crate::script::{self, Subject};

const TRANSMIT: usize = 1;

struct Terminal {
    /// None when nobody is there any more.
    ours: Option<UnixStream>,
}

impl Terminal {
    fn read(&self) -> Vec<u8> {
        let mut seen = Vec::new();
        let mut piece = [0; 8192];
        while let Some(Ok(count @ 1..)) = self.ours.as_ref().map(|mut ours| ours.read(&mut piece)) {
            seen.extend_from_slice(&piece[..count]);
        }
        seen
    }
}

impl Subject for Terminal {
    fn act(&mut self, driver: &mut Driver, input: &mut Input<'_>) {
        match input.byte() & 7 {
            0 => drop(self.read()),
            1 => {
                let length = usize::from(input.short()) % 5000;
                if let Some(mut ours) = self.ours.as_ref() {
                    // It may be full.
                    let _ = ours.write(&vec![7; length]);
                }
            }
            // Much is printed.
            2 | 3 => {
                let length = usize::from(input.short());
                driver.add(TRANSMIT, &[&vec![b'x'; length]], &[]);
            }
            4 if input.byte() == 0 => self.ours = None,
            queue => {
                driver.kick(usize::from(queue & 1));
                script::serve(driver);
            }
        }
    }

    fn works(&mut self, driver: &mut Driver) {
        const MARKER: &[u8] = b"\x01\x02 this is the marker \x03\x04";
        driver.request(TRANSMIT, &[MARKER], &[]);
        if self.ours.is_none() {
            return;
        }
        let mut seen = Vec::new();
        for _ in 0..1000 {
            seen.extend(self.read());
            if seen.ends_with(MARKER) {
                return;
            }
            // What was kept is written when there is room.
            driver.serve(1);
        }
        panic!("the marker did not come");
    }
}

/// Plays a script.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (ours, its) = UnixStream::pair().expect("sockets");
    ours.set_nonblocking(true).expect("a socket");
    let typed = input
        .flag()
        .then(|| its.try_clone().expect("a descriptor").into());
    let device = Console::new(its.into(), typed).expect("a console");
    let mut terminal = Terminal { ours: Some(ours) };
    script::run(Box::new(device), &mut terminal, &mut input);
}
