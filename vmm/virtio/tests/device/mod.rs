//! A device that gives back what it is sent. The fuzz targets have it, too.

use vmm_virtio::{
    Activation, Broken, ConfigSpace, Device, Flags, Offer, Queue, Watch, copy_from, copy_to,
};

pub const EVENT_IDX: u64 = 1 << 29;
pub const INDIRECT: u64 = 1 << 28;

#[derive(Default)]
pub struct Echo {
    active: Option<(Activation, Queue, Watch)>,
    habits: Habits,
}

/// How it goes about its queue.
#[derive(Default)]
pub struct Habits {
    /// So many requests are given back together.
    pub together: usize,
    /// It asks for no kicks while it looks anyway.
    pub silent: bool,
    /// It puts each request back once, and takes it again.
    pub hesitant: bool,
}

impl Echo {
    pub fn new(habits: Habits) -> Self {
        Self {
            active: None,
            habits,
        }
    }
}

impl Device for Echo {
    fn offer(&self) -> Offer {
        Offer {
            kind: 4,
            features: EVENT_IDX | INDIRECT,
            queues: vec![16],
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        ConfigSpace(b"config").read(offset, data);
    }

    fn activate(&mut self, mut activation: Activation) -> Result<(), Broken> {
        let queue = activation.queues[0].take().ok_or(Broken("no queue"))?;
        let watch = queue.watch(&activation.events).expect("watches");
        self.active = Some((activation, queue, watch));
        Ok(())
    }

    fn event(&mut self, token: u32, _flags: Flags) -> Result<(), Broken> {
        assert_eq!(token, 0);
        let (activation, queue, _) = self.active.as_mut().expect("active");
        queue.kicked();
        if self.habits.silent {
            queue.silence()?;
        }
        let mut done = Vec::new();
        for _ in 0..queue.size() {
            let Some(mut chain) = queue.pop(&activation.memory)? else {
                if self.habits.silent && queue.listen()? {
                    queue.silence()?;
                    continue;
                }
                queue.complete_all(&done)?;
                return queue.notify();
            };
            if self.habits.hesitant {
                queue.undo_pop();
                let again = queue.pop(&activation.memory)?;
                chain = again.expect("it is still there");
            }
            let mut bytes = vec![0; 4096];
            let read = copy_from(&chain.readable, &mut bytes);
            let written = copy_to(&chain.writable, &bytes[..read]);
            done.push((chain.head(), written as u32));
            if done.len() >= self.habits.together {
                queue.complete_all(&std::mem::take(&mut done))?;
            }
        }
        queue.complete_all(&done)?;
        queue.again();
        queue.notify()
    }

    fn reset(&mut self) {
        self.active = None;
    }
}
