//! This terminal, for a shell in the test host.

use std::io::{IsTerminal, stdin};

use anyhow::{Context, Result, bail};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use testhost::Terminal;

/// A terminal that passes every key on. Dropping it makes it what it was.
pub struct Raw(Termios);

impl Raw {
    /// Takes over the terminal at standard input.
    pub fn enter() -> Result<Self> {
        let before = tcgetattr(stdin()).context("read the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).context("change the terminal's settings")?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no settings.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.0);
    }
}

/// The size of the terminal at standard input.
pub fn size() -> Result<Terminal> {
    if !stdin().is_terminal() {
        bail!(
            "no command, and standard input is no terminal for a shell: name a command behind `--`"
        );
    }
    let size = tcgetwinsize(stdin()).context("read the terminal's size")?;
    Ok(match (size.ws_row, size.ws_col) {
        // Some have none.
        (0, _) | (_, 0) => Terminal {
            rows: 24,
            columns: 80,
        },
        (rows, columns) => Terminal { rows, columns },
    })
}
