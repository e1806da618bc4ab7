//! From the descriptor to the guest.

use std::fs::File;
use std::io;

use vmm_virtio::{Broken, Flags, Memory, Queue, Registrar, Watch, read_vectored, total};

use crate::statistics::Statistics;

/// The watch stands before what it watches. There is one only while the driver has room: else the loop would be told of
/// the same bytes again and again.
pub(crate) struct Input {
    watch: Option<Watch>,
    file: File,
    ended: bool,
    statistics: Statistics,
}

impl Input {
    pub(crate) fn new(file: File, statistics: Statistics) -> Self {
        Self {
            watch: None,
            file,
            ended: false,
            statistics,
        }
    }

    /// Reads until there is nothing more, or no room.
    pub(crate) fn read(
        &mut self,
        queue: &mut Queue,
        memory: &Memory,
        events: &Registrar,
    ) -> Result<(), Broken> {
        if self.ended {
            return Ok(());
        }
        for _ in 0..queue.size() {
            let Some(chain) = queue.pop(memory)? else {
                self.watch = None;
                queue.notify()?;
                if queue.listen()? {
                    queue.again();
                }
                return Ok(());
            };
            if total(&chain.writable) == 0 {
                queue.complete(chain.head(), 0)?;
                continue;
            }
            match read_vectored(&self.file, &chain.writable) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    self.statistics.typed(count);
                    let written = u32::try_from(count).unwrap_or(u32::MAX);
                    queue.complete(chain.head(), written)?;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => queue.again(),
                Err(_) => self.ended = true,
            }
            queue.undo_pop();
            queue.notify()?;
            return self.wait(events);
        }
        queue.notify()?;
        queue.again();
        Ok(())
    }

    fn wait(&mut self, events: &Registrar) -> Result<(), Broken> {
        if self.ended {
            self.watch = None;
        } else if self.watch.is_none() {
            let watch = events.watch(&self.file, Flags::READ, crate::INPUT);
            self.watch = Some(watch.map_err(|_| Broken("a console's input can't be waited for"))?);
        }
        Ok(())
    }

    /// Waits for nothing any more.
    pub(crate) fn pause(&mut self) {
        self.watch = None;
    }
}
