//! Which processors a process of a container may use.

use rustix::io::Result;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Lets the calling process have the processors of its cgroup, and no others.
///
/// Whoever comes into a cgroup keeps what it could use before, unless the cgroup has other processors than the one above it
/// at that moment: a container that may use the first processor alone, in a guest where the others are still to come, would
/// get them when they do. What is asked for here, all that there can ever be, is cut to what the cgroup has, then and
/// whenever that changes.
pub(super) fn as_the_cgroup() -> Result<()> {
    let mut all = CpuSet::new();
    for processor in 0..CpuSet::MAX_CPU {
        all.set(processor);
    }
    sched_setaffinity(None, &all)
}
