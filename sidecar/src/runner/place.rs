//! Where an instance is: what the placeholders in commands and paths stand for.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;

use crate::service::contract::{ADDRESS, DATA};

/// Address and folder of an instance, and how programs are started beside it.
#[derive(Clone, Debug)]
pub struct Place {
    /// `HOST:PORT`, or `unix:PATH`.
    pub address: String,
    /// Whether somebody else starts and stops it.
    pub attached: bool,
    /// The folder that is private to it.
    pub data: Option<PathBuf>,
    /// What makes a program end with the sidecar.
    pub launcher: Vec<String>,
}

impl Place {
    /// An instance that this program runs inside itself, or knows nothing else about.
    #[must_use]
    pub fn at(address: &str) -> Place {
        Place { address: address.to_owned(), attached: false, data: None, launcher: Vec::new() }
    }

    /// Puts address and folder in the place of `{address}` and `{data}`.
    #[must_use]
    pub fn fill(&self, word: &str) -> String {
        let word = word.replace(ADDRESS, &self.address);
        match &self.data {
            Some(data) => word.replace(DATA, &data.to_string_lossy()),
            None => word,
        }
    }

    /// A program that ends with the sidecar, and when it is dropped; without input and output. `None` if there are no words.
    #[must_use]
    pub fn command(&self, words: &[String]) -> Option<Command> {
        words.first()?;
        let words: Vec<String> =
            self.launcher.iter().cloned().chain(words.iter().map(|word| self.fill(word))).collect();
        let (program, arguments) = words.split_first()?;
        let mut command = Command::new(program);
        command.args(arguments).env("SEGUE_ADDRESS", &self.address).stdin(Stdio::null()).kill_on_drop(true);
        if let Some(data) = &self.data {
            command.env("SEGUE_DATA", data);
        }
        Some(command)
    }
}
