//! PID 1 after the start: the parent of orphans, and the agent's watch.

use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};

/// Reaps until the agent ends, then ends the guest.
///
/// A guest whose agent is gone serves nobody, and its host would wait for ever; one that has
/// ended is noticed at once.
pub(super) fn until_dead(agent: i32) -> ! {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == agent => {
                let how = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => format!("exited with code {code}"),
                    (None, Some(signal)) => format!("was killed by signal {signal}"),
                    (None, None) => "ended".to_owned(),
                };
                super::console(&format!("cofferdam-init: the agent {how}, the guest ends"));
                super::restart();
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                super::console(&format!(
                    "cofferdam-init: cannot wait for the agent: {error}"
                ));
                super::restart();
            }
        }
    }
}
