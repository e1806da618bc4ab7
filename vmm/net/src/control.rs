//! The control queue (virtio 1.3, 5.1.6.5): the driver says how many pairs of queues it uses.

use std::sync::Arc;

use vmm_virtio::{Broken, Chain, Memory, Queue, Registrar, Watch, copy_from, copy_to, total};

/// `VIRTIO_NET_CTRL_MQ` and `VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET`.
const SET_PAIRS: [u8; 2] = [4, 0];

/// Class, command, and the number of pairs.
const COMMAND: usize = 4;

const OK: u8 = 0;
const ERROR: u8 = 1;

/// The watch stands before what it watches.
pub(crate) struct Control {
    _kick: Watch,
    queue: Queue,
    memory: Arc<Memory>,
}

impl Control {
    pub(crate) fn new(
        queue: Queue,
        memory: Arc<Memory>,
        events: &Registrar,
    ) -> Result<Self, Broken> {
        let kick = queue
            .watch(events)
            .map_err(|_| Broken("a control queue can't be watched"))?;
        Ok(Self {
            _kick: kick,
            queue,
            memory,
        })
    }

    /// Takes what the driver asks for. `set_pairs` answers whether so many are used from now on.
    pub(crate) fn serve(
        &mut self,
        mut set_pairs: impl FnMut(u16) -> Result<bool, Broken>,
    ) -> Result<(), Broken> {
        self.queue.kicked();
        for _ in 0..self.queue.size() {
            let Some(chain) = self.queue.pop(&self.memory)? else {
                self.queue.notify()?;
                if self.queue.listen()? {
                    self.queue.again();
                }
                return Ok(());
            };
            let done = match pairs(&chain) {
                Some(count) => set_pairs(count)?,
                None => false,
            };
            let written = copy_to(&chain.writable, &[if done { OK } else { ERROR }]);
            // One byte, or none when there is no room.
            let head = chain.head();
            self.queue.complete(head, written.min(1) as u32)?;
        }
        self.queue.notify()?;
        self.queue.again();
        Ok(())
    }
}

/// How many pairs the driver asks for; none when it asks for something else.
fn pairs(chain: &Chain<'_>) -> Option<u16> {
    let mut command = [0; COMMAND];
    if total(&chain.readable) != COMMAND || copy_from(&chain.readable, &mut command) != COMMAND {
        return None;
    }
    let [class, number, low, high] = command;
    ([class, number] == SET_PAIRS).then_some(u16::from_le_bytes([low, high]))
}
