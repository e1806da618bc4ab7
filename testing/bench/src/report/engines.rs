//! The tables of what engines and networks were measured with.

use std::fmt::Write as _;

use super::{milliseconds, ratio};
use crate::engines::Times;
use crate::network::Throughput;
use crate::stats::{median, median_ratio, middle};

/// Whole operations through engines.
pub fn operations(page: &mut String, times: &Times) -> std::fmt::Result {
    writeln!(page, "\n## Engines\n\nMedians in milliseconds.\n")?;
    for reason in &times.missing {
        writeln!(page, "Not measured: {reason}.\n")?;
    }
    writeln!(
        page,
        "| | runc | cofferdam | cofferdam / runc |\n|---|---|---|---|"
    )?;
    for operation in &times.operations {
        writeln!(
            page,
            "| {} | {} | {} | {} |",
            operation.name,
            milliseconds(median(&operation.runc)),
            milliseconds(median(&operation.ours)),
            ratio(median_ratio(&operation.ours, &operation.runc))
        )?;
    }
    Ok(())
}

/// Bytes and round trips; or why there are none.
pub fn network(page: &mut String, measured: &Result<Vec<Throughput>, String>) -> std::fmt::Result {
    writeln!(page, "\n## Network\n")?;
    let all = match measured {
        Ok(all) => all,
        Err(reason) => return writeln!(page, "Not measured: {reason}."),
    };
    writeln!(page, "Medians; in brackets, as a ratio to QEMU on a tap.\n")?;
    writeln!(
        page,
        "| | towards it, Gbit/s | from it, Gbit/s | ping, ms |\n|---|---|---|---|"
    )?;
    let Some(bare) = all.first() else {
        return Ok(());
    };
    for subject in all {
        let cell = |values: fn(&Throughput) -> &[f64]| {
            let (own, reference) = (middle(values(subject)), middle(values(bare)));
            match own.zip(reference) {
                Some((own, reference)) => format!("{own:.2} ({:.2})", own / reference),
                None => "–".to_owned(),
            }
        };
        writeln!(
            page,
            "| {} | {} | {} | {} |",
            subject.name,
            cell(|subject| &subject.towards),
            cell(|subject| &subject.from),
            cell(|subject| &subject.ping)
        )?;
    }
    Ok(())
}
