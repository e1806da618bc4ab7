//! Who has left things behind.

use std::fs;

/// Whether a process lives. One that has ended and that nobody has asked for yet owns nothing any more.
pub(crate) fn is_process(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        // The state stands behind the name, which may hold anything (proc_pid_stat(5)).
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::{Duration, Instant};

    #[test]
    fn one_that_has_ended_is_no_process_even_before_it_is_reaped() {
        assert!(is_process(std::process::id()));
        let mut child = Command::new("true").spawn().expect("starts");
        let deadline = Instant::now() + Duration::from_secs(60);
        while is_process(child.id()) {
            assert!(Instant::now() < deadline, "it has ended");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(fs::exists(format!("/proc/{}", child.id())).expect("looks"));
        child.wait().expect("is reaped");
    }
}
