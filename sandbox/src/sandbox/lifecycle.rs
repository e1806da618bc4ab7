//! The states of a container and what may happen in each.
//!
//! ```text
//!            Created             Started             Paused
//!  creating ────────▶ created ──────────▶ running ◀──────────▶ paused
//!      │                 │                   │      Resumed       │
//!      └─────────────────┴───────Ended───────┴────────────────────┘──▶ stopped
//! ```

use crate::state::{ExitStatus, Status};

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// Being made.
    Creating,
    /// Waits for its start.
    Created,
    /// Its process runs.
    Running,
    /// Frozen.
    Paused,
    /// Its process has ended.
    Stopped(ExitStatus),
}

/// What happens to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The guest has made it.
    Created,
    /// Its process runs.
    Started,
    /// It was frozen.
    Paused,
    /// It was thawed.
    Resumed,
    /// Its process has ended.
    Ended(ExitStatus),
}

/// Something was asked that the state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot {action} a container in state {status}", status = .status.as_str())]
pub struct WrongState {
    /// What was asked.
    pub action: &'static str,
    /// Where it is.
    pub status: Status,
}

impl Lifecycle {
    /// As `state` shows it.
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            Self::Creating => Status::Creating,
            Self::Created => Status::Created,
            Self::Running => Status::Running,
            Self::Paused => Status::Paused,
            Self::Stopped(_) => Status::Stopped,
        }
    }

    /// Where an event leads.
    ///
    /// # Errors
    /// [`WrongState`] when it cannot happen here.
    pub fn next(self, event: Event) -> Result<Self, WrongState> {
        let wrong = |action| {
            Err(WrongState {
                action,
                status: self.status(),
            })
        };
        match (self, event) {
            // The first end counts: a container has one exit status.
            (Self::Stopped(_), Event::Ended(_)) => Ok(self),
            (_, Event::Ended(exit)) => Ok(Self::Stopped(exit)),
            (Self::Creating, Event::Created) => Ok(Self::Created),
            (_, Event::Created) => wrong("create"),
            (Self::Created, Event::Started) | (Self::Paused, Event::Resumed) => Ok(Self::Running),
            (_, Event::Started) => wrong("start"),
            (Self::Running, Event::Paused) => Ok(Self::Paused),
            (_, Event::Paused) => wrong("pause"),
            (_, Event::Resumed) => wrong("resume (it is not paused)"),
        }
    }

    /// Whether there is something to signal.
    #[must_use]
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Created | Self::Running | Self::Paused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Created),
            Just(Event::Started),
            Just(Event::Paused),
            Just(Event::Resumed),
            any::<u8>().prop_map(|code| Event::Ended(ExitStatus {
                code,
                signal: None,
                oom_killed: false
            })),
        ]
    }

    proptest! {
        /// Against a model that only remembers the events which were taken.
        #[test]
        fn follows_the_drawing(events in proptest::collection::vec(event(), 0..20)) {
            let mut state = Lifecycle::Creating;
            let mut taken: Vec<Event> = Vec::new();
            for event in events {
                let ended = taken.iter().find(|event| matches!(event, Event::Ended(_))).copied();
                let allowed = match event {
                    Event::Ended(_) => true,
                    _ if ended.is_some() => false,
                    Event::Created => taken.is_empty(),
                    Event::Started => taken.last() == Some(&Event::Created),
                    Event::Paused => matches!(taken.last(), Some(Event::Started | Event::Resumed)),
                    Event::Resumed => taken.last() == Some(&Event::Paused),
                };
                match state.next(event) {
                    Ok(next) => {
                        prop_assert!(allowed);
                        state = next;
                        taken.push(event);
                    }
                    Err(_) => prop_assert!(!allowed),
                }
                if let Some(Event::Ended(first)) = ended {
                    prop_assert_eq!(state, Lifecycle::Stopped(first));
                }
            }
        }
    }
}
