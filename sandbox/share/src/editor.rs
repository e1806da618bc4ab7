//! Changing what a running server shows.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::process::Process;
use crate::{Answer, Entry, Launch, ShareError};

/// Adds entries to the share of a running server and takes them away, by a `cofferdam-fs` process of its own each time:
/// the server has given up the rights for it. Its clones change the same share; one change at a time is the caller's
/// part.
#[derive(Debug, Clone)]
pub struct ShareEditor {
    program: PathBuf,
    deadline: Duration,
    /// The server's folder in `/proc`. It stands for that process only, also when another has its id.
    server: Arc<OwnedFd>,
}

/// Whether anything of removed entries is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Nothing holds them.
    Complete,
    /// The guest has files in them open still. They can't be found any more; the file systems they are on stay busy
    /// until it lets go of them, at the latest with its end.
    Held,
}

impl ShareEditor {
    pub(crate) fn new(program: PathBuf, deadline: Duration, server: Arc<OwnedFd>) -> Self {
        Self {
            program,
            deadline,
            server,
        }
    }

    /// Shows these entries too; all of them or, after an error, none.
    ///
    /// # Errors
    /// [`ShareError::Entry`] names the entry at fault.
    pub async fn add(&self, entries: Vec<Entry>) -> Result<(), ShareError> {
        if entries.is_empty() {
            return Ok(());
        }
        let paths = entries.iter().map(|entry| entry.path.clone()).collect();
        let added = self.run(&Launch::Add { entries }).await;
        match added {
            Ok(_) => Ok(()),
            // It has undone what it did.
            Err(error @ ShareError::Entry(_)) => Err(error),
            // It may have been killed half way.
            Err(error) => {
                self.run(&Launch::Remove { paths }).await?;
                Err(error)
            }
        }
    }

    /// Shows the entries with these paths no longer, and waits a moment for the guest to let go of them. Those that
    /// are not there are skipped.
    ///
    /// # Errors
    /// When they cannot be taken away.
    pub async fn remove(&self, paths: Vec<PathBuf>) -> Result<Removal, ShareError> {
        if paths.is_empty() {
            return Ok(Removal::Complete);
        }
        match self.run(&Launch::Remove { paths }).await? {
            Answer::Held => Ok(Removal::Held),
            _ => Ok(Removal::Complete),
        }
    }

    async fn run(&self, launch: &Launch) -> Result<Answer, ShareError> {
        let mut process = Process::spawn(
            &self.program,
            Vec::new(),
            self.deadline,
            launch,
            self.server.as_fd(),
        )?;
        let answer = process.answer().await?;
        process.wait().await?;
        Ok(answer)
    }
}
