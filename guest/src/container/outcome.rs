//! What a worker's report says about a process that was to be started.

use super::Failure;
use crate::helper::Report;

/// What a report says about a failure.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    command: Option<Failure>,
    error: Option<String>,
    details: Vec<String>,
}

/// Details of a failure that are passed on.
const DETAILS_MAX: usize = 1;

impl Outcome {
    pub(super) fn note(&mut self, line: Report) {
        match line {
            Report::CommandMissing(text) => self.command = Some(Failure::CommandMissing(text)),
            Report::CommandRefused(text) => self.command = Some(Failure::CommandRefused(text)),
            Report::Error(error) => self.error = Some(error),

            Report::Log(detail) if self.details.len() < DETAILS_MAX => self.details.push(detail),
            Report::Log(_) | Report::Pid(_) | Report::Created | Report::Executing => {}
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.command.is_some() || self.error.is_some()
    }

    pub(super) fn failure(self, otherwise: &str) -> Failure {
        if let Some(command) = self.command {
            return command;
        }
        let mut message = self.error.unwrap_or_else(|| otherwise.to_owned());
        for detail in self.details {
            if !message.contains(&detail) {
                message.push_str(": ");
                message.push_str(&detail);
            }
        }
        Failure::Other(message.replace('\n', " "))
    }
}
