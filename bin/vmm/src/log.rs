//! What the VMM has to say goes to standard error, a line each.

use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// How many lines a VMM writes in its life but errors, which tell its end: a guest can provoke some, and nobody reads on for
/// ever.
const LINES: usize = 1000;

/// Writes lines from now on.
pub fn install() {
    // It fails when there is one, which would do as well.
    let _ = tracing::subscriber::set_global_default(Lines::default());
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
}

/// Lines without levels of detail, filters and spans: a VMM says only what matters.
#[derive(Default)]
struct Lines {
    written: AtomicUsize,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO && metadata.is_event()
    }

    fn event(&self, event: &Event<'_>) {
        let is_last_word = *event.metadata().level() == Level::ERROR;
        if !is_last_word && self.written.fetch_add(1, Ordering::Relaxed) >= LINES {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        eprintln!("{}{}", line.message, line.fields);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
