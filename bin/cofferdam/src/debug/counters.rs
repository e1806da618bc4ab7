//! `debug counters`: what a container's machine has counted.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Result, bail};
use sandbox::control::{MachineCounters, Reply, Request};

use crate::cli::CountersArgs;
use crate::context::Context;

/// Runs the command.
pub fn run(context: &Context, args: &CountersArgs) -> Result<ExitCode> {
    let mut client = context.find(&args.id)?;
    let counters = match client.request("reading the machine's counters", &Request::Counters)? {
        Reply::Counters(counters) => counters,
        other => bail!("unexpected answer of the driver: {other:?}"),
    };
    if args.json {
        println!("{}", serde_json::to_string(&counters)?);
    } else {
        print!("{}", table(&counters));
    }
    Ok(ExitCode::SUCCESS)
}

/// A line for each number that is not 0.
fn table(counters: &MachineCounters) -> String {
    let mut text = String::new();
    let exits = ("exits".to_owned(), &counters.exits);
    let devices = counters.devices.iter();
    let devices =
        devices.map(|device| (format!("{}.{}", device.kind, device.place), &device.numbers));
    for (part, numbers) in [exits].into_iter().chain(devices) {
        for (name, number) in numbers.iter().filter(|&(_, &number)| number != 0) {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{:<32} {number}", format!("{part}.{name}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox::control::DeviceCounters;

    #[test]
    fn zeros_are_left_out_and_devices_told_apart() {
        let numbers = |count| [("kicks".to_owned(), count), ("breaks".to_owned(), 0)].into();
        let device = |place| DeviceCounters {
            kind: "network".to_owned(),
            place,
            numbers: numbers(u64::from(place)),
        };
        let counters = MachineCounters {
            exits: [("mmio_reads".to_owned(), 7)].into(),
            devices: vec![device(4), device(5)],
        };
        let lines: Vec<String> = table(&counters)
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join("="))
            .collect();
        let expected = [
            "exits.mmio_reads=7",
            "network.4.kicks=4",
            "network.5.kicks=5",
        ];
        assert_eq!(lines, expected);
    }
}
