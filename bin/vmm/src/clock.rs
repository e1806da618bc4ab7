//! The clock that the driver reads too.

/// Nanoseconds of `CLOCK_MONOTONIC`. By the C library, which knows from the start where the kernel keeps the time: others look
/// for that in files when they are asked first, and there are none here.
#[expect(unsafe_code, reason = "a call of the C library")]
pub fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: it writes to the value that is lent to it, and nothing else.
    let read = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    if read != 0 {
        // No kernel is without this clock; who displays this sees it.
        return 0;
    }
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or_default();
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_goes_on() {
        let before = super::now();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(before > 0);
        assert!(super::now() >= before + 2_000_000);
    }
}
