//! The container of a pod's sandbox. On a host it is a process that does nothing but hold the pod's namespaces; here the
//! virtual machine holds them, so it is a state of the shim and costs the guest nothing. It has no files and no process:
//! nothing can be executed in it.

use std::sync::atomic::{AtomicBool, Ordering};

use sandbox::state::ExitStatus;
use tokio::sync::watch;

const INT: u8 = 2;
const KILL: u8 = 9;
const TERM: u8 = 15;

/// It.
#[derive(Debug, Default)]
pub struct Pause {
    started: AtomicBool,
    ended: watch::Sender<Option<ExitStatus>>,
}

impl Pause {
    /// Starts it; answers whether it was not started before.
    pub fn start(&self) -> bool {
        !self.started.swap(true, Ordering::Relaxed)
    }

    /// Whether it was started.
    pub fn is_started(&self) -> bool {
        self.started.load(Ordering::Relaxed)
    }

    /// As the pause program answers signals: it ends well on those that ask, and as the first process of a pid namespace
    /// it hears of no other but SIGKILL.
    pub fn signal(&self, signal: u8) {
        let (code, signal) = match signal {
            KILL => (128 + KILL, Some(KILL)),
            TERM | INT => (0, None),
            _ => return,
        };
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(ExitStatus {
                    code,
                    signal,
                    oom_killed: false,
                });
            }
            first
        });
    }

    /// Waits for its end.
    pub async fn wait(&self) -> ExitStatus {
        let mut ended = self.ended.subscribe();
        match ended.wait_for(Option::is_some).await {
            Ok(status) => status.unwrap_or(ExitStatus::LOST),
            Err(_) => ExitStatus::LOST,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn ends_as_the_program_does() {
        for (sent, code) in [(&[1, 10, 15, 9][..], 0), (&[9, 15], 137), (&[17, 2], 0)] {
            let pause = Pause::default();
            assert!(pause.start() && !pause.start());
            for &signal in sent {
                pause.signal(signal);
            }
            assert_eq!(pause.wait().await.code, code);
        }
    }
}
