//! The shim's log: the FIFO `log` of the bundle, which containerd copies to its own, in the form of its lines.
//!
//! Never waited for: while containerd does not read, what the FIFO cannot hold is lost.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::Mutex;
use std::time::SystemTime;

use rustix::fs::{Mode, OFlags, open};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Begins to log; without the FIFO nothing is logged.
pub fn begin(bundle: &Path, id: &str, debug: bool) {
    // For both directions: such an open neither waits nor fails without a reader.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(fifo) = open(bundle.join("log"), flags, Mode::empty()) else {
        return;
    };
    let level = if debug { Level::DEBUG } else { Level::INFO };
    // Fails only when there is a log already.
    let _first = tracing_subscriber::fmt()
        .with_max_level(level)
        .event_format(Line { id: id.to_owned() })
        .with_writer(Mutex::new(File::from(fifo)))
        .try_init();
}

struct Line {
    id: String,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = Text::default();
        event.record(&mut text);
        let time = humantime::format_rfc3339_nanos(SystemTime::now());
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        writeln!(
            writer,
            "time=\"{time}\" level={level} msg={:?} runtime={} id={}{}",
            text.message,
            crate::info::RUNTIME,
            self.id,
            text.fields
        )
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            let value = format!("{value:?}");
            self.fields
                .push_str(&format!(" {}={value:?}", field.name()));
        }
    }
}
