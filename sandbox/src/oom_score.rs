//! Which processes the kernel rather kills when the host has no memory left (`oom_score_adj` of proc(5)).

use std::fs;
use std::io;

use oci_spec::runtime::Spec;

/// Nothing is more likely to be killed.
const MOST: i32 = 1000;

/// What a spec wants for its container, if it says so.
fn wanted(spec: &Spec) -> Option<i32> {
    spec.process().as_ref()?.oom_score_adj()
}

/// Gives a sandbox's processes what its first container wants.
pub fn begin(spec: &Spec, processes: impl IntoIterator<Item = u32>) {
    if let Some(score) = wanted(spec) {
        change(processes, |_| Some(score));
    }
}

/// Makes a sandbox's processes as likely to be killed as a container that has joined may be: who kills it kills all.
pub fn join(spec: &Spec, processes: impl IntoIterator<Item = u32>) {
    if let Some(score) = wanted(spec) {
        change(processes, |present| (present < score).then_some(score));
    }
}

fn change(processes: impl IntoIterator<Item = u32>, wanted: impl Fn(i32) -> Option<i32>) {
    for pid in processes {
        let changed = of(pid).and_then(|present| match wanted(present) {
            Some(score) => set(pid, score),
            None => Ok(()),
        });
        if let Err(error) = changed {
            // Only CAP_SYS_RESOURCE may protect a process more than it was.
            tracing::warn!(%error, pid, "process.oomScoreAdj is not that of the virtual machine");
        }
    }
}

/// A process's.
fn of(pid: u32) -> io::Result<i32> {
    let text = fs::read_to_string(file(pid))?;
    text.trim()
        .parse()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn set(pid: u32, score: i32) -> io::Result<()> {
    fs::write(file(pid), score.to_string())
}

/// Has a process go before this other one, on which more depends.
///
/// # Errors
/// When one of them is not there.
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
