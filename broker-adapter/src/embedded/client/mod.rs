//! The `segue://HOST:PORT` client: another process's embedded broker.
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
use crate::shell::Shell;
use crate::store::CheckpointStore;

use super::protocol::{self, Incoming, Opening, Outgoing, PROTOCOL, Role, Welcome};

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
}

impl SegueBroker {
    /// Reaches the broker at `HOST:PORT`; waits a few seconds for one that is about to start.
    ///
    /// # Errors
    /// [`ConnectError::Unreachable`] if nobody answers there.
    pub async fn connect(address: &str, shell: &Shell) -> Result<SegueBroker, ConnectError> {
        let target = Target { address: address.to_owned(), shell: shell.clone() };
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
    fn url(&self) -> String {
        format!("segue://{}", self.address)
    }

    /// One attempt.
    async fn open(&self, role: &Role) -> Result<(Incoming, Outgoing), OpenError> {
        let attempt = async {
            let (mut incoming, mut outgoing) = protocol::frames(self.shell.connect(&self.address).await?);
            protocol::send(&mut outgoing, &Opening { protocol: PROTOCOL, role: role.clone() }).await?;
            Ok::<_, io::Error>((protocol::receive::<Welcome>(&mut incoming).await?, incoming, outgoing))
        };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
        let (welcome, incoming, outgoing) = self.shell.within(CONNECT_LIMIT, attempt).await.ok_or_else(late)??;
        welcome.into_result(&self.url()).map_err(OpenError::Refused)?;
        Ok((incoming, outgoing))
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
