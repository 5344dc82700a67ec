//! The binary itself, as a process: exit codes and messages of wrong input, and children that end with their parent.
#![allow(clippy::disallowed_methods)] // real processes

mod command_line;
mod demo;
mod with_parent;

use std::process::Command;

/// The program under test, without what the caller's environment sets.
fn segue() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_segue"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SEGUE_") {
            command.env_remove(name);
        }
    }
    command
}
