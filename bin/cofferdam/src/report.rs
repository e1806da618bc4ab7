//! Where errors go: stderr, and the log that engines read runc's errors from
//! (a JSON object per line with `level`, `msg` and `time`).

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::SystemTime;

use anyhow::Error;
use sandbox::SandboxError;
use sandbox::control::FailureKind;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::cli::{Global, LogFormat};

/// An error with the exit code that a shell would give.
#[derive(Debug)]
pub struct WithCode {
    /// The exit code.
    pub code: u8,
    /// What happened.
    pub error: Error,
}

impl fmt::Display for WithCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl std::error::Error for WithCode {}

/// How one run of the command reports.
#[derive(Debug)]
pub struct Report {
    logged: bool,
}

impl Report {
    /// Begins to log. Nothing is done without the log that an engine reads errors from: the exit code then.
    pub fn open(global: &Global) -> Result<Self, ExitCode> {
        match open_log(global.log.as_deref(), global.log_format, global.debug) {
            Ok(logged) => Ok(Self { logged }),
            Err(error) => {
                let path = global.log.as_deref().unwrap_or(Path::new(""));
                say(&format!("cannot open log {}: {error}", path.display()));
                Err(ExitCode::FAILURE)
            }
        }
    }

    /// Reports an error and gives the exit code: 127 and 126 as shells do, else 1.
    pub fn failure(&self, error: &Error) -> ExitCode {
        let text = format!("{error:#}");
        if self.logged {
            tracing::error!("{text}");
        }
        say(&text);
        ExitCode::from(exit_code(error))
    }
}

fn exit_code(error: &Error) -> u8 {
    if let Some(WithCode { code, .. }) = error.downcast_ref() {
        return *code;
    }
    match error.downcast_ref::<SandboxError>() {
        Some(SandboxError::Process(failure)) => match failure.kind {
            FailureKind::CommandNotFound => 127,
            FailureKind::CommandNotExecutable => 126,
            FailureKind::State | FailureKind::Other => 1,
        },
        _ => 1,
    }
}

/// stderr may be closed, and then nobody wants to read it.
fn say(text: &str) {
    let _closed = writeln!(io::stderr(), "cofferdam: {text}");
}

/// Logs to a file, for this command or for a driver; answers whether it does.
pub fn open_log(path: Option<&Path>, format: LogFormat, debug: bool) -> io::Result<bool> {
    let Some(path) = path.filter(|path| *path != Path::new("/dev/stderr")) else {
        return Ok(false);
    };
    let file = File::options().append(true).create(true).open(path)?;
    let level = if debug { Level::DEBUG } else { Level::WARN };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .event_format(Runc(format))
        .with_writer(Mutex::new(file))
        .try_init()
        .map_err(io::Error::other)?;
    Ok(true)
}

/// Events in the form that runc logs them.
struct Runc(LogFormat);

impl<S, N> FormatEvent<S, N> for Runc
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
        let time = humantime::format_rfc3339_seconds(SystemTime::now());
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        let message = format!("{}{}", text.message, text.fields);
        match self.0 {
            LogFormat::Json => {
                let record =
                    serde_json::json!({ "level": level, "msg": message, "time": time.to_string() });
                writeln!(writer, "{record}")
            }
            LogFormat::Text => writeln!(writer, "time=\"{time}\" level={level} msg={message:?}"),
        }
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
            self.fields
                .push_str(&format!(" {}={value:?}", field.name()));
        }
    }
}
