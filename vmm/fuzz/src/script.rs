//! What a driver does, good and bad, as bytes say it.

use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};
use vmm_virtio::testing::{Descriptor, Driver, MEMORY};
use vmm_virtio::{Device, Memory};

use crate::input::Input;

/// The features of the rings: tables in tables, and wishes for events.
const RINGS: u64 = 1 << 28 | 1 << 29;

/// Everything that is offered.
const ALL: u64 = u64::MAX;

/// Where the driver puts its buffers, and the first of its rings.
const BUFFERS: u64 = 16 << 20;
const QUEUES: u64 = 1 << 20;
const QUEUE_SPACE: u64 = 1 << 17;

/// How many turns of the loop a device gets at once: one that always has more to do is not waited for.
const TURNS: usize = 8;

/// What is special to a device.
pub trait Subject {
    /// Something happens behind the device, or the driver does what only this device understands.
    fn act(&mut self, _driver: &mut Driver, _input: &mut Input<'_>) {}

    /// The device was just started with all its features and queues: panics if it does not work.
    fn works(&mut self, driver: &mut Driver);
}

/// Plugs the device in and plays the script.
pub fn run(device: Box<dyn Device>, subject: &mut impl Subject, input: &mut Input<'_>) {
    run_in(device, Driver::memory(), subject, input);
}

/// As [`run`], in this memory.
pub fn run_in(
    device: Box<dyn Device>,
    memory: Arc<Memory>,
    subject: &mut impl Subject,
    input: &mut Input<'_>,
) {
    play(&mut Driver::find_unserved(device, memory), subject, input);
}

/// Plays the script, then resets the device and has it work.
pub fn play(driver: &mut Driver, subject: &mut impl Subject, input: &mut Input<'_>) {
    restart(driver, input);
    while !input.is_empty() {
        step(driver, subject, input);
    }
    start(driver, ALL, 256);
    subject.works(driver);
}

fn start(driver: &mut Driver, features: u64, size: u16) {
    driver.negotiate(features);
    driver.set_up(size);
    driver.write(0x70, 15);
}

/// A reset and a start with what the script wants.
fn restart(driver: &mut Driver, input: &mut Input<'_>) {
    let choice = input.byte();
    let features = match choice & 7 {
        0..=3 => ALL,
        4 => ALL & !RINGS,
        5 => RINGS,
        6 => 0,
        _ => input.long(),
    };
    start(driver, features, 1 << (choice >> 4));
}

/// Serves the device until it has nothing to do, or has had its turns.
pub fn serve(driver: &Driver) {
    for _ in 0..TURNS {
        if driver.serve(0) == 0 {
            break;
        }
    }
}

fn step(driver: &mut Driver, subject: &mut impl Subject, input: &mut Input<'_>) {
    let queue = |input: &mut Input<'_>| input.below(driver.queues());
    match input.byte() % 18 {
        // What belongs to this device comes more often.
        0..=2 => subject.act(driver, input),
        3 | 4 => {
            let queue = queue(input);
            request(driver, queue, input);
        }
        5 => {
            let (queue, number) = (queue(input), input.short());
            let descriptor = descriptor(input);
            driver.describe(queue, number % 1024, descriptor);
        }
        6 => {
            let descriptor = descriptor(input);
            let number = u64::from(input.byte());
            driver.describe_at(BUFFERS + number * 16, descriptor);
        }
        7 => {
            let (queue, head) = (queue(input), input.short());
            driver.offer(queue, head);
        }
        8 => {
            let (queue, index) = (queue(input), input.short());
            driver.claim(queue, index);
        }
        9 => driver.kick(queue(input)),
        10 => {
            let queue = queue(input);
            driver.kick(queue);
            serve(driver);
        }
        11 => serve(driver),
        12 => {
            let (register, value) = (u64::from(input.byte()) * 4, input.word());
            driver.write(register, value);
        }
        13 => {
            let (register, width) = (u64::from(input.short()), input.below(9));
            driver.transport.read(register, &mut vec![0; width]);
        }
        14 => {
            let (offset, length) = (u64::from(input.byte()), input.below(9));
            driver.transport.write(0x100 + offset, input.bytes(length));
        }
        15 => {
            let (address, length) = (address(input), input.below(64));
            // What is not in memory, a driver can't write either.
            let _ = driver
                .memory
                .write_slice(input.bytes(length), GuestAddress(address));
        }
        16 => {
            let (queue, wanted) = (queue(input), input.flag());
            driver.set_interrupts(queue, wanted);
        }
        _ => restart(driver, input),
    }
}

/// A request as drivers make them, with any contents.
fn request(driver: &mut Driver, queue: usize, input: &mut Input<'_>) {
    let pieces = input.byte();
    let readable: Vec<&[u8]> = (0..pieces & 7)
        .map(|_| {
            let length = input.byte();
            input.bytes(usize::from(length))
        })
        .collect();
    let writable: Vec<u32> = (0..pieces >> 3 & 7)
        // A driver's own room is bounded.
        .map(|_| input.length() % (1 << 20))
        .collect();
    if !readable.is_empty() || !writable.is_empty() {
        driver.add(queue, &readable, &writable);
    }
    if pieces & 0x40 != 0 {
        driver.kick(queue);
    }
    if pieces & 0x80 != 0 {
        serve(driver);
    }
}

fn descriptor(input: &mut Input<'_>) -> Descriptor {
    Descriptor {
        address: address(input),
        length: input.length(),
        flags: u16::from(input.byte()),
        next: input.short(),
    }
}

/// An address where something is, mostly.
fn address(input: &mut Input<'_>) -> u64 {
    match input.byte() & 7 {
        0..=2 => BUFFERS + u64::from(input.byte()) * 16,
        3 => BUFFERS + u64::from(input.short()),
        // Within a queue's table, driver's ring or device's ring.
        4 => QUEUES + u64::from(input.byte() & 7) * QUEUE_SPACE + u64::from(input.short()),
        5 => (MEMORY - 64).wrapping_add(u64::from(input.byte())),
        6 => u64::from(input.word()),
        _ => input.long(),
    }
}
