//! What a worker's report says about a process that was to be started.

use super::Failure;
use crate::helper::Report;

/// How an error of the kernel's ends when it is printed.
const CAUSE: &str = "(os error ";

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
        // An error that has its cause, the kernel's answer, gains nothing by a library's notes in Rust's notation.
        let details = match message.contains(CAUSE) {
            true => Vec::new(),
            false => self.details,
        };
        for detail in details {
            if !message.contains(&detail) {
                message.push_str(": ");
                message.push_str(&detail);
            }
        }
        Failure::Other(message.replace('\n', " "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: &str, detail: &str) -> String {
        let mut outcome = Outcome::default();
        outcome.note(Report::Log(detail.to_owned()));
        outcome.note(Report::Error(error.to_owned()));
        match outcome.failure("ended") {
            Failure::Other(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_cause_is_told_once() {
        let error = "failed to write 9 to cpuset.cpus: Numerical result out of range (os error 34)";
        assert_eq!(
            told(error, "failed to apply cgroup err=V2(WrappedIo(…))"),
            error
        );
        assert_eq!(
            told("failed to set hostname", "failed err=Nix(EINVAL)"),
            "failed to set hostname: failed err=Nix(EINVAL)"
        );
    }
}
