//! The end of what a guest has printed, when the process ends with it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::lock;
use crate::output::Output;

/// Writes what a console keeps. Clones are of the same console.
#[derive(Clone)]
pub struct LastWords(pub(crate) Arc<Mutex<Output>>);

impl LastWords {
    /// Waits until the descriptor has taken all of it, but no longer than this: nobody may be there who reads.
    pub fn write(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut output = lock(&self.0);
        while output.finish(deadline.saturating_duration_since(Instant::now())) {}
    }
}
