//! What needs no record (design section 3, "Reads"): `fresh`, `local` and `bypass`, and questions for kept replies.
//!
//! `fresh` asks the log for its tail, waits until a replica that may answer has applied it, then asks the service: that is
//! linearizable. If this node's replica may not answer, the owner's node is asked by mail. Everything here may be asked twice.

use std::sync::Arc;
use std::time::Duration;

use broker_adapter::ids::{Id128, MessageName, Position};
use broker_adapter::record::Request;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::asker::{Answered, Asker, Input};
use super::{Answer, header, paths};
use crate::command::{AskKept, AskRead, KeptAnswer, NodeMail, ReadAnswer, ReplicaState, Reply, encode, node_address};
use crate::config::route::Treatment;
use crate::service::{Limits, ServiceError};
use crate::shard::{Context, INBOX_INPUTS, ReplicaView, Views};

/// A question to another node that was not answered for so long is sent again, under the same name.
const ASK_AGAIN: Duration = Duration::from_millis(250);
pub(super) const RETRY_WAIT: Duration = Duration::from_millis(20);
/// How many reads are at the instance at once; more wait.
const READS_AT_ONCE_MAX: usize = 256;

/// Reads of one shard; cheap to clone.
#[derive(Clone)]
pub struct Reads {
    context: Context,
    views: Views,
    inbox: mpsc::Sender<Input>,
    room: Arc<Semaphore>,
}

impl Reads {
    /// Starts the task that asks for the tail and keeps the questions to other nodes.
    #[must_use]
    pub fn start(context: &Context, views: Views) -> Reads {
        let (inbox, inputs) = mpsc::channel(INBOX_INPUTS);
        let asker = Asker::new(context.clone(), inputs, views.replica.clone());
        context.shell.spawn(asker.run());
        let room = Arc::new(Semaphore::new(READS_AT_ONCE_MAX));
        Reads { context: context.clone(), views, inbox, room }
    }

    /// A read for a client of this ingress.
    pub async fn read(&self, request: Request, how: Treatment) -> Answer {
        let limit = self.context.config.reply_timeout();
        let reply = async {
            match how {
                Treatment::Local => self.local(&request).await,
                _ => self.fresh(&request).await,
            }
        };
        match self.context.shell.within(limit, reply).await {
            Some(reply) => Answer::Reply(reply),
            None => Answer::Unavailable {
                code: "read-timeout",
                detail: format!("no replica could answer within {} ms", limit.as_millis()),
            },
        }
    }

    async fn fresh(&self, request: &Request) -> Reply {
        loop {
            if let Some(tail) = self.tail().await {
                let reply = if self.may_answer_here() {
                    self.after(tail, request).await
                } else {
                    self.remote(tail, request, false).await
                };
                if let Some(reply) = reply {
                    return reply;
                }
            }
            self.context.shell.sleep(RETRY_WAIT).await;
        }
    }

    /// At once on this node's replica; where none may answer, at once on the owner's.
    async fn local(&self, request: &Request) -> Reply {
        loop {
            let view = self.views.replica.borrow().clone();
            let reply = if view.may_answer && view.reader.is_some() {
                self.ask_service(&view, request).await
            } else {
                self.remote(Position::ZERO, request, false).await
            };
            if let Some(reply) = reply {
                return reply;
            }
            self.context.shell.sleep(RETRY_WAIT).await;
        }
    }

    /// Straight to this node's instance, or to the owner's if there is none here; tried once, because it may be any method.
    pub async fn bypass(&self, request: Request) -> Answer {
        let view = self.views.replica.borrow().clone();
        if view.reader.is_some() {
            let _place = self.room.acquire().await;
            return match self.ask(&view, &request, false).await {
                Ok(reply) => Answer::Reply(reply),
                Err(error) => Answer::Refused {
                    status: 502,
                    code: "bypass-broken",
                    detail: format!("{error}; it was not logged"),
                },
            };
        }
        let limit = self.context.config.reply_timeout();
        match self.context.shell.within(limit, self.remote(Position::ZERO, &request, true)).await {
            Some(Some(reply)) => Answer::Reply(reply),
            Some(None) => Answer::Refused {
                status: 502,
                code: "bypass-broken",
                detail: "there is no instance here, and the owner's did not answer; it was not logged".to_owned(),
            },
            None => Answer::Refused {
                status: 504,
                code: "bypass-timeout",
                detail: format!("no instance answered within {} ms; it was not logged", limit.as_millis()),
            },
        }
    }

    /// Another node asks this one's replica.
    pub async fn answer(&self, ask: AskRead) {
        let (sender, is_new) = oneshot::channel();
        if self.inbox.send(Input::Begin { id: ask.id, is_new: sender }).await.is_err() || is_new.await != Ok(true) {
            return;
        }
        let limit = self.context.config.reply_timeout();
        let reply = async {
            if self.context.hidden.has(&ask.request.path) {
                return Some(paths::hidden(&ask.request.path).into_reply());
            }
            let view = self.views.replica.borrow().clone();
            if ask.bypass {
                let _place = self.room.acquire().await;
                return self.ask(&view, &ask.request, false).await.ok();
            }
            self.after(ask.applied, &ask.request).await
        };
        let reply = self.context.shell.within(limit, reply).await.flatten();
        let applied = self.views.replica.borrow().applied;
        let answer = ReadAnswer { shard: ask.shard, id: ask.id, applied, reply };
        self.context.mailbox.send(&node_address(&ask.ingress.node), encode(&NodeMail::ReadAnswer(answer)));
        // The task ends with the process.
        let _ = self.inbox.send(Input::End(ask.id)).await;
    }

    /// The answer to a question of ours.
    pub fn answered(&self, answer: ReadAnswer) {
        // A full inbox: the question is asked again.
        let _ = self.inbox.try_send(Input::Answered { id: answer.id, answer: Box::new(Answered::Read(answer)) });
    }

    /// The answer to a question of ours.
    pub fn kept_answered(&self, answer: KeptAnswer) {
        // A full inbox: the question is asked again.
        let _ = self.inbox.try_send(Input::Answered { id: answer.id, answer: Box::new(Answered::Kept(answer)) });
    }

    /// What the present owner has kept for a message.
    pub async fn kept(&self, name: MessageName) -> KeptAnswer {
        loop {
            let mail = |id| {
                let (shard, ingress) = (self.context.shard.clone(), self.context.me.clone());
                NodeMail::AskKept(AskKept { shard, id, name, ingress })
            };
            if let Some(Answered::Kept(answer)) = self.ask_owner(mail, true).await
                && answer.owns
            {
                return answer;
            }
            self.context.shell.sleep(RETRY_WAIT).await;
        }
    }

    fn may_answer_here(&self) -> bool {
        let view = self.views.replica.borrow();
        let runs = matches!(view.state, ReplicaState::Following | ReplicaState::Replaying);
        runs && (view.may_answer || self.views.tail.borrow().owner.as_ref() == Some(&self.context.me))
    }

    /// The log's last position.
    pub async fn tail(&self) -> Option<Position> {
        let (sender, tail) = oneshot::channel();
        self.inbox.send(Input::Tail(sender)).await.ok()?;
        tail.await.ok()?.ok()
    }

    /// Waits until this node's replica has applied `tail`, and asks its service; `None` if it may not answer.
    async fn after(&self, tail: Position, request: &Request) -> Option<Reply> {
        let (reached, view) = oneshot::channel();
        self.inbox.send(Input::Applied { tail, reached }).await.ok()?;
        let view = view.await.ok()?;
        if view.may_answer && view.applied >= tail { self.ask_service(&view, request).await } else { None }
    }

    async fn ask_service(&self, view: &ReplicaView, request: &Request) -> Option<Reply> {
        let _place = self.room.acquire().await;
        match self.ask(view, request, true).await {
            Ok(reply) => Some(reply),
            Err(error) => {
                tracing::debug!(%error, "a read failed; it is tried again");
                None
            }
        }
    }

    /// Asks this node's instance, `again` over another connection if an idle one had been closed.
    async fn ask(&self, view: &ReplicaView, request: &Request, again: bool) -> Result<Reply, ServiceError> {
        let Some(reader) = &view.reader else {
            let reason = "this node's replica has no instance now".to_owned();
            return Err(ServiceError::Connect { address: self.context.me.node.to_string(), reason });
        };
        let limits = Limits {
            time: self.context.config.delivery_timeout(),
            reply_bytes: self.context.config.new_settings().reply_limit_bytes,
        };
        let extra = [("segue-position", view.applied.to_string())];
        let mut reply = if again {
            reader.ask(request, &extra, limits).await?
        } else {
            reader.ask_once(request, &extra, limits).await?
        };
        reply.headers.push(header("segue-position", &view.applied.to_string()));
        Ok(reply)
    }

    async fn remote(&self, applied: Position, request: &Request, bypass: bool) -> Option<Reply> {
        let mail = |id| {
            let (shard, ingress) = (self.context.shard.clone(), self.context.me.clone());
            NodeMail::AskRead(AskRead { shard, id, applied, request: request.clone(), bypass, ingress })
        };
        match self.ask_owner(mail, !bypass).await? {
            Answered::Read(answer) => answer.reply,
            Answered::Kept(_) => None,
        }
    }

    /// Asks the owner's node, again and again under one name while it stays the owner; `None` if it does not.
    async fn ask_owner(&self, mail: impl Fn(Id128) -> NodeMail, again: bool) -> Option<Answered> {
        let owner = self.views.tail.borrow().owner.clone()?;
        let id = self.context.shell.random();
        let (sender, mut answer) = oneshot::channel();
        self.inbox.send(Input::Expect { id, answer: sender }).await.ok()?;
        let bytes = encode(&mail(id));
        self.context.mailbox.send(&node_address(&owner.node), bytes.clone());
        loop {
            match self.context.shell.within(ASK_AGAIN, &mut answer).await {
                Some(answer) => return answer.ok().map(|answer| *answer),
                None if self.views.tail.borrow().owner.as_ref() != Some(&owner) => return None,
                None if again => self.context.mailbox.send(&node_address(&owner.node), bytes.clone()),
                None => {}
            }
        }
    }
}
