//! How much a device may do in a second.
//!
//! ```text
//!   try_take ──▶ true: go on
//!        └─────▶ false: the timer is armed; it is ready ──▶ expired, and try again
//! ```
//!
//! A bucket for bytes and one for operations. Each lets a tenth of a second's worth through at once, and what is taken
//! flows out at the limit's rate. A request is never too large: it goes when its bucket is not full, and what it
//! overfills the bucket by delays the next one. The timer is armed only while somebody waits: an idle device has none.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use vmm_sys_util::timerfd::TimerFd;

/// What a device may do per second; `None` is without a limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Bytes per second.
    pub bytes: Option<NonZeroU64>,
    /// Operations (requests, packets) per second.
    pub operations: Option<NonZeroU64>,
}

impl Rates {
    /// Whether there is a limit at all.
    #[must_use]
    pub fn limited(self) -> bool {
        self.bytes.is_some() || self.operations.is_some()
    }
}

/// Who waits is woken at most so often: a limit of a million operations does not make a million timers.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// Nanoseconds in a second.
const SECOND: u128 = 1_000_000_000;

/// Lets through what [`Rates`] allow. Watch it (it is a timer's descriptor) with [`Flags::READ`](crate::Flags::READ).
#[derive(Debug)]
pub struct RateLimiter {
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
    updated: Instant,
    timer: TimerFd,
    waiting: bool,
}

impl RateLimiter {
    /// A limiter whose buckets are empty.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new(rates: Rates) -> io::Result<Self> {
        Ok(Self {
            bytes: rates.bytes.map(Bucket::new),
            operations: rates.operations.map(Bucket::new),
            updated: Instant::now(),
            timer: TimerFd::new().map_err(io::Error::from)?,
            waiting: false,
        })
    }

    /// Whether so many bytes in so many operations may go now; then they are counted. When not, nothing is counted, and
    /// the timer will be ready when it is worth trying again.
    pub fn try_take(&mut self, bytes: u64, operations: u64) -> bool {
        self.try_take_at(Instant::now(), bytes, operations)
    }

    fn try_take_at(&mut self, now: Instant, bytes: u64, operations: u64) -> bool {
        let passed = now.saturating_duration_since(self.updated);
        self.updated = self.updated.max(now);
        let mut wait = Duration::ZERO;
        for bucket in self.bytes.iter_mut().chain(&mut self.operations) {
            bucket.flow(passed);
            wait = wait.max(bucket.wait());
        }
        if wait.is_zero() {
            self.pay(bytes, operations);
            return true;
        }
        if !self.waiting {
            // A timer of our own with a valid time is not refused. If it were, nothing would ever go again: rather let
            // this go.
            if self.timer.reset(wait.max(SHORTEST_WAIT), None).is_err() {
                return true;
            }
            self.waiting = true;
        }
        false
    }

    /// Counts what has gone without asking: a packet's length is known only when it has been received.
    pub fn pay(&mut self, bytes: u64, operations: u64) {
        for (bucket, amount) in [(&mut self.bytes, bytes), (&mut self.operations, operations)] {
            if let Some(bucket) = bucket {
                bucket.pour(amount);
            }
        }
    }

    /// Takes note that the timer is ready: call this before trying again. Also stops a timer that is not needed any
    /// more.
    pub fn expired(&mut self) {
        // Setting a timer, even to nothing, takes its readiness away, and never blocks as reading may.
        let _ = self.timer.clear();
        self.waiting = false;
    }

    /// Whether somebody was told to wait, and has not called [`expired`](Self::expired) since.
    #[must_use]
    pub fn waiting(&self) -> bool {
        self.waiting
    }
}

impl AsRawFd for RateLimiter {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}

/// In units of a billionth of a byte or operation, so that no time is too short to count.
#[derive(Debug)]
struct Bucket {
    rate: u128,
    size: u128,
    level: u128,
}

impl Bucket {
    fn new(rate: NonZeroU64) -> Self {
        let rate = u128::from(rate.get());
        Self {
            rate,
            size: (rate * SECOND / 10).max(SECOND),
            level: 0,
        }
    }

    fn flow(&mut self, passed: Duration) {
        self.level = self
            .level
            .saturating_sub(passed.as_nanos().saturating_mul(self.rate));
    }

    fn pour(&mut self, amount: u64) {
        self.level = self.level.saturating_add(u128::from(amount) * SECOND);
    }

    /// How long until it is not full any more.
    fn wait(&self) -> Duration {
        if self.level < self.size {
            return Duration::ZERO;
        }
        let nanoseconds = (self.level - self.size) / self.rate + 1;
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::wait;
    use proptest::prelude::*;

    fn limiter(bytes: u64, operations: u64) -> RateLimiter {
        RateLimiter::new(Rates {
            bytes: NonZeroU64::new(bytes),
            operations: NonZeroU64::new(operations),
        })
        .expect("a limiter")
    }

    fn ready(limiter: &RateLimiter) -> bool {
        let mut poll = [libc::pollfd {
            fd: limiter.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        }];
        #[expect(unsafe_code, reason = "poll by libc")]
        // SAFETY: one entry that lives on the stack.
        let count = unsafe { libc::poll(poll.as_mut_ptr(), 1, 0) };
        count == 1
    }

    #[test]
    fn without_limits_all_goes_and_no_timer_is_armed() {
        let mut limiter = limiter(0, 0);
        for _ in 0..1000 {
            assert!(limiter.try_take(u64::MAX, u64::MAX));
        }
        assert!(!limiter.timer.is_armed().expect("a timer"));
    }

    #[test]
    fn what_waits_is_woken_once_and_may_go() {
        let mut limiter = limiter(0, 100);
        let mut gone = 0;
        while limiter.try_take(0, 1) {
            gone += 1;
        }
        assert!((10..1000).contains(&gone), "{gone}");
        assert!(limiter.waiting() && limiter.timer.is_armed().expect("a timer"));
        wait("the timer", || ready(&limiter).then_some(()));
        limiter.expired();
        assert!(!ready(&limiter) && !limiter.waiting());
        assert!(limiter.try_take(0, 1));
        assert!(!limiter.timer.is_armed().expect("a timer"), "nobody waits");
    }

    #[test]
    fn one_request_may_be_larger_than_the_bucket_and_is_paid_for_afterwards() {
        let mut limiter = limiter(1000, 0);
        let start = limiter.updated;
        assert!(limiter.try_take_at(start, 10_000, 1));
        assert!(!limiter.try_take_at(start + Duration::from_millis(9900), 1, 1));
        assert!(limiter.try_take_at(start + Duration::from_millis(9901), 1, 1));
    }

    #[test]
    fn what_has_gone_unasked_is_paid_for_as_well() {
        let mut limiter = limiter(1000, 0);
        let start = limiter.updated;
        assert!(limiter.try_take_at(start, 0, 1));
        limiter.pay(10_000, 0);
        assert!(!limiter.try_take_at(start + Duration::from_millis(9900), 0, 1));
        assert!(limiter.try_take_at(start + Duration::from_millis(9901), 0, 1));
    }

    #[test]
    fn the_tighter_limit_counts_and_a_refusal_costs_nothing() {
        let mut limiter = limiter(1_000_000, 10);
        let now = limiter.updated;
        assert!(limiter.try_take_at(now, 0, 1));
        for _ in 0..10 {
            assert!(!limiter.try_take_at(now, 1_000_000, 1));
        }
        assert!(limiter.try_take_at(now + Duration::from_millis(101), 1, 1));
    }

    #[test]
    fn absurd_amounts_and_rates_overflow_nothing() {
        let mut limiter = limiter(u64::MAX, 1);
        let mut now = limiter.updated;
        for _ in 0..100 {
            let _ = limiter.try_take_at(now, u64::MAX, u64::MAX);
            now += Duration::from_secs(1 << 30);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Who asks for more than the rate gets the rate: at most a bucket and one request more, and nothing less.
        #[test]
        fn the_rate_is_kept(rate in 1..10_000_000_000_u64, steps in prop::collection::vec((1..2_000_000_u64, 1..1_000_000_u64), 1..100)) {
            let mut limiter = limiter(rate, 0);
            let start = limiter.updated;
            let mut now = start;
            let (mut taken, mut largest) = (0_u128, 0_u128);
            for (nanoseconds, amount) in steps {
                now += Duration::from_nanos(nanoseconds);
                // So that asking until it is refused ends.
                let amount = amount.max(rate / 100);
                while limiter.try_take_at(now, amount, 1) {
                    taken += u128::from(amount);
                }
                largest = largest.max(u128::from(amount));
            }
            let allowed = (now - start).as_nanos() * u128::from(rate) / SECOND;
            let bucket = u128::from(rate).div_ceil(10).max(1);
            prop_assert!(taken <= allowed + bucket + largest + 1, "{taken} {allowed}");
            prop_assert!(taken + 1 >= allowed, "{taken} {allowed}");
        }
    }
}
