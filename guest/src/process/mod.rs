//! The processes of containers: their ends and their stdio.

mod named;
mod output;
mod reaper;
mod stdio;
mod streams;
mod terminal;

pub use named::{End, Finished, Process};
pub use reaper::{Exit, Expectation, Reaper};
pub use stdio::{Ends, Pipes};
pub use streams::{StreamError, Streams};
pub use terminal::{ConsoleSocket, Terminal};

/// Bytes moved at once between a pipe and the link.
const BUFFER: usize = 128 * 1024;
