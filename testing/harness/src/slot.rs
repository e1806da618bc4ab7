//! How many tests may have virtual machines at the same time.
//!
//! Each test that holds a [`crate::Cofferdam`] holds a slot, so `--test-threads` need not be given: more threads than
//! slots only wait. `COFFERDAM_TEST_MACHINES` sets their number.

use std::cell::RefCell;
use std::env;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};

/// Two emulated machines keep two processors busy; more of them make each other late.
const DEFAULT: usize = 2;

static USED: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

thread_local! {
    /// A test with several installations takes one slot: with more it could wait for itself.
    static HELD: RefCell<Weak<Slot>> = const { RefCell::new(Weak::new()) };
}

/// The right to have machines, until it is dropped.
#[derive(Debug)]
pub struct Slot(());

impl Slot {
    /// Waits for a free one; the calling thread's own counts as free.
    pub fn take() -> Arc<Self> {
        HELD.with_borrow_mut(|held| {
            if let Some(slot) = held.upgrade() {
                return slot;
            }
            let most = env::var("COFFERDAM_TEST_MACHINES")
                .ok()
                .and_then(|number| number.parse().ok())
                .unwrap_or(DEFAULT)
                .max(1);
            let mut used = USED.lock().unwrap_or_else(PoisonError::into_inner);
            while *used >= most {
                used = FREED.wait(used).unwrap_or_else(PoisonError::into_inner);
            }
            *used += 1;
            let slot = Arc::new(Self(()));
            *held = Arc::downgrade(&slot);
            slot
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *USED.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        FREED.notify_one();
    }
}
