//! Safe methods need no record (design section 3, "Reads"): ask the log for its tail, wait until a replica that may answer has
//! applied it, then ask the service. That is linearizable, and one question serves all reads that wait.
//!
//! If this node's replica may not answer, the owner's node is asked by mail.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_adapter::ids::{Id128, Position};
use broker_adapter::log::ReadError;
use broker_adapter::record::Request;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use super::Answer;
use crate::command::{AskRead, NodeMail, ReadAnswer, ReplicaState, Reply, encode, node_address};
use crate::service::Limits;
use crate::shard::{Context, INBOX_INPUTS, ReplicaView, Views};

/// A question to another node that was not answered for so long is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(250);
const RETRY_WAIT: Duration = Duration::from_millis(20);

enum Input {
    Applied { tail: Position, reached: oneshot::Sender<ReplicaView> },
    Tail(oneshot::Sender<Result<Position, ReadError>>),
    Expect { id: Id128, answer: oneshot::Sender<ReadAnswer> },
    Answered(ReadAnswer),
    Forget(Id128),
}

/// Reads of one shard; cheap to clone.
#[derive(Clone)]
pub struct Reads {
    context: Context,
    views: Views,
    inbox: mpsc::Sender<Input>,
}

impl Reads {
    /// Starts the task that asks for the tail and keeps the questions to other nodes.
    #[must_use]
    pub fn start(context: &Context, views: Views) -> Reads {
        let (inbox, inputs) = mpsc::channel(INBOX_INPUTS);
        let task = Asker {
            context: context.clone(),
            inputs,
            replica: views.replica.clone(),
            waiting: Vec::new(),
            applied: Vec::new(),
            expected: BTreeMap::new(),
        };
        context.shell.spawn(task.run());
        Reads { context: context.clone(), views, inbox }
    }

    /// A `fresh` read for a client of this ingress.
    pub async fn fresh(&self, request: Request) -> Answer {
        let limit = self.context.config.reply_timeout();
        match self.context.shell.within(limit, self.try_fresh(request)).await {
            Some(reply) => Answer::Reply(reply),
            None => Answer::Unavailable {
                code: "read-timeout",
                detail: format!("no replica could answer within {} ms", limit.as_millis()),
            },
        }
    }

    async fn try_fresh(&self, request: Request) -> Reply {
        loop {
            if let Some(tail) = self.tail().await {
                let view = self.views.replica.borrow().clone();
                let local = matches!(view.state, ReplicaState::Following | ReplicaState::Replaying);
                let reply = if local && (view.may_answer || self.owner_is_here()) {
                    self.local(tail, &request).await
                } else {
                    self.remote(tail, &request).await
                };
                if let Some(reply) = reply {
                    return reply;
                }
            }
            self.context.shell.sleep(RETRY_WAIT).await;
        }
    }

    /// Another node asks this one's replica.
    pub async fn answer(&self, ask: AskRead) {
        let limit = self.context.config.reply_timeout();
        let reply = self.context.shell.within(limit, self.local(ask.applied, &ask.request)).await.flatten();
        let applied = self.views.replica.borrow().applied;
        let answer = ReadAnswer { shard: ask.shard, id: ask.id, applied, reply };
        self.context.mailbox.send(&node_address(&ask.ingress.node), encode(&NodeMail::ReadAnswer(answer)));
    }

    /// The answer to a question of ours.
    pub fn answered(&self, answer: ReadAnswer) {
        // A full inbox: the question is asked again.
        let _ = self.inbox.try_send(Input::Answered(answer));
    }

    fn owner_is_here(&self) -> bool {
        self.views.tail.borrow().owner.as_ref() == Some(&self.context.me)
    }

    async fn tail(&self) -> Option<Position> {
        let (sender, tail) = oneshot::channel();
        self.inbox.send(Input::Tail(sender)).await.ok()?;
        tail.await.ok()?.ok()
    }

    /// Waits until this node's replica has applied `tail`, and asks its service; `None` if it may not answer.
    async fn local(&self, tail: Position, request: &Request) -> Option<Reply> {
        let (reached, view) = oneshot::channel();
        self.inbox.send(Input::Applied { tail, reached }).await.ok()?;
        let view = view.await.ok()?;
        let reader = view.reader.filter(|_| view.may_answer && view.applied >= tail)?;
        let limits = Limits {
            time: self.context.config.delivery_timeout(),
            reply_bytes: self.context.config.settings.reply_limit_bytes,
        };
        let extra = [("segue-position", view.applied.to_string())];
        match reader.ask(request, &extra, limits).await {
            Ok(reply) => Some(reply),
            Err(error) => {
                tracing::debug!(%error, "a read failed; it is tried again");
                None
            }
        }
    }

    async fn remote(&self, tail: Position, request: &Request) -> Option<Reply> {
        let owner = self.views.tail.borrow().owner.clone()?;
        let id = self.context.shell.random();
        let (sender, answer) = oneshot::channel();
        self.inbox.send(Input::Expect { id, answer: sender }).await.ok()?;
        let ask = AskRead {
            shard: self.context.shard.clone(),
            id,
            applied: tail,
            request: request.clone(),
            ingress: self.context.me.clone(),
        };
        self.context.mailbox.send(&node_address(&owner.node), encode(&NodeMail::AskRead(ask)));
        let answer = self.context.shell.within(ASK_AGAIN, answer).await;
        // The task forgets a question that nobody waits for any more.
        let _ = self.inbox.try_send(Input::Forget(id));
        answer?.ok()?.reply
    }
}

/// Owns everything that reads wait for, in the order in which they came.
struct Asker {
    context: Context,
    inputs: mpsc::Receiver<Input>,
    replica: watch::Receiver<ReplicaView>,
    waiting: Vec<oneshot::Sender<Result<Position, ReadError>>>,
    applied: Vec<(Position, oneshot::Sender<ReplicaView>)>,
    expected: BTreeMap<Id128, oneshot::Sender<ReadAnswer>>,
}

impl Asker {
    async fn run(mut self) {
        let mut asked: Vec<oneshot::Sender<Result<Position, ReadError>>> = Vec::new();
        let mut question: Option<BoxFuture<'static, Result<Position, ReadError>>> = None;
        loop {
            if question.is_none() && !self.waiting.is_empty() {
                // Only who waited before the question was asked may have its answer.
                asked = std::mem::take(&mut self.waiting);
                question = Some(self.context.log.tail());
            }
            let answer = async {
                match &mut question {
                    Some(question) => question.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! { biased;
                tail = answer => {
                    question = None;
                    for waiting in asked.drain(..) {
                        // The client may have gone.
                        let _ = waiting.send(tail.clone());
                    }
                }
                changed = self.replica.changed(), if !self.applied.is_empty() => match changed {
                    Ok(()) => self.tell_reached(),
                    // The replica's task ended, and with it the process.
                    Err(_) => return,
                },
                input = self.inputs.recv() => match input {
                    None => return,
                    Some(input) => self.input(input),
                },
            }
        }
    }

    /// Tells those whose position the replica has applied, or who wait in vain because it does not run.
    fn tell_reached(&mut self) {
        let view = self.replica.borrow_and_update().clone();
        let runs = matches!(view.state, ReplicaState::Following | ReplicaState::Replaying);
        for (tail, reached) in std::mem::take(&mut self.applied) {
            if view.applied >= tail || !runs {
                // The client may have gone.
                let _ = reached.send(view.clone());
            } else {
                self.applied.push((tail, reached));
            }
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Tail(waiting) => self.waiting.push(waiting),
            Input::Applied { tail, reached } => {
                self.applied.push((tail, reached));
                self.tell_reached();
            }
            Input::Expect { id, answer } => {
                self.expected.insert(id, answer);
            }
            Input::Answered(answer) => {
                if let Some(expected) = self.expected.remove(&answer.id) {
                    // The client may have gone.
                    let _ = expected.send(answer);
                }
            }
            Input::Forget(id) => {
                self.expected.remove(&id);
            }
        }
    }
}

/// Whether a method changes nothing (RFC 9110, section 9.2.1) and needs no record.
#[must_use]
pub fn is_safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS")
}
