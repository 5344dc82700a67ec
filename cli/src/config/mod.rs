//! Configuration of a long-running command: TOML file < environment < flags, and errors that name file, line and key.
//!
//! One scheme for what lies above the file. The environment variable `SEGUE_SIDECAR__SERVICE__0__LISTEN` sets
//! `service[0].listen` of `segue sidecar`: the command first, then the key's parts in upper case, joined by `__`. The flag
//! `--set service.0.listen=…` sets the same. A value is read as TOML if it is TOML (`true`, `8080`, `["a"]`), else as text.

mod document;
#[cfg(test)]
mod sidecar_tests;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use document::Document;

/// What a variable of ours begins with.
const PREFIX: &str = "SEGUE_";

/// Between the parts of a variable's name.
const SEPARATOR: &str = "__";

/// The commands that read a configuration; a variable begins with one of them.
const COMMANDS: [&str; 3] = ["broker", "migrator", "sidecar"];

/// The largest configuration file.
const FILE_LIMIT_BYTES: usize = 1 << 20;

/// One value that lies above the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Where it was said, for people: `the environment variable …`, `the flag --…`.
    pub said_by: String,
    /// The key's parts.
    pub path: Vec<String>,
    /// As it was written.
    pub value: String,
}

impl Override {
    /// From a flag: its name, the key it stands for (parts joined by dots), its value.
    #[must_use]
    pub fn flag(flag: &str, key: &str, value: &str) -> Override {
        Override {
            said_by: format!("the flag {flag}"),
            path: key.split('.').map(str::to_owned).collect(),
            value: value.to_owned(),
        }
    }
}

/// Why there is no configuration. Each message is one line: where, what, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: the configuration file cannot be read ({reason}): check the path given with --config")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        reason: String,
    },
    /// Something in the file is wrong.
    #[error("{path}:{line}:{column}: key {key:?}: {reason}: correct the file")]
    InFile {
        /// The file.
        path: String,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// The key's parts, joined by dots; empty for a line that is no TOML.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// Something in the environment or a flag is wrong.
    #[error("{said_by}: key {key:?}: {reason}: correct or remove it")]
    InOverride {
        /// Where it was said.
        said_by: String,
        /// The key's parts, joined by dots.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A key is missing everywhere.
    #[error("{reason}: set it in {where_to}, as a SEGUE_ variable or with --set")]
    Missing {
        /// Which one.
        reason: String,
        /// The file, and the table in it.
        where_to: String,
    },
    /// A variable that looks like ours names no command.
    #[error(
        "the environment variable {0} names no command: use SEGUE_BROKER__…, SEGUE_MIGRATOR__… or SEGUE_SIDECAR__…, or remove it"
    )]
    UnknownVariable(String),
    /// A variable of ours is not UTF-8.
    #[error("the environment variable {0} is not UTF-8: correct or remove it")]
    NotText(String),
    /// `--set` without `=`.
    #[error("--set {0:?}: write KEY=VALUE, as in --set service.0.listen=127.0.0.1:8080")]
    BadSet(String),
}

/// Reads what is said about `command` in the file, the environment and the flags, the later ones above the earlier.
///
/// # Errors
/// [`ConfigError`] names the place and the key; the caller exits with 2.
pub fn load<T: DeserializeOwned>(
    command: &str,
    file: Option<&Path>,
    environment: impl Iterator<Item = (OsString, OsString)>,
    flags: &[Override],
) -> Result<T, ConfigError> {
    let text = match file {
        Some(path) => read(path)?,
        None => String::new(),
    };
    let name = file.map_or_else(|| "the configuration file".to_owned(), |path| path.display().to_string());
    let mut overrides = of_environment(command, environment)?;
    overrides.extend_from_slice(flags);
    let mut document = Document::parse(&name, &text)?;
    for overriding in &overrides {
        document.set(overriding)?;
    }
    document.into_config()
}

/// Reads the argument of `--set`.
///
/// # Errors
/// If there is no `=` in it.
pub fn parse_set(argument: &str) -> Result<Override, ConfigError> {
    match argument.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok(Override::flag(&format!("--set {key}"), key, value)),
        _ => Err(ConfigError::BadSet(argument.to_owned())),
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |reason: String| ConfigError::Unreadable { path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() > FILE_LIMIT_BYTES {
        return Err(unreadable(format!("it has {} bytes, at most {FILE_LIMIT_BYTES} are read", bytes.len())));
    }
    String::from_utf8(bytes).map_err(|error| unreadable(error.to_string()))
}

/// The variables for this command, in the order of their names, so that the same environment always gives the same.
fn of_environment(
    command: &str,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<Override>, ConfigError> {
    let mut overrides = Vec::new();
    for (name, value) in environment {
        let Some(name) = name.to_str().map(str::to_owned) else { continue };
        let Some(parts) = name.strip_prefix(PREFIX).filter(|parts| parts.contains(SEPARATOR)) else {
            continue;
        };
        let mut path: Vec<String> = parts.split(SEPARATOR).map(str::to_lowercase).collect();
        let of_command = path.remove(0);
        if !COMMANDS.contains(&of_command.as_str()) || path.iter().any(String::is_empty) {
            return Err(ConfigError::UnknownVariable(name));
        }
        if of_command == command {
            let value = value.into_string().map_err(|_| ConfigError::NotText(name.clone()))?;
            overrides.push(Override { said_by: format!("the environment variable {name}"), path, value });
        }
    }
    overrides.sort_by(|a, b| a.said_by.cmp(&b.said_by));
    Ok(overrides)
}
