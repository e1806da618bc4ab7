//! Showing how an import goes: one line for each layer, redrawn in place at a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sandbox_image::{Digest, Event, Progress};

use super::images::size;

/// Between two drawings, at least.
const PERIOD: Duration = Duration::from_millis(100);
/// Lines that are redrawn, at most: what has scrolled away cannot be.
const LINES: usize = 16;
/// Characters of a bar.
const WIDTH: u64 = 24;

/// Progress on stderr.
#[derive(Debug)]
pub struct Bars {
    is_terminal: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    layers: BTreeMap<String, String>,
    order: Vec<String>,
    drawn: usize,
    last: Option<Instant>,
}

impl Bars {
    /// Shows nothing until something happens.
    pub fn new() -> Self {
        Self {
            is_terminal: io::stderr().is_terminal(),
            state: Mutex::new(State::default()),
        }
    }

    /// Draws the end.
    pub fn finish(&self) {
        if self.is_terminal {
            let mut state = self.state();
            if !state.order.is_empty() {
                state.draw();
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layer(&self, layer: &Digest, text: String, is_last: bool) {
        if !self.is_terminal {
            if is_last {
                say(&format!("{}: {text}", short(layer)));
            }
            return;
        }
        let mut state = self.state();
        let name = short(layer);
        if state.layers.insert(name.clone(), text).is_none() {
            state.order.push(name);
        }
        let is_due = state.last.is_none_or(|last| last.elapsed() >= PERIOD);
        if is_due || is_last {
            state.draw();
        }
    }

    fn line(&self, text: &str) {
        let mut state = self.state();
        say(text);
        // What was drawn stays above it.
        state.drawn = 0;
    }
}

impl Progress for Bars {
    fn event(&self, event: Event<'_>) {
        match event {
            Event::Resolving { reference } => self.line(&format!("Pulling {reference}")),
            Event::Downloading { layer, done, total } => {
                self.layer(layer, bar("Downloading", done, Some(total)), false);
            }
            Event::Unpacking {
                layer, done, total, ..
            } => self.layer(layer, bar("Unpacking", done, total), false),
            Event::LayerReady { layer, reused } => {
                let text = if reused { "Already here" } else { "Ready" };
                // An image that is all here needs no words.
                if !reused || !self.state().order.is_empty() {
                    self.layer(layer, text.to_owned(), true);
                }
            }
            Event::Retrying {
                what,
                attempt,
                reason,
            } => self.line(&format!("{what}: {reason}; attempt {attempt}")),
            Event::Waiting { what } => {
                self.line(&format!("waiting for another process that is {what}"));
            }
            Event::Note { text } => self.line(text),
            _ => {}
        }
    }
}

impl State {
    fn draw(&mut self) {
        let shown = &self.order[self.order.len().saturating_sub(LINES)..];
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for name in shown {
            let layer = self.layers.get(name).map_or("", String::as_str);
            text.push_str(&format!("\r\x1b[K{name}: {layer}\n"));
        }
        self.drawn = shown.len();
        self.last = Some(Instant::now());
        let _nobody_looks = io::stderr().write_all(text.as_bytes());
    }
}

fn say(text: &str) {
    let _nobody_looks = writeln!(io::stderr(), "{text}");
}

fn short(layer: &Digest) -> String {
    layer.hex().chars().take(12).collect()
}

fn bar(what: &str, done: u64, total: Option<u64>) -> String {
    let Some(total) = total.filter(|&total| total > 0) else {
        return format!("{what:<12} {}", size(done));
    };
    let done = done.min(total);
    let filled = u128::from(done) * u128::from(WIDTH) / u128::from(total);
    let filled = usize::try_from(filled).unwrap_or_default();
    let width = usize::try_from(WIDTH).unwrap_or_default();
    format!(
        "{what:<12} [{:<width$}] {}/{}",
        "=".repeat(filled),
        size(done),
        size(total)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fill() {
        assert_eq!(bar("x", 0, Some(0)), "x            0B");
        assert!(bar("x", 50, Some(100)).contains(&format!(
            "[{}{}]",
            "=".repeat(12),
            " ".repeat(12)
        )));
        assert!(bar("x", u64::MAX, Some(10)).contains(&"=".repeat(24)));
    }
}
