//! `logs`: what a container in the background has written.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use sandbox::stdio::parse_record;

use super::select;
use crate::cli::LogsArgs;
use crate::context::Context;

/// How often it is looked whether the container has ended; what it writes is told at once.
const LOOK: Duration = Duration::from_millis(500);

/// Runs the command.
pub fn run(context: &Context, args: &LogsArgs) -> Result<ExitCode> {
    let store = context.store()?;
    let found = select::one(&store, &args.id)?;
    let path = found.run.storage.join("container.log");
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "container {} has no log: it does not run in the background (`run -d`)",
            found.record.id
        ),
        other => other.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let driver = found.record.driver;
    let is_alive = || driver.is_some_and(|driver| driver.is_alive());
    let mut printer = Printer::new(args.timestamps);
    match print(file, &path, args, is_alive, &mut printer) {
        // Whoever reads it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        other => {
            other.with_context(|| format!("cannot print {}", path.display()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn print(
    file: File,
    path: &Path,
    args: &LogsArgs,
    is_alive: impl Fn() -> bool,
    printer: &mut Printer<impl Write, impl Write>,
) -> io::Result<()> {
    let mut lines = Lines {
        reader: BufReader::new(file),
        partial: Vec::new(),
    };
    match args.tail {
        None => {}
        Some(count) => {
            for line in lines.last(count)? {
                printer.line(&line)?;
            }
        }
    }
    if !args.follow {
        while let Some(line) = lines.next()? {
            printer.line(&line)?;
        }
        return printer.flush();
    }
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, path, inotify::WatchFlags::MODIFY)?;
    loop {
        // Asked before reading: what was written before its end is read then.
        let more_may_come = is_alive();
        while let Some(line) = lines.next()? {
            printer.line(&line)?;
        }
        printer.flush()?;
        if !more_may_come {
            return Ok(());
        }
        let limit = Timespec {
            tv_sec: 0,
            tv_nsec: LOOK.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut events = [0; 4096];
        while rustix::io::read(&watch, &mut events).is_ok_and(|count| count > 0) {}
    }
}

/// The whole lines of a file that grows.
struct Lines {
    reader: BufReader<File>,
    partial: Vec<u8>,
}

impl Lines {
    /// Nothing: no whole line is there yet.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.reader.read_until(b'\n', &mut self.partial)?;
        if self.partial.last() != Some(&b'\n') {
            return Ok(None);
        }
        self.partial.pop();
        Ok(Some(std::mem::take(&mut self.partial)))
    }

    /// The records of the last `count` lines of the container.
    fn last(&mut self, count: usize) -> io::Result<VecDeque<Vec<u8>>> {
        let mut kept = VecDeque::new();
        let mut ended = 0;
        while let Some(line) = self.next()? {
            ended += usize::from(is_end(&line));
            kept.push_back(line);
            // An unfinished line at the end counts, too.
            while ended + usize::from(kept.back().is_some_and(|line| !is_end(line))) > count {
                match kept.pop_front() {
                    Some(first) => ended -= usize::from(is_end(&first)),
                    None => break,
                }
            }
        }
        Ok(kept)
    }
}

fn is_end(line: &[u8]) -> bool {
    parse_record(line).is_none_or(|record| record.complete)
}

/// Writes records where the container wrote them.
struct Printer<O, E> {
    out: O,
    err: E,
    timestamps: bool,
    /// Whether stdout and stderr are in the middle of a line.
    within: [bool; 2],
}

impl Printer<io::BufWriter<io::Stdout>, io::Stderr> {
    fn new(timestamps: bool) -> Self {
        Self {
            out: io::BufWriter::new(io::stdout()),
            err: io::stderr(),
            timestamps,
            within: [false; 2],
        }
    }
}

impl<O: Write, E: Write> Printer<O, E> {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let Some(record) = parse_record(line) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a line that is no record of a log",
            ));
        };
        let mut bytes = Vec::new();
        let within = &mut self.within[usize::from(record.stderr)];
        if self.timestamps && !*within {
            bytes.extend_from_slice(record.time.as_bytes());
            bytes.push(b' ');
        }
        bytes.extend_from_slice(record.text);
        if record.complete {
            bytes.push(b'\n');
        }
        *within = !record.complete;
        if record.stderr {
            // In the order in which they were written, where both are one terminal.
            self.out.flush()?;
            self.err.write_all(&bytes)
        } else {
            self.out.write_all(&bytes)
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.err.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:01Z stderr F two\n\
                       2026-01-01T00:00:02Z stdout P thr\n2026-01-01T00:00:03Z stdout F ee\n\
                       2026-01-01T00:00:04Z stdout P end";

    fn printed(tail: Option<usize>, timestamps: bool, log: &str) -> (String, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), log).unwrap();
        let args = LogsArgs {
            follow: false,
            tail,
            timestamps,
            id: String::new(),
        };
        let mut printer = Printer {
            out: Vec::new(),
            err: Vec::new(),
            timestamps,
            within: [false; 2],
        };
        print(
            File::open(file.path()).unwrap(),
            file.path(),
            &args,
            || false,
            &mut printer,
        )
        .unwrap();
        (
            String::from_utf8(printer.out).unwrap(),
            String::from_utf8(printer.err).unwrap(),
        )
    }

    #[test]
    fn streams_and_lines_come_back() {
        let log = format!("{LOG}\n");
        assert_eq!(
            printed(None, false, &log),
            ("one\nthree\nend".into(), "two\n".into())
        );
        assert_eq!(
            printed(None, false, LOG),
            ("one\nthree\n".into(), "two\n".into()),
            "not whole yet"
        );
        assert_eq!(
            printed(Some(2), false, &log),
            ("three\nend".into(), String::new())
        );
        assert_eq!(
            printed(Some(3), false, &log),
            ("three\nend".into(), "two\n".into())
        );
        assert_eq!(
            printed(Some(0), false, &log),
            (String::new(), String::new())
        );
        assert_eq!(printed(Some(9), false, &log), printed(None, false, &log));
        assert_eq!(
            printed(Some(1), true, LOG),
            ("2026-01-01T00:00:02Z three\n".into(), String::new())
        );
    }

    #[test]
    fn following_sees_what_is_written_later_and_ends_with_the_container() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_owned();
        let alive = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let writer = {
            let (path, alive) = (path.clone(), alive.clone());
            std::thread::spawn(move || {
                for part in LOG.split_inclusive('\n').chain(["\n"]) {
                    std::thread::sleep(Duration::from_millis(20));
                    let mut file = File::options().append(true).open(&path).unwrap();
                    file.write_all(part.as_bytes()).unwrap();
                }
                alive.store(false, std::sync::atomic::Ordering::SeqCst);
            })
        };
        let args = LogsArgs {
            follow: true,
            tail: None,
            timestamps: false,
            id: String::new(),
        };
        let mut printer = Printer {
            out: Vec::new(),
            err: Vec::new(),
            timestamps: false,
            within: [false; 2],
        };
        let is_alive = || alive.load(std::sync::atomic::Ordering::SeqCst);
        print(
            File::open(&path).unwrap(),
            &path,
            &args,
            is_alive,
            &mut printer,
        )
        .unwrap();
        writer.join().unwrap();
        assert_eq!(printer.out, b"one\nthree\nend");
        assert_eq!(printer.err, b"two\n");
    }
}
