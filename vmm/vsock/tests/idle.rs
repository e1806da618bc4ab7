//! Nobody is woken while nothing happens. A process of its own: all of its threads are looked at.

#[path = "vsock/guest.rs"]
#[expect(dead_code, reason = "this test needs less of it")]
mod guest;

use std::fs;
use std::io::Write;
use std::thread::sleep;
use std::time::Duration;

use guest::*;

/// How often the threads of this process have gone to sleep, this one left out.
fn sleeps() -> u64 {
    let own = fs::read_link("/proc/thread-self").expect("a thread");
    let mut all = 0;
    for task in fs::read_dir("/proc/self/task").expect("threads").flatten() {
        if task.file_name() == own.file_name().expect("a number") {
            continue;
        }
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let counts = status
            .lines()
            .filter_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        all += counts
            .filter_map(|count| count.trim().parse::<u64>().ok())
            .sum::<u64>();
    }
    all
}

#[test]
fn an_idle_device_sleeps() {
    let (quiet, far_quiet) = pair();
    let (mut stalled, far_stalled) = pair();
    let mut guest = Guest::new(vec![(1, far_quiet), (2, far_stalled)], None);
    for port in [1, 2] {
        // The guest has no room on one of them.
        guest.send(&Packet {
            buf_alloc: 0,
            ..Packet::new(GUEST, port, REQUEST)
        });
        guest.expect(RESPONSE);
        guest.expect(CREDIT_REQUEST);
    }
    // Both sides have bytes that the other does not take.
    stalled.write_all(&[1; 1000]).expect("writes");
    for _ in 0..4 {
        guest.write(Packet::new(GUEST, 2, RW), &[2; 64 << 10]);
    }
    quiet.shutdown(std::net::Shutdown::Write).expect("shuts");
    guest.sent();
    while guest.receive().is_some() {}
    sleep(Duration::from_millis(200));
    let before = sleeps();
    sleep(Duration::from_secs(1));
    assert_eq!(sleeps(), before);
    // It was only asleep.
    guest.expect_silence();
    assert!(sleeps() > before);
}
