//! Progress of a long step: in place on a terminal, one line every ten seconds elsewhere.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

const ON_TERMINAL: Duration = Duration::from_millis(200);
const ELSEWHERE: Duration = Duration::from_secs(10);

/// Counts the pieces of a step whose number is known roughly.
pub struct Progress {
    step: String,
    expected: usize,
    done: usize,
    started: Instant,
    shown: Instant,
    terminal: bool,
}

impl Progress {
    /// Starts a step of about `expected` pieces.
    pub fn start(step: &str, expected: usize) -> Self {
        let now = Instant::now();
        let progress = Self {
            step: step.to_owned(),
            expected,
            done: 0,
            started: now,
            shown: now,
            terminal: stderr().is_terminal(),
        };
        progress.show();
        progress
    }

    /// One more piece is done.
    pub fn advance(&mut self) {
        self.done += 1;
        let pause = if self.terminal {
            ON_TERMINAL
        } else {
            ELSEWHERE
        };
        if self.shown.elapsed() >= pause {
            self.shown = Instant::now();
            self.show();
        }
    }

    /// Ends the line and tells how long the step took; gives back the number of pieces.
    pub fn finish(self) -> usize {
        self.write(&format!(
            "{}: done in {} s",
            self.step,
            self.started.elapsed().as_secs()
        ));
        if self.terminal {
            eprintln!();
        }
        self.done
    }

    fn show(&self) {
        let percent = (self.done * 100)
            .checked_div(self.expected)
            .map_or(0, |percent| percent.min(99));
        self.write(&format!(
            "{}: {percent} % ({} of about {}), {} s",
            self.step,
            self.done,
            self.expected.max(self.done),
            self.started.elapsed().as_secs()
        ));
    }

    fn write(&self, text: &str) {
        let mut stderr = stderr().lock();
        // Progress is a courtesy: a closed standard error must not stop the build.
        let _ = if self.terminal {
            write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{text}")
        };
    }
}
