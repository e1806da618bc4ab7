//! A driver and a device that spare each other kicks and interrupts, in every order of their steps: none waits for ever for
//! what is there.
//!
//! ```text
//!   submitter   offer… ▶ look whether a kick is wanted ▶ offer…
//!   handler     interrupted ▶ collect… ▶ ask for an interrupt ▶ look again
//!   device      kicked, or told of what is done ▶ take… ▶ give back… ▶ interrupt ▶ ask for a kick, and look again
//!   storage     does what was taken, when it likes
//! ```
//!
//! Submitter and handler are two processors of a Linux guest; the device goes about its queue as a disk does.

use std::collections::{HashSet, VecDeque};

use super::tests::{DEVICE, DRIVER, Host, load, store};
use super::*;

/// How many requests there are in all.
const REQUESTS: u16 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Actor {
    Submitter,
    Kicker,
    Handler,
    Device,
    Storage,
}

const ACTORS: [Actor; 5] = [
    Actor::Submitter,
    Actor::Kicker,
    Actor::Handler,
    Actor::Device,
    Actor::Storage,
];

/// What a device might do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// It does not look again when it has asked for a kick.
    LooksOnce,
    /// It asks for no kick for what comes next.
    IsDeaf,
    /// It interrupts before it gives back.
    TellsFirst,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Handling {
    Waits,
    Collects,
    Asks,
    LooksAgain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Serving {
    Sleeps,
    Takes,
    Gives,
    Tells,
    Asks,
}

struct World {
    queue: Queue,
    memory: Arc<Memory>,
    size: u16,
    event_idx: bool,
    flaw: Flaw,
    /// The driver's position before its first request.
    first: u16,
    offered: u16,
    /// Offered since the last look whether a kick is wanted.
    unkicked: u16,
    collected: u16,
    handling: Handling,
    serving: Serving,
    kicked: bool,
    interrupted: bool,
    /// The last look found no more.
    drained: bool,
    taken: VecDeque<u16>,
    done: VecDeque<u16>,
}

/// All that the future depends on.
type State = (Vec<u16>, Handling, Serving, [bool; 3], Vec<u16>, Vec<u16>);

impl World {
    fn new(host: &Host, size: u16, first: u16, event_idx: bool, flaw: Flaw) -> Self {
        let mut queue = host.queue(size, event_idx);
        let memory = Arc::clone(&host.memory);
        // What another world has left.
        let _ = (queue.kick.read(), queue.interrupt.event().read());
        store(&memory, DRIVER, 0);
        store(&memory, DEVICE, 0);
        queue.ring.set_next_avail(first);
        queue.ring.set_next_used(first);
        // Both want to be told of the first.
        for place in [
            DRIVER + 2,
            DRIVER + 4 + u64::from(size) * 2,
            DEVICE + 2,
            DEVICE + 4 + u64::from(size) * 8,
        ] {
            store(&memory, place, first);
        }
        Self {
            queue,
            memory,
            size,
            event_idx,
            flaw,
            first,
            offered: 0,
            unkicked: 0,
            collected: 0,
            handling: Handling::Waits,
            serving: Serving::Sleeps,
            kicked: false,
            interrupted: false,
            drained: false,
            taken: VecDeque::new(),
            done: VecDeque::new(),
        }
    }

    fn state(&self) -> State {
        let memory = [
            DRIVER,
            DRIVER + 4 + u64::from(self.size) * 2,
            DEVICE,
            DEVICE + 2,
            DEVICE + 4 + u64::from(self.size) * 8,
        ];
        let mut numbers: Vec<_> = memory.map(|place| load(&self.memory, place)).into();
        let queue = &self.queue;
        numbers.extend([self.offered, self.unkicked, self.collected]);
        numbers.extend([
            queue.ring.next_avail(),
            queue.ring.next_used(),
            queue.completed,
        ]);
        (
            numbers,
            self.handling,
            self.serving,
            [self.kicked, self.interrupted, self.drained],
            self.taken.iter().copied().collect(),
            self.done.iter().copied().collect(),
        )
    }

    fn can(&self, actor: Actor) -> bool {
        match actor {
            Actor::Submitter => {
                self.offered < REQUESTS && self.offered - self.collected < self.size
            }
            Actor::Kicker => self.unkicked > 0,
            Actor::Handler => self.handling != Handling::Waits || self.interrupted,
            Actor::Device => {
                self.serving != Serving::Sleeps || self.kicked || !self.done.is_empty()
            }
            Actor::Storage => !self.taken.is_empty(),
        }
    }

    fn act(&mut self, actor: Actor) {
        match actor {
            Actor::Submitter => {
                self.offered += 1;
                self.unkicked += 1;
                let added = self.first.wrapping_add(self.offered);
                store(&self.memory, DRIVER + 2, added);
            }
            Actor::Kicker => {
                let unkicked = std::mem::take(&mut self.unkicked);
                if self.wants_kick(unkicked) {
                    self.queue.kick.write(1).expect("kicks");
                    self.kicked = true;
                }
            }
            Actor::Handler => self.handle(),
            Actor::Device => self.serve(),
            Actor::Storage => self.done.extend(self.taken.pop_front()),
        }
    }

    /// 2.7.10: among what was offered is that which the device has named.
    fn wants_kick(&self, unkicked: u16) -> bool {
        if !self.event_idx {
            return load(&self.memory, DEVICE) & 1 == 0;
        }
        let event = load(&self.memory, DEVICE + 4 + u64::from(self.size) * 8);
        let added = self.first.wrapping_add(self.offered);
        added.wrapping_sub(event).wrapping_sub(1) < unkicked
    }

    fn handle(&mut self) {
        let position = self.first.wrapping_add(self.collected);
        let more = load(&self.memory, DEVICE + 2) != position;
        self.handling = match self.handling {
            Handling::Waits => {
                self.interrupted = false;
                self.ask_for_interrupts(false);
                Handling::Collects
            }
            Handling::Collects if more => {
                self.collected += 1;
                Handling::Collects
            }
            Handling::Collects => Handling::Asks,
            Handling::Asks => {
                self.ask_for_interrupts(true);
                Handling::LooksAgain
            }
            Handling::LooksAgain if more => Handling::Collects,
            Handling::LooksAgain => Handling::Waits,
        };
    }

    fn ask_for_interrupts(&self, wanted: bool) {
        if !self.event_idx {
            store(&self.memory, DRIVER, u16::from(!wanted));
        } else if wanted {
            let position = self.first.wrapping_add(self.collected);
            store(
                &self.memory,
                DRIVER + 4 + u64::from(self.size) * 2,
                position,
            );
        }
    }

    fn serve(&mut self) {
        self.serving = match self.serving {
            Serving::Sleeps if std::mem::take(&mut self.kicked) => {
                self.queue.kicked();
                self.queue.silence().expect("no break");
                Serving::Takes
            }
            Serving::Sleeps if self.flaw == Flaw::TellsFirst => Serving::Tells,
            Serving::Sleeps => Serving::Gives,
            Serving::Takes => match self.queue.pop(&self.memory).expect("no break") {
                Some(chain) => {
                    self.taken.push_back(chain.head());
                    Serving::Takes
                }
                None => {
                    self.drained = true;
                    Serving::Gives
                }
            },
            Serving::Gives => match self.done.pop_front() {
                Some(head) => {
                    self.queue.complete(head, 0).expect("no break");
                    Serving::Gives
                }
                None if self.flaw == Flaw::TellsFirst => Serving::Asks,
                None => Serving::Tells,
            },
            Serving::Tells => {
                self.queue.notify().expect("no break");
                // What else is an interrupt than this event.
                self.interrupted |= self.queue.interrupt.event().read().is_ok();
                if self.flaw == Flaw::TellsFirst {
                    Serving::Gives
                } else {
                    Serving::Asks
                }
            }
            Serving::Asks => {
                if std::mem::take(&mut self.drained)
                    && self.flaw != Flaw::IsDeaf
                    && self.queue.listen().expect("no break")
                    && self.flaw != Flaw::LooksOnce
                {
                    self.queue.again();
                    self.kicked = true;
                }
                Serving::Sleeps
            }
        };
    }
}

/// Goes every way that there is: how many states there are, and a way to one where all wait and not all is collected.
fn explore(world: impl Fn() -> World) -> (usize, Option<Vec<Actor>>) {
    let mut seen = HashSet::from([world().state()]);
    let mut ways = vec![Vec::new()];
    let after = |way: &[Actor]| {
        let mut there = world();
        for &step in way {
            there.act(step);
        }
        there
    };
    while let Some(way) = ways.pop() {
        let here = after(&way);
        let able: Vec<_> = ACTORS
            .into_iter()
            .filter(|&actor| here.can(actor))
            .collect();
        if able.is_empty() && here.collected < REQUESTS {
            return (seen.len(), Some(way));
        }
        for actor in able {
            let way = [&way[..], &[actor]].concat();
            if seen.insert(after(&way).state()) {
                ways.push(way);
            }
        }
    }
    (seen.len(), None)
}

#[test]
fn in_every_order_all_requests_are_taken_and_all_answers_collected() {
    let host = Host::new();
    for event_idx in [false, true] {
        // The ring is full again and again, or never; positions go round, or not.
        for (size, first) in [
            (1, u16::MAX - 1),
            (2, 0),
            (2, u16::MAX - 1),
            (4, u16::MAX - 1),
        ] {
            let (states, lost) = explore(|| World::new(&host, size, first, event_idx, Flaw::None));
            assert_eq!(lost, None, "size {size}, from {first}, {event_idx}");
            assert!(states > 100, "{states} states only");
        }
    }
}

/// What is looked for would be found.
#[test]
fn a_device_that_forgets_to_look_or_to_tell_is_found_out() {
    let host = Host::new();
    for event_idx in [false, true] {
        for flaw in [Flaw::LooksOnce, Flaw::IsDeaf, Flaw::TellsFirst] {
            let (_, lost) = explore(|| World::new(&host, 2, 0, event_idx, flaw));
            assert!(lost.is_some(), "{flaw:?}, {event_idx}");
        }
    }
}
