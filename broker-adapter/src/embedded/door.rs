//! Who may come in to a broker that serves: nobody knocks twice. Decides before the port is opened, and for each connection.
//!
//! ```text
//! on loopback                            token and TLS if they are set
//! elsewhere      token and TLS           starts
//!                allow_remote = true     starts, with what is set: for networks on which every machine is trusted
//!                otherwise               refused, with all ways out
//! ```

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::shell::{Duplex, Shell};
use crate::tls::{TlsError, TlsFiles, TlsServer};

use super::token::{Token, TokenError, TokenFile};

/// What a server's configuration says.
#[derive(Clone, Debug, Default)]
pub struct DoorOptions {
    /// Where it will listen, as `HOST:PORT`.
    pub listen: String,
    /// A file with the tokens that it takes, one a line.
    pub token_file: Option<PathBuf>,
    /// With them it speaks TLS, and nothing else.
    pub tls: Option<TlsFiles>,
    /// Whether it may listen off loopback without both.
    pub allow_remote: bool,
    /// What stands before the keys: `host.`, or nothing.
    pub table: &'static str,
}

/// Why a server does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    /// Everybody who reaches it could read and write every log.
    #[error(
        "the embedded broker would listen on {address} ({table}listen), which other machines reach, without {missing}; set \
         {table}token_file = \"FILE\" and {table}tls = {{ certificate = \"FILE\", key = \"FILE\" }}, or listen on 127.0.0.1, or set \
         {table}allow_remote = true where only trusted machines reach it"
    )]
    Open {
        /// What was asked for.
        address: String,
        /// What stands before the keys.
        table: &'static str,
        /// What of the two is not set.
        missing: &'static str,
    },
    /// The tokens cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A server's door.
#[derive(Clone, Default)]
pub struct Door {
    tokens: Option<Arc<TokenFile>>,
    tls: Option<TlsServer>,
}

impl Door {
    /// Reads what the options name.
    ///
    /// # Errors
    /// [`DoorError`] says what to set.
    pub fn new(options: &DoorOptions, shell: &Shell) -> Result<Door, DoorError> {
        let table = options.table;
        let missing = match (&options.token_file, &options.tls) {
            (Some(_), Some(_)) => None,
            (None, Some(_)) => Some("a token"),
            (Some(_), None) => Some("TLS"),
            (None, None) => Some("a token and TLS"),
        };
        if let Some(missing) = missing.filter(|_| !options.allow_remote && !is_loopback(&options.listen)) {
            return Err(DoorError::Open { address: options.listen.clone(), table, missing });
        }
        let tokens = match &options.token_file {
            Some(path) => Some(Arc::new(TokenFile::open(path, &format!("{table}token_file"), shell)?)),
            None => None,
        };
        let tls = options.tls.as_ref().map(|files| TlsServer::new(files, &format!("{table}tls"))).transpose()?;
        Ok(Door { tokens, tls })
    }

    /// How it is guarded, for people.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        match (&self.tokens, &self.tls) {
            (Some(_), Some(_)) => "token and TLS",
            (Some(_), None) => "token, not encrypted",
            (None, Some(_)) => "TLS, no token",
            (None, None) => "neither token nor TLS",
        }
    }

    /// Whether it speaks TLS.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// The connection as the protocol uses it.
    pub(super) async fn enter(&self, connection: Box<dyn Duplex>) -> io::Result<Box<dyn Duplex>> {
        match &self.tls {
            Some(tls) => tls.accept(connection).await,
            None => Ok(connection),
        }
    }

    /// Why somebody with this token may not come in.
    pub(super) async fn refusal(&self, token: Option<&Token>, shell: &Shell) -> Option<&'static str> {
        let tokens = self.tokens.as_ref()?.current(shell).await;
        match token {
            None => {
                Some("it wants a token, and none was sent: set [segue] token_file = \"FILE\" to a file that holds it")
            }
            Some(token) if tokens.knows(token) => None,
            Some(_) => Some(
                "it does not know this token: the first line of the file that [segue] token_file names must stand in the broker's \
                 token_file, too",
            ),
        }
    }
}

/// Whether only programs of this machine reach an address.
#[must_use]
pub fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::real;

    #[test]
    fn only_loopback_is_of_this_machine() {
        for own in ["127.0.0.1:7272", "127.9.9.9:1", "localhost:7272", "[::1]:7272"] {
            assert!(is_loopback(own), "{own}");
        }
        for other in ["0.0.0.0:7272", "[::]:7272", "10.0.0.1:7272", "edge-a:7272", ":7272"] {
            assert!(!is_loopback(other), "{other}");
        }
    }

    #[test]
    fn off_loopback_a_broker_needs_token_and_tls_or_that_everybody_is_trusted() {
        let (shell, _process) = real::process();
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let own = rcgen::generate_simple_self_signed(vec!["edge-a".to_owned()]).unwrap();
        let token_file = Some(write("tokens", "0123456789abcdef\n"));
        let files = TlsFiles {
            certificate: write("cert.pem", &own.cert.pem()),
            key: write("key.pem", &own.key_pair.serialize_pem()),
        };
        let off = DoorOptions { listen: "0.0.0.0:0".to_owned(), table: "host.", ..DoorOptions::default() };
        let with_token = DoorOptions { token_file: token_file.clone(), ..off.clone() };
        let with_tls = DoorOptions { tls: Some(files.clone()), ..off.clone() };
        for (options, missing) in
            [(&off, "without a token and TLS;"), (&with_token, "without TLS;"), (&with_tls, "without a token;")]
        {
            let error = Door::new(options, &shell).map(|_| ()).unwrap_err().to_string();
            for told in [
                missing,
                "0.0.0.0:0 (host.listen)",
                "host.token_file =",
                "host.tls =",
                "127.0.0.1",
                "host.allow_remote = true",
            ] {
                assert!(error.contains(told), "{told}: {error}");
            }
            let near = DoorOptions { listen: "127.0.0.1:0".to_owned(), ..options.clone() };
            let trusted = DoorOptions { allow_remote: true, ..options.clone() };
            assert!(Door::new(&near, &shell).is_ok() && Door::new(&trusted, &shell).is_ok());
        }
        let both = Door::new(&DoorOptions { token_file, ..with_tls }, &shell).unwrap();
        assert_eq!((both.describe(), both.is_encrypted()), ("token and TLS", true));
    }
}
