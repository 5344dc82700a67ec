//! Reads beside the deliveries: an answer counts only if it comes from the instance whose state is known, while it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use broker_adapter::record::Request;
use broker_adapter::shell::Shell;
use tokio::sync::{Mutex, oneshot};

use super::{Connection, Limits, ServiceError};
use crate::command::Reply;

/// How many connections wait for the next question.
const IDLE_MAX: usize = 8;

/// Asks one loaded instance; cheap to clone. Worthless once the [`Reading`] that gave it is gone.
#[derive(Clone, Debug)]
pub struct Reader {
    inner: Arc<Inner>,
}

struct Inner {
    address: String,
    shell: Shell,
    way: Way,
    ended: AtomicBool,
}

enum Way {
    /// Any connection: the process is ours, or its answers carry the token. Some that were used wait for the next question.
    Open { token: Option<String>, idle: std::sync::Mutex<Vec<Connection>> },
    /// The one connection that was open at the load, for one question after the other.
    Held(Mutex<Connection>),
}

/// The right to read an instance; dropping it ends what was read and not yet answered.
pub struct Reading {
    reader: Reader,
}

impl Reading {
    /// An instance that is known by its process, or by its token.
    #[must_use]
    pub fn open(address: &str, token: Option<String>, shell: &Shell) -> Reading {
        Self::new(address, Way::Open { token, idle: std::sync::Mutex::default() }, shell)
    }

    /// An instance that is known by this connection.
    #[must_use]
    pub fn held(address: &str, connection: Connection, shell: &Shell) -> Reading {
        Self::new(address, Way::Held(Mutex::new(connection)), shell)
    }

    fn new(address: &str, way: Way, shell: &Shell) -> Reading {
        let inner = Inner { address: address.to_owned(), shell: shell.clone(), way, ended: AtomicBool::new(false) };
        Reading { reader: Reader { inner: Arc::new(inner) } }
    }

    /// What others ask with.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.reader.inner.ended.store(true, Ordering::SeqCst);
        if let Way::Open { idle, .. } = &self.reader.inner.way {
            idle.lock().expect("nothing panics under this lock").clear();
        }
    }
}

impl Reader {
    /// Asks; over another connection, if the service has closed the first as idle.
    ///
    /// # Errors
    /// There is no answer, or it is not that of the instance.
    pub async fn ask(
        &self,
        request: &Request,
        extra: &[(&'static str, String)],
        limits: Limits,
    ) -> Result<Reply, ServiceError> {
        if let Some(connection) = self.idle_connection()
            && let Ok(reply) = self.ask_over(connection, request, extra, limits).await
        {
            return Ok(reply);
        }
        self.ask_once(request, extra, limits).await
    }

    /// Asks once, whatever comes of it.
    ///
    /// # Errors
    /// There is no answer, or it is not that of the instance.
    pub async fn ask_once(
        &self,
        request: &Request,
        extra: &[(&'static str, String)],
        limits: Limits,
    ) -> Result<Reply, ServiceError> {
        match &self.inner.way {
            Way::Open { token, .. } => {
                let connection = Connection::expecting(&self.inner.address, token.clone(), &self.inner.shell).await?;
                self.ask_over(connection, request, extra, limits).await
            }
            Way::Held(_) => {
                let reply = self.ask_held(request.clone(), extra.to_vec(), limits).await?;
                self.still(reply)
            }
        }
    }

    async fn ask_over(
        &self,
        mut connection: Connection,
        request: &Request,
        extra: &[(&'static str, String)],
        limits: Limits,
    ) -> Result<Reply, ServiceError> {
        let reply = self.still(connection.deliver(request, extra, limits).await?)?;
        if let Way::Open { idle, .. } = &self.inner.way {
            let mut idle = idle.lock().expect("nothing panics under this lock");
            if idle.len() < IDLE_MAX && !connection.is_closed() {
                idle.push(connection);
            }
        }
        Ok(reply)
    }

    fn idle_connection(&self) -> Option<Connection> {
        let Way::Open { idle, .. } = &self.inner.way else { return None };
        let mut idle = idle.lock().expect("nothing panics under this lock");
        while let Some(connection) = idle.pop() {
            if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    /// Another state may be on its way into an attached instance.
    fn still(&self, reply: Reply) -> Result<Reply, ServiceError> {
        if self.inner.ended.load(Ordering::SeqCst) {
            let reason = "its state became unknown before the answer was there".to_owned();
            return Err(ServiceError::Restarted { address: self.inner.address.clone(), reason });
        }
        Ok(reply)
    }

    /// A task of its own: a client that goes away must not break the connection off.
    async fn ask_held(
        &self,
        request: Request,
        extra: Vec<(&'static str, String)>,
        limits: Limits,
    ) -> Result<Reply, ServiceError> {
        let (sender, answer) = oneshot::channel();
        let inner = self.inner.clone();
        self.inner.shell.spawn(async move {
            if let Way::Held(connection) = &inner.way {
                let mut connection = connection.lock().await;
                if !sender.is_closed() {
                    // The client may have gone meanwhile.
                    let _ = sender.send(connection.deliver(&request, &extra, limits).await);
                }
            }
        });
        let gone = || ServiceError::Restarted {
            address: self.inner.address.clone(),
            reason: "nobody reads from it any more".to_owned(),
        };
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Keeps the held connection in use, so that the service does not close it as idle; one that is being used needs nothing.
    ///
    /// # Errors
    /// It was closed, so the instance may be another.
    pub async fn keep(&self, ready: &str, limit: Duration) -> Result<(), ServiceError> {
        let Way::Held(connection) = &self.inner.way else { return Ok(()) };
        match connection.try_lock() {
            Ok(mut connection) => connection.probe(ready, limit).await,
            Err(_) => Ok(()),
        }
    }

    /// Whether the held connection was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match &self.inner.way {
            Way::Open { .. } => false,
            Way::Held(connection) => connection.try_lock().is_ok_and(|connection| connection.is_closed()),
        }
    }
}

impl PartialEq for Reader {
    fn eq(&self, other: &Reader) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for Reader {}

impl std::fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reader").field("address", &self.address).finish_non_exhaustive()
    }
}
