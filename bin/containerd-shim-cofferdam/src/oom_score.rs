//! Which processes the kernel rather kills when the host has no memory left (`oom_score_adj` of proc(5)).

use std::fs;
use std::io;

/// Nothing is more likely to be killed.
const MOST: i32 = 1000;

/// A process's.
pub fn of(pid: u32) -> io::Result<i32> {
    let text = fs::read_to_string(file(pid))?;
    text.trim()
        .parse()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Sets it.
pub fn set(pid: u32, score: i32) -> io::Result<()> {
    fs::write(file(pid), score.to_string())
}

/// Has a process go before this other one, on which more depends.
pub fn put_before(pid: u32, other: u32) -> io::Result<()> {
    set(pid, of(other)?.saturating_add(1).min(MOST))
}

fn file(pid: u32) -> String {
    format!("/proc/{pid}/oom_score_adj")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_goes_before_its_parent() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let own = of(std::process::id()).unwrap();
        put_before(child.id(), std::process::id()).unwrap();
        let put = of(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(put.unwrap(), (own + 1).min(MOST));
    }
}
