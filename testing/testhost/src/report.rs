//! Warnings of this crate and of the libraries that serve files, on standard error.

use log::{LevelFilter, Log, Metadata, Record};

struct Report;

/// Sends warnings and errors to standard error.
pub fn install() {
    // Fails only when called twice.
    let _ = log::set_logger(&Report);
    log::set_max_level(LevelFilter::Warn);
}

impl Log for Report {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= LevelFilter::Warn
    }

    fn log(&self, record: &Record<'_>) {
        eprintln!(
            "{}: {}",
            record.level().as_str().to_lowercase(),
            record.args()
        );
    }

    fn flush(&self) {}
}
