//! What a configuration says about where a service runs and how its state is saved and loaded; checked before anything starts.

use std::net::IpAddr;

use serde::Deserialize;

use crate::config::ServiceConfig;

/// What in a word of a command, or in a path, becomes the `HOST:PORT` of the instance.
pub const ADDRESS: &str = "{address}";
/// What becomes the folder that is private to the instance.
pub const DATA: &str = "{data}";
/// What an address that is a Unix socket begins with.
pub const UNIX: &str = "unix:";

/// How a service's state is saved and loaded.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "kebab-case")]
pub enum StateConfig {
    /// A GET streams the state, a PUT replaces it.
    Http {
        /// Where; never reachable through the ingress.
        path: String,
    },
    /// Programs of this node write and read the state.
    Command {
        /// Writes the state to its standard output.
        save: Vec<String>,
        /// Reads the state from its standard input.
        load: Vec<String>,
        /// Whether the service is started after the load, or runs while it is loaded.
        #[serde(default)]
        then: Then,
        /// Whether equal states give equal bytes.
        #[serde(default)]
        canonical: bool,
    },
    /// The state is a folder.
    Directory {
        /// Which; `{data}` by default.
        #[serde(default = "default_folder")]
        path: String,
        /// A program to be run before each save, for services that must be told to write everything down.
        #[serde(default)]
        before_save: Vec<String>,
        /// Whether equal states give equal files.
        #[serde(default = "default_canonical")]
        canonical: bool,
    },
}

/// What follows a load by command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// The service runs while its state is loaded.
    #[default]
    Nothing,
    /// The service does not run while its state is loaded, and reads it as it starts.
    Restart,
}

fn default_folder() -> String {
    DATA.to_owned()
}

fn default_canonical() -> bool {
    true
}

impl StateConfig {
    /// Whether loading means starting the service: then it must be this sidecar that starts it.
    #[must_use]
    pub fn needs_restart(&self) -> bool {
        match self {
            StateConfig::Http { .. } => false,
            StateConfig::Command { then, .. } => *then == Then::Restart,
            StateConfig::Directory { .. } => true,
        }
    }

    fn programs(&self) -> Vec<(&'static str, &[String])> {
        match self {
            StateConfig::Http { .. } => Vec::new(),
            StateConfig::Command { save, load, .. } => vec![("save", save), ("load", load)],
            StateConfig::Directory { before_save, .. } => vec![("before_save", before_save)],
        }
    }
}

/// Where an attached service listens: `http://HOST:PORT` or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Attach {
    address: String,
    is_near: bool,
}

impl Attach {
    /// `HOST:PORT` or `unix:PATH`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl TryFrom<String> for Attach {
    type Error = String;

    fn try_from(text: String) -> Result<Attach, String> {
        let wrong = || format!("{text:?} is no service to attach to: write \"http://HOST:PORT\" or \"unix:PATH\"");
        if let Some(path) = text.strip_prefix(UNIX) {
            return if path.is_empty() { Err(wrong()) } else { Ok(Attach { address: text, is_near: true }) };
        }
        let address = text.strip_prefix("http://").ok_or_else(wrong)?.trim_end_matches('/');
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        if host.is_empty() || address.contains(['/', '@', '?', '#', ' ']) || port.parse::<u16>().is_err() {
            return Err(wrong());
        }
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let is_near = host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback());
        Ok(Attach { address: address.to_owned(), is_near })
    }
}

impl ServiceConfig {
    /// Whether the parts fit together.
    ///
    /// # Errors
    /// Names the key and what to do.
    pub fn check_runner(&self) -> Result<(), String> {
        let name = &self.name;
        for (key, words) in self.state.iter().flat_map(StateConfig::programs) {
            if words.is_empty() && key != "before_save" {
                return Err(format!("service {name}: state.{key} is empty: write the program and its arguments"));
            }
        }
        let Some(attach) = &self.attach else { return Ok(()) };
        if !self.run.is_empty() {
            return Err(format!(
                "service {name}: `run` and `attach` are both set: somebody else starts an attached service; remove one"
            ));
        }
        if !attach.is_near && !self.attach_anywhere {
            return Err(format!(
                "service {name}: attach = {:?} is neither on this machine's loopback nor a Unix socket: another sidecar could feed it too; \
                 use 127.0.0.1, or set attach_anywhere = true if only this sidecar reaches it",
                attach.address
            ));
        }
        let Some(state) = &self.state else { return Ok(()) };
        if state.needs_restart() {
            return Err(format!(
                "service {name}: this state kind is loaded while the service does not run, and an attached service cannot be restarted from \
                 here: use state kind \"http\", or \"command\" with then = \"nothing\", or `run` instead of `attach`"
            ));
        }
        let mut words = state.programs().into_iter().flat_map(|(_, words)| words);
        if words.any(|word| word.contains(DATA)) {
            return Err(format!("service {name}: an attached service has no {DATA} folder: name the folder itself"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(more: &str) -> Result<(), String> {
        let text = format!(r#"{{ "name": "s", "listen": "127.0.0.1:1", {more} }}"#);
        let config: ServiceConfig = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        config.check_runner()
    }

    fn refused_for(more: &str, word: &str) {
        let refused = service(more).expect_err(more);
        assert!(refused.contains(word), "{refused}");
    }

    #[test]
    fn an_attached_service_is_near_unless_it_may_be_anywhere() {
        for near in ["http://127.0.0.1:80", "http://localhost:80/", "http://[::1]:80", "unix:/run/s.sock"] {
            assert_eq!(service(&format!(r#""attach": "{near}""#)), Ok(()), "{near}");
        }
        refused_for(r#""attach": "http://10.0.0.1:80""#, "attach_anywhere");
        assert_eq!(service(r#""attach": "http://10.0.0.1:80", "attach_anywhere": true"#), Ok(()));
        for wrong in ["127.0.0.1:80", "https://127.0.0.1:80", "http://127.0.0.1", "http://127.0.0.1:80/x", "unix:"] {
            refused_for(&format!(r#""attach": "{wrong}""#), "no service to attach to");
        }
    }

    #[test]
    fn what_needs_a_restart_cannot_be_attached() {
        let attach = r#""attach": "http://127.0.0.1:80""#;
        refused_for(&format!(r#"{attach}, "run": ["x"]"#), "`run` and `attach`");
        refused_for(&format!(r#"{attach}, "state": {{ "kind": "directory", "path": "/x" }}"#), "restarted");
        let command = |then: &str, word: &str| {
            format!(
                r#"{attach}, "state": {{ "kind": "command", "save": ["a", "{word}"], "load": ["b"], "then": "{then}" }}"#
            )
        };
        refused_for(&command("restart", ""), "restarted");
        refused_for(&command("nothing", "{data}"), "{data}");
        assert_eq!(service(&command("nothing", "")), Ok(()));
    }

    #[test]
    fn a_program_without_words_is_refused() {
        refused_for(r#""run": ["x"], "state": { "kind": "command", "save": [], "load": ["b"] }"#, "state.save");
    }
}
