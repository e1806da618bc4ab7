//! The loader by itself, for tests that have no KVM.

use crate::boot::{self, Guest};
use crate::x86_64::mptable::Shape;
use crate::{Error, GuestRam};

/// Loads what is to be booted as a machine does, and tells it of that machine, which has a line for each device. The
/// address where its first virtual CPU would begin.
///
/// # Errors
/// What cannot be booted, or does not fit.
pub fn load(
    ram: &GuestRam,
    guest: &mut Guest,
    command_line: String,
    processors: u8,
    devices: &[String],
) -> Result<u64, Error> {
    let loaded = boot::load(ram, guest)?;
    let shape = Shape {
        processors,
        lines: u8::try_from(devices.len() + 1).unwrap_or(u8::MAX),
    };
    boot::describe(ram, &loaded, command_line, shape, devices)?;
    Ok(loaded.entry)
}
