//! The I/O interrupt controller (Intel 82093AA), as far as a machine of virtio devices needs one: a register for each
//! line that says which vector of which processor it is.
//!
//! No interrupt passes through here. KVM takes a device's interrupt by a descriptor and sends the message that the line's
//! register stands for straight to a local controller; what is written here only changes that message. So KVM's own
//! controllers, of which the kernel would look at 24 lines and a pair of 8259, are not needed: the host's kernel has less
//! to get wrong, and a guest leaves its processor half as often while it boots.
//!
//! All lines are edges: a device's driver reads what has happened, and nothing has to be acknowledged here.

use std::sync::{Mutex, PoisonError};

/// Where the controller is: one page.
pub const SIZE: u64 = 0x1000;

/// The register that says which of the others is meant, and that other.
const SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;

const ID: u8 = 0;
const VERSION: u8 = 1;
const ARBITRATION: u8 = 2;
/// The first of two registers for each line.
const LINES: u8 = 0x10;

/// The version of the 82093AA.
const KIND: u32 = 0x11;

const VECTOR: u64 = 0xff;
const DELIVERY: u64 = 0x700;
const LOGICAL: u64 = 1 << 11;
const MASKED: u64 = 1 << 16;
const DESTINATION: u32 = 56;
/// All of a line's register that can be written: not the two bits of its state, nor those that nothing uses.
const WRITABLE: u64 =
    0xff << DESTINATION | MASKED | 1 << 15 | 1 << 13 | LOGICAL | DELIVERY | VECTOR;

/// A message-signalled interrupt (Intel SDM volume 3, 11.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// The number of the line that it stands for.
    pub line: u32,
    /// Who gets it.
    pub address: u32,
    /// Which vector it is.
    pub data: u32,
}

/// What takes the messages of all lines that are open, whenever one of them has changed.
pub type Route = Box<dyn Fn(&[Message]) -> Result<(), kvm_ioctls::Error> + Send + Sync>;

/// The controller.
pub struct IoApic {
    registers: Mutex<Registers>,
    route: Route,
}

struct Registers {
    select: u8,
    id: u32,
    lines: Vec<u64>,
}

impl IoApic {
    /// One with this many lines, all closed.
    pub fn new(lines: u8, route: Route) -> Self {
        Self {
            registers: Mutex::new(Registers {
                select: 0,
                id: 0,
                lines: vec![MASKED; lines.into()],
            }),
            route,
        }
    }

    /// Reads at this distance from the beginning. Registers are 32 bits wide, and nothing else is there.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let registers = self
            .registers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let value = match offset {
            SELECT => registers.select.into(),
            WINDOW => registers.read(),
            _ => 0,
        };
        data.fill(0);
        for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
    }

    /// Writes there.
    ///
    /// # Errors
    /// When KVM does not take the new message.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<(), kvm_ioctls::Error> {
        let Ok(value) = data.try_into().map(u32::from_le_bytes) else {
            return Ok(());
        };
        let mut registers = self
            .registers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match offset {
            SELECT => registers.select = value as u8,
            WINDOW => {
                let before = registers.selected();
                registers.write(value);
                let after = registers.selected();
                if before != after {
                    // Under the lock: of two virtual CPUs that write, the second one's lines are what is there at last.
                    return (self.route)(&registers.messages());
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Registers {
    /// The line whose register is selected.
    fn line(&self) -> Option<usize> {
        let number = usize::from(self.select.checked_sub(LINES)? / 2);
        (number < self.lines.len()).then_some(number)
    }

    /// The message of that line.
    fn selected(&self) -> Option<Message> {
        let number = self.line()?;
        message(number, self.lines[number])
    }

    fn messages(&self) -> Vec<Message> {
        let lines = self.lines.iter().enumerate();
        lines
            .filter_map(|(number, &line)| message(number, line))
            .collect()
    }

    fn read(&self) -> u32 {
        match (self.select, self.line()) {
            (ID | ARBITRATION, _) => self.id,
            (VERSION, _) => KIND | (self.lines.len() as u32 - 1) << 16,
            (select, Some(number)) => (self.lines[number] >> half(select)) as u32,
            _ => 0,
        }
    }

    fn write(&mut self, value: u32) {
        match (self.select, self.line()) {
            (ID, _) => self.id = value & 0x0f00_0000,
            (select, Some(number)) => {
                let shift = half(select);
                let line = &mut self.lines[number];
                *line = *line & !(0xffff_ffff << shift) | u64::from(value) << shift;
                *line &= WRITABLE;
            }
            _ => {}
        }
    }
}

/// How far up in a line's register the selected half is.
fn half(select: u8) -> u32 {
    u32::from(select & 1) * 32
}

/// What a line that is open sends.
fn message(number: usize, line: u64) -> Option<Message> {
    if line & MASKED != 0 {
        return None;
    }
    let logical = u64::from(line & LOGICAL != 0);
    Some(Message {
        line: number as u32,
        address: 0xfee0_0000 | ((line >> DESTINATION) << 12 | logical << 2) as u32,
        data: (line & (DELIVERY | VECTOR)) as u32,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    type Seen = Arc<Mutex<Vec<Vec<Message>>>>;

    fn controller(lines: u8) -> (IoApic, Seen) {
        let seen = Seen::default();
        let route = {
            let seen = Arc::clone(&seen);
            move |messages: &[Message]| {
                seen.lock().expect("a lock").push(messages.to_vec());
                Ok(())
            }
        };
        (IoApic::new(lines, Box::new(route)), seen)
    }

    fn set(controller: &IoApic, register: u8, value: u32) {
        let select = u32::from(register).to_le_bytes();
        controller.write(SELECT, &select).expect("selects");
        let written = controller.write(WINDOW, &value.to_le_bytes());
        written.expect("writes");
    }

    fn get(controller: &IoApic, register: u8) -> u32 {
        let select = u32::from(register).to_le_bytes();
        controller.write(SELECT, &select).expect("selects");
        let mut value = [0xaa; 4];
        controller.read(WINDOW, &mut value);
        u32::from_le_bytes(value)
    }

    #[test]
    fn an_open_line_is_a_message() {
        let (controller, seen) = controller(8);
        assert_eq!(get(&controller, VERSION), 0x0007_0011);
        assert_eq!(get(&controller, LINES + 6), 1 << 16, "closed at first");
        // As Linux does it: who, then what. Only what opens the line is worth telling.
        set(&controller, LINES + 7, 0x0300_0000);
        assert!(seen.lock().expect("a lock").is_empty());
        set(&controller, LINES + 6, 0x0931);
        let first = Message {
            line: 3,
            address: 0xfee0_3004,
            data: 0x131,
        };
        assert_eq!(*seen.lock().expect("a lock"), [[first]]);
        assert_eq!(get(&controller, LINES + 6), 0x0931);
        assert_eq!(get(&controller, LINES + 7), 0x0300_0000);
        // The same again changes nothing; a second line is told with the first.
        set(&controller, LINES + 6, 0x0931);
        set(&controller, LINES + 14, 0x40);
        let second = Message {
            line: 7,
            address: 0xfee0_0000,
            data: 0x40,
        };
        assert_eq!(
            seen.lock().expect("a lock").last(),
            Some(&vec![first, second])
        );
        set(&controller, LINES + 6, 0x0931 | 1 << 16);
        assert_eq!(seen.lock().expect("a lock").last(), Some(&vec![second]));
        assert_eq!(seen.lock().expect("a lock").len(), 3);
    }

    #[test]
    fn nothing_is_behind_the_last_line() {
        let (controller, seen) = controller(2);
        set(&controller, LINES + 4, 0x31);
        set(&controller, 0xff, 0x31);
        assert_eq!(get(&controller, LINES + 4), 0);
        assert_eq!(get(&controller, 0xff), 0);
        assert!(seen.lock().expect("a lock").is_empty());
    }

    proptest! {
        #[test]
        fn no_access_does_harm(
            accesses in prop::collection::vec((any::<bool>(), 0..SIZE, prop::collection::vec(any::<u8>(), 1..8)), 1..200),
        ) {
            let (controller, seen) = controller(24);
            for (write, offset, mut data) in accesses {
                // Half of them where something is.
                let offset = if offset % 2 == 0 { (offset % 0x20) & 0x10 } else { offset };
                if write {
                    prop_assert!(controller.write(offset, &data).is_ok());
                } else {
                    controller.read(offset, &mut data);
                }
            }
            for messages in &*seen.lock().expect("a lock") {
                prop_assert!(messages.len() <= 24);
                for message in messages {
                    prop_assert!(message.address >> 20 == 0xfee && message.data >> 11 == 0);
                }
            }
        }
    }
}
