//! Letting the guest go on before it is served.
//!
//! Where a virtual CPU and the event loop share a processor of the host, a kick has the kernel run the loop at once, as it
//! has slept most of the time: each request of many is served and told of alone, which costs the guest its exits each
//! time. A loop that is patient is not run before its turn (`SCHED_BATCH`, sched(7)): the guest goes on until it waits, or
//! its time is over, and its requests come together. Where there is a processor for each, patience changes nothing.
//!
//! A driver that asks for one thing at a time loses by it, as the guest first has to find out that it has nothing to
//! do. Only trying tells which it is, as with impatience even many requests come one by one:
//!
//! ```text
//!              so many kicks for few requests
//!   impatient ───────────────────────────────▶ patient ◀─┐ kicks for many
//!       ▲                                        │  └────┘
//!       └────────────────────────────────────────┘
//!        too many kicks for few: the next try is after twice as many
//! ```
#![expect(unsafe_code, reason = "scheduling by libc")]
// UNSAFETY: calls about the calling thread, with a pointer to a value on the stack that outlives the call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::events::Registrar;

/// So many requests for one kick are many: then there is less to win, or the guest has waited.
const MANY: u16 = 4;

/// After how many kicks for few requests patience is tried first, and at most.
const FIRST_TRY: u32 = 64;
const LAST_TRY: u32 = 8192;

/// How many kicks for few requests end the first try, and how many end what has been good for long.
const CREDIT: u8 = 2;
const MOST_CREDIT: u8 = 8;

/// Whether the thread of a loop is to be patient, and whether it is.
#[derive(Default)]
pub(crate) struct Manner {
    /// How many want it.
    wanted: AtomicUsize,
    /// Of the one thread that runs the loop.
    patient: AtomicBool,
}

impl Manner {
    /// For the thread that runs the loop, each time before it waits.
    pub(crate) fn adopt(&self) {
        let wanted = self.wanted.load(Ordering::Relaxed) > 0;
        if wanted == self.patient.load(Ordering::Relaxed) {
            return;
        }
        self.patient.store(wanted, Ordering::Relaxed);
        let (from, to) = if wanted {
            (libc::SCHED_OTHER, libc::SCHED_BATCH)
        } else {
            (libc::SCHED_BATCH, libc::SCHED_OTHER)
        };
        let parameters = libc::sched_param { sched_priority: 0 };
        // SAFETY: 0 is the calling thread; the parameters live on the stack during the call.
        let changed = unsafe {
            // A thread that was given another policy keeps it.
            libc::sched_getscheduler(0) != from || libc::sched_setscheduler(0, to, &parameters) == 0
        };
        if !changed {
            tracing::debug!("the host does not let the event loop be patient");
        }
    }
}

/// Someone's wish for patience, as long as this lives.
struct Wish(Arc<Manner>);

impl Wish {
    fn new(manner: Arc<Manner>) -> Self {
        manner.wanted.fetch_add(1, Ordering::Relaxed);
        Self(manner)
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        self.0.wanted.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Finds out for a device whether patience pays, and has its event loop be patient as long as it does.
pub struct Patience {
    manner: Arc<Manner>,
    judge: Judge,
    wish: Option<Wish>,
}

impl Patience {
    /// None yet.
    #[must_use]
    pub fn new(events: &Registrar) -> Self {
        Self {
            manner: events.manner(),
            judge: Judge::default(),
            wish: None,
        }
    }

    /// A driver's kick has led to so many requests, all that there were. Those of a device that had to leave some for later
    /// say nothing.
    pub fn kicked(&mut self, requests: u16) {
        if !self.judge.is_patient(requests) {
            self.wish = None;
        } else if self.wish.is_none() {
            self.wish = Some(Wish::new(Arc::clone(&self.manner)));
        }
    }
}

/// What was learned.
struct Judge {
    /// While patient: how many more kicks for few requests are borne.
    credit: Option<u8>,
    /// Otherwise: after how many of them it is tried,
    distance: u32,
    /// and how many there were.
    kicks: u32,
}

impl Default for Judge {
    fn default() -> Self {
        Self {
            credit: None,
            distance: FIRST_TRY,
            kicks: 0,
        }
    }
}

impl Judge {
    /// Whether to be patient, after a kick for so many requests.
    fn is_patient(&mut self, requests: u16) -> bool {
        let many = requests >= MANY;
        match &mut self.credit {
            // A kick for nothing: what it was for came along before.
            _ if requests == 0 => {}
            Some(credit) if many => {
                *credit = (*credit + 1).min(MOST_CREDIT);
                if *credit == MOST_CREDIT {
                    self.distance = FIRST_TRY;
                }
            }
            Some(credit) => {
                *credit -= 1;
                if *credit == 0 {
                    self.credit = None;
                    self.distance = (self.distance * 2).min(LAST_TRY);
                }
            }
            // They come together by themselves.
            None if many => {}
            None => {
                self.kicks += 1;
                if self.kicks >= self.distance {
                    self.kicks = 0;
                    self.credit = Some(CREDIT);
                }
            }
        }
        self.credit.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EventLoop;
    use std::sync::Weak;

    /// Kicks of a guest that has so many requests when it is let go on, and else one at a time: how many of them were
    /// while the loop was patient.
    fn patient_kicks(judge: &mut Judge, depth: u16, kicks: u32) -> u32 {
        let mut patient = judge.credit.is_some();
        let mut count = 0;
        for _ in 0..kicks {
            count += u32::from(patient);
            patient = judge.is_patient(if patient { depth } else { 1 });
        }
        count
    }

    #[test]
    fn who_asks_for_one_thing_at_a_time_is_hardly_kept_waiting() {
        for depth in 1..MANY {
            let mut judge = Judge::default();
            // 64, 128, 256… kicks lie between tries of two.
            assert_eq!(patient_kicks(&mut judge, depth, 64), 0);
            assert_eq!(patient_kicks(&mut judge, depth, 8192), 2 * 7);
            let later = patient_kicks(&mut judge, depth, 1 << 20);
            assert!(later <= 2 * ((1 << 20) / LAST_TRY + 1), "{later}");
        }
    }

    #[test]
    fn who_asks_for_many_is_waited_for_as_long_as_that_lasts() {
        for depth in [MANY, 32, u16::MAX] {
            let mut judge = Judge::default();
            assert_eq!(patient_kicks(&mut judge, depth, 64), 0);
            assert_eq!(patient_kicks(&mut judge, depth, 1000), 1000);
            // No longer: eight kicks were one too many each.
            assert_eq!(patient_kicks(&mut judge, 1, 64), 8);
            // It was good for long, so it is tried again soon.
            assert_eq!(patient_kicks(&mut judge, depth, 1000), 1000 - 72);
        }
    }

    /// Whatever a guest does: of its kicks for few requests, those that are waited for are few, or are paid by kicks for
    /// many.
    #[test]
    fn no_guest_has_the_loop_be_patient_for_nothing() {
        for guest in 0..1_u32 << 16 {
            let mut judge = Judge::default();
            // It is about to be tried.
            for _ in 1..FIRST_TRY {
                assert!(!judge.is_patient(1));
            }
            let (mut tries, mut few, mut many, mut patient) = (0, 0, 0, false);
            for kick in 0..16 {
                let requests = if guest >> kick & 1 == 0 { 1 } else { MANY };
                match (patient, requests) {
                    (true, 1) => few += 1,
                    (true, _) => many += 1,
                    _ => {}
                }
                let next = judge.is_patient(requests);
                tries += u32::from(next && !patient);
                patient = next;
                assert!(few <= many + u32::from(CREDIT) * tries, "{guest:016b}");
            }
            assert!(tries <= 1, "{guest:016b}");
        }
    }

    #[test]
    fn requests_that_come_together_by_themselves_are_left_alone() {
        let mut judge = Judge::default();
        assert!((0..1 << 20).all(|_| !judge.is_patient(MANY)));
        assert!((0..1 << 20).all(|_| !judge.is_patient(0)));
    }

    fn policy() -> i32 {
        // SAFETY: no pointers.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn a_loop_is_patient_as_long_as_one_of_its_devices_wants_it() {
        let events = EventLoop::new().expect("a loop");
        let registrar = events.registrar(Weak::<crate::Transport>::new());
        let (mut one, mut two) = (Patience::new(&registrar), Patience::new(&registrar));
        let served = |expected| {
            events.serve(0).expect("serves");
            assert_eq!(policy(), expected);
        };
        served(libc::SCHED_OTHER);
        for _ in 0..FIRST_TRY {
            one.kicked(1);
            two.kicked(1);
        }
        served(libc::SCHED_BATCH);
        one.kicked(1);
        one.kicked(1);
        served(libc::SCHED_BATCH);
        // A device that is reset.
        drop(two);
        served(libc::SCHED_OTHER);
    }
}
