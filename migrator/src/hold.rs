//! Stops a migration at a phase until a test releases it, so that a test can act inside one that lasts a millisecond.
//!
//! Only with the feature `test-hooks` does anything read the environment: `SEGUE_HOLD=PHASE:before|after` and
//! `SEGUE_HOLD_DIR`. Whoever comes to the place writes `held-PHASE-WHEN` there and waits for the file `release`.

use std::path::PathBuf;
use std::time::Duration;

use broker_adapter::shell::Shell;

use crate::machine::Phase;

const POLL: Duration = Duration::from_millis(5);

/// One place at which migrations stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Which phase, by name.
    pub phase: String,
    /// Before its commands are sent, or after its outcome was journalled.
    pub when: When,
    /// Where the files are.
    pub folder: PathBuf,
}

/// On which side of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before its commands are sent.
    Before,
    /// After its outcome was journalled.
    After,
}

impl Hold {
    /// What the environment asks for.
    #[cfg(feature = "test-hooks")]
    #[must_use]
    pub fn from_environment() -> Option<Hold> {
        let place = std::env::var("SEGUE_HOLD").ok()?;
        let folder = std::env::var_os("SEGUE_HOLD_DIR")?.into();
        let (phase, when) = place.split_once(':')?;
        let when = match when {
            "before" => When::Before,
            "after" => When::After,
            _ => return None,
        };
        Some(Hold { phase: phase.to_owned(), when, folder })
    }

    /// Without the feature `test-hooks` nobody stops anything.
    #[cfg(not(feature = "test-hooks"))]
    #[must_use]
    pub fn from_environment() -> Option<Hold> {
        None
    }

    /// Whether a migration that leaves `before` for `after` comes by this place.
    #[must_use]
    pub fn is_met(&self, before: Option<Phase>, after: Phase) -> bool {
        let place = match self.when {
            When::Before => Some(after),
            When::After => before,
        };
        before != Some(after) && place.is_some_and(|phase| phase.name() == self.phase)
    }

    /// Says that somebody is here, and waits for the release.
    pub async fn wait(self, shell: Shell) {
        let when = if self.when == When::Before { "before" } else { "after" };
        let release = self.folder.join("release");
        let held = self.folder.join(format!("held-{}-{when}", self.phase));
        if release.exists() {
            return;
        }
        if let Err(error) = std::fs::write(&held, "") {
            tracing::error!(%error, file = %held.display(), "a hold cannot be written; nobody stops");
            return;
        }
        tracing::warn!(phase = self.phase, when, "held until released");
        while !release.exists() {
            shell.sleep(POLL).await;
        }
    }
}
