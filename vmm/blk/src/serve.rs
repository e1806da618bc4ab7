//! A disk with a driver: queues on one side, storage on the other.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vmm_virtio::{
    Activation, Broken, Flags, Memory, Patience, Queue, RateLimiter, Registrar, Watch,
};

use crate::buffers::Buffers;
use crate::configuration::{SECTOR, feature};
use crate::engine::{Action, Done, Job, Work};
use crate::options::Options;
use crate::request::{self, Code, Kind, Parsed, Request, Terms};
use crate::statistics::Statistics;

/// Tokens behind all numbers of queues.
const COMPLETIONS: u32 = 1 << 16;
const LIMITER: u32 = COMPLETIONS + 1;

/// How much of one queue is begun in one turn of the loop: what is in the host's cache is copied at once.
const TURN: u64 = 8 << 20;

/// How often a request is tried again that the host was interrupted in.
const ATTEMPTS: u8 = 8;

/// How many failures of the storage are logged.
const LOGGED_FAILURES: u32 = 8;

/// What a disk keeps from one driver to the next.
pub(crate) struct Storage {
    pub(crate) work: Box<dyn Work>,
    pub(crate) limiter: Option<RateLimiter>,
    pub(crate) statistics: Statistics,
    pub(crate) file: Arc<OwnedFd>,
    pub(crate) regular: bool,
    pub(crate) direct: bool,
    pub(crate) failures: u32,
}

impl Storage {
    pub(crate) fn stop(&mut self) {
        self.work.stop();
        if let Some(limiter) = &mut self.limiter {
            limiter.expired();
        }
    }

    fn throttled(&self) -> bool {
        self.limiter.as_ref().is_some_and(RateLimiter::waiting)
    }

    /// What requests are checked against now.
    pub(crate) fn terms(
        &self,
        options: &Options,
        sectors: u64,
        features: u64,
        writeback: bool,
    ) -> Terms {
        let told = sectors * SECTOR;
        // A file that was cut off must not grow again by what the driver writes: what lay there is gone, and it had
        // better know. A block device has its own end.
        let present = if self.regular {
            rustix::fs::fstat(&self.file).map_or(0, |status| status.st_size.cast_unsigned())
        } else {
            u64::MAX
        };
        let has = |feature: u64| features & feature != 0;
        Terms {
            end: told.min(present),
            granule: if self.direct {
                u64::from(options.block_size)
            } else {
                SECTOR
            },
            read_only: options.read_only,
            discard: has(feature::DISCARD),
            zero: has(feature::WRITE_ZEROES),
            write_through: !has(feature::FLUSH) || (has(feature::CONFIG_WCE) && !writeback),
            serial: options.serial,
        }
    }

    /// Counts what a request has come to.
    fn count(&self, request: &Request, code: Code) {
        let counters = self.statistics.counters();
        let (count, bytes) = match (code, request.kind) {
            (Code::IoError | Code::Unsupported, _) => (&counters.errors, None),
            (Code::Ok, Kind::Read) => (&counters.reads, Some(&counters.read_bytes)),
            (Code::Ok, Kind::Write) => (&counters.writes, Some(&counters.written_bytes)),
            (Code::Ok, Kind::Flush) => (&counters.flushes, None),
            (Code::Ok, Kind::Discard) => (&counters.discards, None),
            (Code::Ok, Kind::Zero) => (&counters.zeroes, None),
            (Code::Ok, Kind::Other) => return,
        };
        Statistics::add(count, 1);
        if let Some(counter) = bytes {
            Statistics::add(counter, request.bytes);
        }
    }

    fn log(&mut self, action: Action, error: &io::Error) {
        if self.failures < LOGGED_FAILURES {
            tracing::warn!(?action, %error, "a disk's storage has failed a request");
        }
        self.failures = self.failures.saturating_add(1);
    }
}

/// What a driver has set up.
pub(crate) struct Active {
    memory: Arc<Memory>,
    features: u64,
    lanes: Vec<Option<Lane>>,
    _watches: Vec<Watch>,
    done: Vec<Done>,
    patience: Patience,
}

/// A queue.
struct Lane {
    // Before the queue, whose descriptor it watches.
    _watch: Watch,
    queue: Queue,
    /// There may be requests that had to wait: for the engine, or for the limits.
    waiting: bool,
    /// There were no more requests at the last look, and the driver was not asked to kick for the next.
    drained: bool,
    /// Requests were given back that the driver was not told of.
    used: bool,
}

impl Lane {
    fn new(queue: Queue, events: &Registrar) -> Result<Self, Broken> {
        Ok(Self {
            _watch: queue
                .watch(events)
                .map_err(|_| Broken("a queue can't be watched"))?,
            queue,
            waiting: false,
            drained: false,
            used: false,
        })
    }

    /// Answers a request.
    fn finish(&mut self, request: &Request, code: Code) -> Result<(), Broken> {
        request.status.set(code as u8);
        let written = if code == Code::Ok {
            request.success
        } else {
            request.failure
        };
        self.used = true;
        self.queue.complete(request.head, written)
    }
}

impl Active {
    pub(crate) fn new(activation: Activation, storage: &Storage) -> Result<Self, Broken> {
        let events = &activation.events;
        let lanes = activation
            .queues
            .into_iter()
            .map(|queue| queue.map(|queue| Lane::new(queue, events)).transpose())
            .collect::<Result<Vec<_>, _>>()?;
        if lanes.iter().all(Option::is_none) {
            return Err(Broken("the driver has set up no queue"));
        }
        let failed = |_| Broken("a disk's storage can't be watched");
        let mut watches = storage.work.watch(events, COMPLETIONS).map_err(failed)?;
        if let Some(limiter) = &storage.limiter {
            let watch = events.watch(limiter, Flags::READ, LIMITER);
            watches.push(watch.map_err(failed)?);
        }
        Ok(Self {
            patience: Patience::new(events),
            memory: activation.memory,
            features: activation.features,
            lanes,
            _watches: watches,
            done: Vec::new(),
        })
    }

    pub(crate) fn event(
        &mut self,
        token: u32,
        storage: &mut Storage,
        terms: impl FnOnce(u64, &Storage) -> Terms,
    ) -> Result<(), Broken> {
        match token {
            COMPLETIONS => {
                storage.work.heard();
                storage.work.submit();
            }
            LIMITER => {
                if let Some(limiter) = &mut storage.limiter {
                    limiter.expired();
                }
            }
            number => {
                let terms = terms(self.features, storage);
                let Some(Some(lane)) = self.lanes.get_mut(number as usize) else {
                    return Ok(());
                };
                let kicks = lane.queue.kicked();
                let taken = lane.serve(&self.memory, storage, &terms)?;
                if kicks > 0 && lane.drained {
                    self.patience.kicked(taken);
                }
            }
        }
        self.settle(storage)?;
        for lane in self.lanes.iter_mut().flatten() {
            if std::mem::take(&mut lane.used) {
                lane.queue.notify()?;
            }
            // As late as that: what has come meanwhile was not kicked for, and is for a turn of its own.
            if std::mem::take(&mut lane.drained) && lane.queue.listen()? {
                lane.queue.again();
            }
            if lane.waiting && storage.work.room() && !storage.throttled() {
                lane.queue.again();
            }
        }
        Ok(())
    }

    /// Answers what is done, and sees to what is not done yet.
    fn settle(&mut self, storage: &mut Storage) -> Result<(), Broken> {
        loop {
            storage.work.reap(&mut self.done);
            if self.done.is_empty() {
                return Ok(());
            }
            for Done { mut job, result } in self.done.drain(..) {
                let Some(code) = job.next(result, storage) else {
                    let Err(job) = storage.work.push(job) else {
                        continue;
                    };
                    // Not while its own place is free, unless the host takes nothing.
                    Self::answer(&mut self.lanes, storage, &job.request, Code::IoError)?;
                    continue;
                };
                Self::answer(&mut self.lanes, storage, &job.request, code)?;
            }
            storage.work.submit();
        }
    }

    fn answer(
        lanes: &mut [Option<Lane>],
        storage: &Storage,
        request: &Request,
        code: Code,
    ) -> Result<(), Broken> {
        storage.count(request, code);
        match lanes.get_mut(usize::from(request.queue)) {
            Some(Some(lane)) => lane.finish(request, code),
            _ => Ok(()),
        }
    }
}

impl Lane {
    /// Takes requests, as many as there are, as go, and as one turn is for: how many that were.
    fn serve(
        &mut self,
        memory: &Arc<Memory>,
        storage: &mut Storage,
        terms: &Terms,
    ) -> Result<u16, Broken> {
        self.waiting = storage.throttled();
        if self.waiting {
            return Ok(0);
        }
        self.queue.silence()?;
        let number = self.queue.number();
        let mut turn = TURN;
        let mut taken = 0;
        while taken < self.queue.size() && turn > 0 {
            if !storage.work.room() {
                self.waiting = true;
                break;
            }
            let Some(chain) = self.queue.pop(memory)? else {
                self.drained = true;
                break;
            };
            let parsed = request::parse(&chain, number, memory, terms)?;
            let cost = parsed.cost();
            if let Some(limiter) = &mut storage.limiter
                && !limiter.try_take(cost, 1)
            {
                self.queue.undo_pop();
                self.waiting = true;
                Statistics::add(&storage.statistics.counters().throttled, 1);
                break;
            }
            match parsed {
                Parsed::Answer(request, code) => {
                    storage.count(&request, code);
                    self.finish(&request, code)?;
                }
                Parsed::Job(job) => {
                    if storage.work.push(job).is_err() {
                        // The host takes nothing at the moment.
                        self.queue.undo_pop();
                        self.waiting = true;
                        break;
                    }
                }
            }
            taken += 1;
            turn = turn.saturating_sub(cost);
        }
        storage.work.submit();
        if !self.waiting && !self.drained {
            self.queue.again();
        }
        Ok(taken)
    }
}

impl Job {
    /// What becomes of a job that has come back: how it ended, or nothing when it is to be done again with what is left.
    fn next(&mut self, result: io::Result<u64>, storage: &mut Storage) -> Option<Code> {
        let error = match result {
            Ok(moved) => return self.go_on(moved),
            Err(error) => error,
        };
        let again = matches!(
            error.raw_os_error(),
            Some(libc::EINTR | libc::EAGAIN | libc::ERESTART)
        );
        if again && self.request.attempts < ATTEMPTS {
            self.request.attempts += 1;
            return None;
        }
        if error.raw_os_error() == Some(libc::EOPNOTSUPP) {
            match self.action {
                Action::Discard => return Some(Code::Unsupported),
                Action::Zero { .. } => {
                    // The file system can't; then they are written as any other bytes.
                    self.action = Action::Write {
                        durable: self.request.sync_after,
                    };
                    self.buffers = Buffers::zeroes(self.length);
                    return None;
                }
                _ => {}
            }
        }
        storage.log(self.action, &error);
        Some(Code::IoError)
    }

    pub(crate) fn go_on(&mut self, moved: u64) -> Option<Code> {
        match self.action {
            Action::Read | Action::Write { .. } => {
                // Reading ends early where the file does.
                if moved == 0 {
                    return Some(Code::IoError);
                }
                self.buffers.advance(moved);
                self.offset = self.offset.saturating_add(moved);
                self.length = self.buffers.left();
                (self.length == 0).then_some(Code::Ok)
            }
            Action::Zero { .. } if self.request.sync_after => {
                self.action = Action::Sync;
                None
            }
            Action::Sync | Action::Discard | Action::Zero { .. } => Some(Code::Ok),
        }
    }
}
