//! The checkpoint store of a remote broker: a few connections, one request at a time on each.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};
use tokio::sync::Semaphore;

use crate::embedded::protocol::{Incoming, Outgoing, Role, StoreAnswer, StoreAsk, receive, send};
use crate::store::{CheckpointStore, OBJECT_LIMIT_BYTES, StoreError};

use super::{OpenError, RETRY_FIRST, RETRY_MAX, Target};

/// Requests on their way at a time; others wait.
const POOL_LIMIT_CONNECTIONS: usize = 8;
/// One request, from its sending to its answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How long a request is tried again over broken connections.
const RETRY_LIMIT: Duration = Duration::from_secs(5);

/// A pool of connections.
pub struct RemoteStore {
    target: Target,
    idle: Arc<Mutex<Vec<(Incoming, Outgoing)>>>,
    places: Arc<Semaphore>,
}

impl RemoteStore {
    pub fn new(target: Target) -> RemoteStore {
        let places = Arc::new(Semaphore::new(POOL_LIMIT_CONNECTIONS));
        RemoteStore { target, idle: Arc::default(), places }
    }

    /// All requests may be sent twice: objects are immutable and a second delete finds nothing.
    fn ask(&self, ask: StoreAsk) -> BoxFuture<'static, Result<StoreAnswer, StoreError>> {
        let (target, idle, places) = (self.target.clone(), self.idle.clone(), self.places.clone());
        async move {
            let _place = places.acquire().await.expect("the semaphore is never closed");
            let until = target.shell.now() + RETRY_LIMIT;
            let mut wait = RETRY_FIRST;
            loop {
                let error = match attempt(&target, &idle, &ask).await {
                    Ok(answer) => return Ok(answer),
                    Err(OpenError::Refused(error)) => return Err(StoreError::Unreachable(error.to_string())),
                    Err(OpenError::Io(error)) => error,
                };
                // Others in the pool broke with it.
                idle.lock().expect("nothing panics under this lock").clear();
                if target.shell.now() + wait >= until {
                    return Err(StoreError::Unreachable(error.to_string()));
                }
                target.shell.sleep(wait).await;
                wait = (2 * wait).min(RETRY_MAX);
            }
        }
        .boxed()
    }
}

type Idle = Mutex<Vec<(Incoming, Outgoing)>>;

async fn attempt(target: &Target, idle: &Idle, ask: &StoreAsk) -> Result<StoreAnswer, OpenError> {
    let known = idle.lock().expect("nothing panics under this lock").pop();
    let (mut incoming, mut outgoing) = match known {
        Some(connection) => connection,
        None => target.open(&Role::Store).await?,
    };
    let answered = async {
        send(&mut outgoing, ask).await?;
        receive::<StoreAnswer>(&mut incoming).await
    };
    let late = || std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time");
    let answer = target.shell.within(ANSWER_LIMIT, answered).await.ok_or_else(late)??;
    idle.lock().expect("nothing panics under this lock").push((incoming, outgoing));
    Ok(answer)
}

fn unexpected<T>(answer: StoreAnswer) -> Result<T, StoreError> {
    drop(answer);
    let reason = "the broker answered another question: use the same release on both sides";
    Err(StoreError::Unreachable(reason.to_owned()))
}

impl CheckpointStore for RemoteStore {
    fn put(&self, name: String, bytes: Bytes) -> BoxFuture<'static, Result<(), StoreError>> {
        if bytes.len() > OBJECT_LIMIT_BYTES {
            return future::ready(Err(StoreError::TooLarge(bytes.len() as u64))).boxed();
        }
        let answer = self.ask(StoreAsk::Put { name, bytes });
        async move {
            match answer.await? {
                StoreAnswer::Done(done) => done,
                other => unexpected(other),
            }
        }
        .boxed()
    }

    fn get(&self, name: String) -> BoxFuture<'static, Result<Bytes, StoreError>> {
        let answer = self.ask(StoreAsk::Get { name });
        async move {
            match answer.await? {
                StoreAnswer::Got(got) => got,
                other => unexpected(other),
            }
        }
        .boxed()
    }

    fn list(&self, prefix: String) -> BoxFuture<'static, Result<Vec<String>, StoreError>> {
        let answer = self.ask(StoreAsk::List { prefix });
        async move {
            match answer.await? {
                StoreAnswer::Names(names) => names,
                other => unexpected(other),
            }
        }
        .boxed()
    }

    fn delete(&self, name: String) -> BoxFuture<'static, Result<(), StoreError>> {
        let answer = self.ask(StoreAsk::Delete { name });
        async move {
            match answer.await? {
                StoreAnswer::Done(done) => done,
                other => unexpected(other),
            }
        }
        .boxed()
    }
}
