//! Log lines on standard error, whose end the driver keeps for its error messages.

use std::sync::atomic::{AtomicU32, Ordering};

use log::{LevelFilter, Log, Metadata, Record};

/// The guest can cause log lines; this many are enough to understand what happened.
const MOST_LINES: u32 = 100;

struct Report {
    lines: AtomicU32,
}

static REPORT: Report = Report {
    lines: AtomicU32::new(0),
};

/// Sends warnings and errors of the program and of its libraries to standard error.
pub fn install() {
    // Fails only when called twice.
    let _ = log::set_logger(&REPORT);
    log::set_max_level(LevelFilter::Warn);
}

impl Log for Report {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= LevelFilter::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if self.lines.fetch_add(1, Ordering::Relaxed) < MOST_LINES {
            eprintln!(
                "{}: {}",
                record.level().as_str().to_lowercase(),
                record.args()
            );
        }
    }

    fn flush(&self) {}
}
