//! The host's time stamp counter.
#![expect(unsafe_code, reason = "the instruction that reads the counter")]
// UNSAFETY: one instruction without operands.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

/// How long the time stamp counter is compared with the clock where nobody knows its rate.
const COMPARE: Duration = Duration::from_millis(20);

/// The rate of the host's time stamp counter, which an emulated guest reads, in kHz. Guests that have to find it out
/// themselves fail to when the host is busy.
pub async fn khz() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/cpuinfo")?;
    if let Some(khz) = parse(&text) {
        return Ok(khz);
    }
    let (start_ticks, start) = (ticks(), Instant::now());
    tokio::time::sleep(COMPARE).await;
    let (ticks, elapsed) = (ticks().wrapping_sub(start_ticks), start.elapsed());
    let khz = u128::from(ticks) * 1_000_000 / elapsed.as_nanos().max(1);
    u64::try_from(khz).map_err(|_| io::Error::other("the time stamp counter runs too fast"))
}

/// The rate in `/proc/cpuinfo`. With `aperfmperf` the kernel shows the clock of the core at the moment there, which is
/// another thing.
fn parse(text: &str) -> Option<u64> {
    let field = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then(|| value.trim())
        })
    };
    if field("flags")?
        .split_whitespace()
        .any(|flag| flag == "aperfmperf")
    {
        return None;
    }
    let (mhz, thousandths) = field("cpu MHz")?.split_once('.')?;
    if thousandths.len() != 3 {
        return None;
    }
    let khz = mhz.parse::<u64>().ok()?.checked_mul(1000)? + thousandths.parse::<u64>().ok()?;
    (khz > 0).then_some(khz)
}

fn ticks() -> u64 {
    // SAFETY: reads a counter; every x86-64 processor has the instruction, and Linux leaves it enabled.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tsc_rate_is_not_the_clock_of_the_moment() {
        let guest = "processor\t: 0\ncpu MHz\t\t: 2593.904\nflags\t\t: fpu tsc constant_tsc\n";
        assert_eq!(parse(guest), Some(2_593_904));
        assert_eq!(parse(&guest.replace("fpu", "fpu aperfmperf")), None);
        assert_eq!(parse(""), None);
        assert_eq!(parse("flags : fpu\ncpu MHz : x.123\n"), None);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn this_machine_has_a_plausible_rate() {
        let khz = khz().await.expect("a rate");
        assert!((100_000..10_000_000).contains(&khz), "{khz}");
    }
}
