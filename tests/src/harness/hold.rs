//! Stops a migration at a phase, so that a test can act inside of one that lasts a millisecond.
//!
//! The processes are built with the feature `test-hooks` and find the phase in `SEGUE_HOLD` and a folder in `SEGUE_HOLD_DIR`:
//! whoever comes to the phase writes `held-PHASE-WHEN` there and waits for the file `release`.

use std::fs;
use std::path::{Path, PathBuf};

use broker_adapter::shell::Shell;

use super::wait_for;

/// One place at which migrations stop until released.
#[derive(Clone, Debug)]
pub struct Hold {
    folder: PathBuf,
    phase: String,
    when: &'static str,
}

impl Hold {
    /// Stops before the work of `phase`.
    #[must_use]
    pub fn before(phase: &str) -> Hold {
        Hold { folder: PathBuf::new(), phase: phase.to_owned(), when: "before" }
    }

    /// Stops after the work of `phase`.
    #[must_use]
    pub fn after(phase: &str) -> Hold {
        Hold { when: "after", ..Hold::before(phase) }
    }

    pub(super) fn in_folder(mut self, folder: &Path) -> Hold {
        fs::create_dir_all(folder).expect("the test folder can be written");
        folder.clone_into(&mut self.folder);
        self
    }

    /// The phase.
    #[must_use]
    pub fn phase(&self) -> &str {
        &self.phase
    }

    /// What the processes find in their environment.
    pub(super) fn environment(&self) -> [(String, String); 2] {
        let folder = self.folder.to_str().expect("temporary folders have plain names").to_owned();
        [("SEGUE_HOLD".to_owned(), format!("{}:{}", self.phase, self.when)), ("SEGUE_HOLD_DIR".to_owned(), folder)]
    }

    /// Waits until somebody stands at the place.
    pub async fn held(&self, shell: &Shell) {
        let file = self.folder.join(format!("held-{}-{}", self.phase, self.when));
        let what = format!("a process to stop {} {}", self.when, self.phase);
        wait_for(shell, &what, || async { file.exists().then_some(()) }).await;
    }

    /// Lets everybody go on, and nobody stop again.
    ///
    /// # Panics
    /// If the folder is gone.
    pub fn release(&self) {
        fs::write(self.folder.join("release"), "").expect("the test folder can be written");
    }
}
