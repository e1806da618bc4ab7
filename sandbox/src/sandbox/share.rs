//! What a sandbox shows to its guest, as containers come and go.

use std::collections::HashMap;
use std::path::PathBuf;

use sandbox_share::{Entry, EntryError, Removal, ShareEditor};
use tokio::sync::Mutex;

use crate::error::SandboxError;

/// The entries of a running share.
#[derive(Debug)]
pub(crate) struct SharedEntries {
    editor: ShareEditor,
    /// By their paths. Locked while the share is changed: one change at a time.
    shown: Mutex<HashMap<PathBuf, Entry>>,
}

impl SharedEntries {
    /// A share that shows these entries.
    pub(crate) fn new(editor: ShareEditor, entries: Vec<Entry>) -> Self {
        let shown = entries.into_iter().map(|entry| (entry.path.clone(), entry));
        Self {
            editor,
            shown: Mutex::new(shown.collect()),
        }
    }

    /// Shows those of these entries that are not shown yet.
    pub(crate) async fn show(&self, entries: &[Entry]) -> Result<(), SandboxError> {
        let mut shown = self.shown.lock().await;
        let mut missing = Vec::new();
        for entry in entries {
            match shown.get(&entry.path) {
                None => missing.push(entry.clone()),
                Some(present) if present == entry => {}
                Some(_) => return Err(SandboxError::Share(taken(entry).into())),
            }
        }
        // Before the change, so that what is given up half way is taken away with the rest.
        for entry in &missing {
            shown.insert(entry.path.clone(), entry.clone());
        }
        let added = self.editor.add(missing.clone()).await;
        if added.is_err() {
            for entry in &missing {
                shown.remove(&entry.path);
            }
        }
        Ok(added?)
    }

    /// Shows these entries no longer.
    pub(crate) async fn hide(&self, entries: &[Entry]) -> Result<(), SandboxError> {
        let mut shown = self.shown.lock().await;
        let paths: Vec<_> = entries.iter().map(|entry| entry.path.clone()).collect();
        if self.editor.remove(paths.clone()).await? == Removal::Held {
            tracing::warn!(
                entries = ?paths,
                "the guest keeps files of a removed container open"
            );
        }
        for path in paths {
            shown.remove(&path);
        }
        Ok(())
    }
}

fn taken(entry: &Entry) -> EntryError {
    EntryError::Entry {
        entry: entry.path.clone(),
        what: "cannot show".to_owned(),
        path: entry.path.clone(),
        reason: "the share shows something else there".to_owned(),
    }
}
