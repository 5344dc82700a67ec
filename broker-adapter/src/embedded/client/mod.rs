//! The `segue://HOST:PORT` client, and `segues://HOST:PORT` inside TLS: another process's embedded broker.
//!
//! Reconnects by itself. What was sent and not answered when a connection breaks is `Unknown`; what was never sent is
//! `Unreachable`; reads end and are read again by their [`Follower`](crate::follow::Follower).

mod appends;
mod objects;
mod post;
mod reads;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::broker::{Broker, ConnectError};
use crate::log::MessageLog;
use crate::mailbox::Mailbox;
use crate::shell::{Duplex, Shell};
use crate::store::CheckpointStore;
use crate::tls::{HandshakeError, TlsClient};

use super::door::is_loopback;
use super::options::SegueOptions;
use super::protocol::{self, Incoming, Opening, Outgoing, PROTOCOL, Role, Welcome};
use super::token::TokenFile;

/// The first wait after a failed connect; doubled up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(200);
/// One attempt to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How long a new handle waits for its broker.
const OPEN_LIMIT: Duration = Duration::from_secs(5);

/// A connection to somebody else's embedded broker.
pub struct SegueBroker {
    target: Target,
    store: Arc<objects::RemoteStore>,
    mail: Arc<post::RemoteMail>,
}

/// Whom to reach, and by what.
#[derive(Clone)]
struct Target {
    address: String,
    shell: Shell,
    tls: Option<TlsClient>,
    tokens: Option<Arc<TokenFile>>,
}

/// What stands in front of a URL of ours.
const PLAIN: &str = "segue://";
const ENCRYPTED: &str = "segues://";

/// Whether such a URL is for this client.
#[must_use]
pub fn is_ours(url: &str) -> bool {
    url.starts_with(PLAIN) || url.starts_with(ENCRYPTED)
}

impl SegueBroker {
    /// Reaches the broker at `segue://HOST:PORT` or `segues://HOST:PORT`; waits a few seconds for one that is about to start.
    ///
    /// # Errors
    /// [`ConnectError`]: if that is no URL, if a file of `options` cannot be used, or if nobody lets us in there.
    pub async fn connect(url: &str, options: &SegueOptions, shell: &Shell) -> Result<SegueBroker, ConnectError> {
        let target = Target::of(url, options, shell)?;
        target.open_patiently(&Role::Store).await?;
        let store = Arc::new(objects::RemoteStore::new(target.clone()));
        let mail = post::RemoteMail::start(target.clone());
        Ok(SegueBroker { target, store, mail })
    }
}

impl Broker for SegueBroker {
    fn log(&self, name: &str) -> BoxFuture<'static, Result<Arc<dyn MessageLog>, ConnectError>> {
        let (target, name) = (self.target.clone(), name.to_owned());
        async move {
            let log: Arc<dyn MessageLog> = Arc::new(appends::RemoteLog::open(target, name).await?);
            Ok(log)
        }
        .boxed()
    }

    fn store(&self) -> Arc<dyn CheckpointStore> {
        self.store.clone()
    }

    fn mailbox(&self) -> Arc<dyn Mailbox> {
        self.mail.clone()
    }

    fn url(&self) -> String {
        self.target.url()
    }
}

/// Why there is no connection of a role.
#[derive(Debug)]
enum OpenError {
    /// Try again.
    Io(io::Error),
    /// The server does not want it.
    Refused(ConnectError),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> OpenError {
        OpenError::Io(error)
    }
}

impl Target {
    fn of(url: &str, options: &SegueOptions, shell: &Shell) -> Result<Target, ConnectError> {
        let (is_encrypted, rest) = match url.strip_prefix(ENCRYPTED) {
            Some(rest) => (true, rest),
            None => (false, url.strip_prefix(PLAIN).unwrap_or_default()),
        };
        let address = rest.trim_end_matches('/');
        let fits = address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !fits {
            return Err(ConnectError::BadUrl(url.to_owned()));
        }
        let failed = |reason: String| ConnectError::Unreachable { url: url.to_owned(), reason };
        if !is_encrypted && options.ca.is_some() {
            let problems =
                format!("it names a ca, and {url} is not encrypted: write {ENCRYPTED}{address}, or take ca out");
            return Err(ConnectError::Settings { what: "[segue]".to_owned(), problems });
        }
        let client = || TlsClient::new(address, options.ca.as_deref(), "[segue] ca");
        let tls = is_encrypted.then(client).transpose().map_err(|error| failed(error.to_string()))?;
        let open = |path| TokenFile::open(path, "[segue] token_file", shell).map(Arc::new);
        let tokens = options.token_file.as_deref().map(open).transpose().map_err(|error| failed(error.to_string()))?;
        if tokens.is_some() && !is_encrypted && !is_loopback(address) {
            tracing::warn!(url, "the token goes there unencrypted: use segues:// where not every machine is trusted");
        }
        Ok(Target { address: address.to_owned(), shell: shell.clone(), tls, tokens })
    }

    fn url(&self) -> String {
        format!("{}{}", if self.tls.is_some() { ENCRYPTED } else { PLAIN }, self.address)
    }

    fn refused(&self, reason: String) -> OpenError {
        OpenError::Refused(ConnectError::Unreachable { url: self.url(), reason })
    }

    /// One attempt.
    async fn open(&self, role: &Role) -> Result<(Incoming, Outgoing), OpenError> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
        self.shell.within(CONNECT_LIMIT, self.attempt(role)).await.ok_or_else(late)?
    }

    async fn attempt(&self, role: &Role) -> Result<(Incoming, Outgoing), OpenError> {
        let connection = self.enter(self.shell.connect(&self.address).await?).await?;
        let token = match &self.tokens {
            Some(tokens) => Some(tokens.first(&self.shell).await),
            None => None,
        };
        let (mut incoming, mut outgoing) = protocol::frames(connection);
        protocol::send(&mut outgoing, &Opening { protocol: PROTOCOL, role: role.clone(), token }).await?;
        match protocol::receive::<Welcome>(&mut incoming).await {
            Ok(welcome) => welcome.into_result(&self.url()).map_err(OpenError::Refused)?,
            Err(_) if protocol::is_tls(&incoming) => {
                let address = &self.address;
                return Err(self.refused(format!(
                    "it speaks TLS: write {ENCRYPTED}{address}, and name who signed its certificate as [segue] ca"
                )));
            }
            Err(error) => return Err(error.into()),
        }
        Ok((incoming, outgoing))
    }

    async fn enter(&self, connection: Box<dyn Duplex>) -> Result<Box<dyn Duplex>, OpenError> {
        let Some(tls) = &self.tls else { return Ok(connection) };
        tls.connect(connection).await.map_err(|error| {
            let hint = match &error {
                HandshakeError::Io(_) | HandshakeError::Failed(_) => String::new(),
                HandshakeError::NotTls(_) => {
                    format!(": give the broker tls = {{ certificate, key }}, or write {PLAIN}{}", self.address)
                }
                HandshakeError::Untrusted(_) => {
                    ": name who signed it as [segue] ca, and the host as the certificate has it".to_owned()
                }
            };
            match error {
                HandshakeError::Io(error) => error.into(),
                error => self.refused(format!("{error}{hint}")),
            }
        })
    }

    /// Attempts until the bound for new handles is over.
    async fn open_patiently(&self, role: &Role) -> Result<(Incoming, Outgoing), ConnectError> {
        let until = self.shell.now() + OPEN_LIMIT;
        let mut wait = RETRY_FIRST;
        loop {
            match self.open(role).await {
                Ok(connection) => return Ok(connection),
                Err(OpenError::Refused(error)) => return Err(error),
                Err(OpenError::Io(error)) if self.shell.now() + wait >= until => {
                    let reason = format!("{error}; is `segue broker` running there?");
                    return Err(ConnectError::Unreachable { url: self.url(), reason });
                }
                Err(OpenError::Io(_)) => {}
            }
            self.shell.sleep(wait).await;
            wait = (2 * wait).min(RETRY_MAX);
        }
    }
}
