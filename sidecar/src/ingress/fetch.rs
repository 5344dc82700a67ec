//! `GET /segue/replies/{key}`: the reply of a request that was sent before, without a record.
//!
//! The fold at the log's tail knows whether a message with that key counted, and under which name; its reply is the present owner's
//! to give. So every ingress answers alike, whichever held the client before.

use std::time::Duration;

use broker_adapter::fold::Found;
use broker_adapter::ids::MessageName;
use broker_adapter::record::Key;
use tokio::sync::{mpsc, oneshot};

use super::Answer;
use super::reads::Reads;
use super::request::check_key;
use super::waiting::{key_of, signed};
use crate::command::KeptAnswer;
use crate::shard::{Context, Views};

/// How many questions may wait at the ingress's task.
pub const QUESTIONS_MAX: usize = 1_024;

/// How long the owner may take to say whether it has the reply; then the client is told to ask again.
const OWNER_WAIT: Duration = Duration::from_secs(1);

/// Asks the ingress's task what its fold knows of a key.
pub struct Question {
    pub(super) key: Key,
    pub(super) answer: oneshot::Sender<Known>,
}

/// What an ingress knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// What the log says.
    Log(Found),
    /// This ingress has sent it and not read it back yet.
    Sent,
}

/// Fetches kept replies; cheap to clone.
#[derive(Clone)]
pub(super) struct Fetch {
    pub context: Context,
    pub reads: Reads,
    pub views: Views,
    pub questions: mpsc::Sender<Question>,
}

impl Fetch {
    /// The reply of `key`, or what else is known of it.
    pub async fn reply(&self, method: &str, key: &str) -> Answer {
        if !matches!(method, "GET" | "HEAD") {
            let detail = format!("a kept reply is fetched by GET, not {method}");
            return Answer::Refused { status: 405, code: "no-such-method", detail };
        }
        if let Err(refused) = check_key(key) {
            return refused;
        }
        let limit = self.context.config.reply_timeout();
        let found = self.context.shell.within(limit, self.find(key)).await;
        found.unwrap_or_else(|| Answer::Unavailable {
            code: "read-timeout",
            detail: format!("the log's tail was not known within {} ms; ask again", limit.as_millis()),
        })
    }

    async fn find(&self, shown: &str) -> Answer {
        let known = match self.known(shown).await {
            Ok(known) => known,
            Err(answer) => return answer,
        };
        match known {
            Known::Log(Found::Counted(name)) => self.of_owner(name, shown).await,
            Known::Sent => Answer::Pending { key: shown.to_owned() },
            Known::Log(Found::Expired) => Answer::Refused {
                status: 410,
                code: "key-expired",
                detail: "the key is too old: nobody can tell any more whether its request was applied".to_owned(),
            },
            Known::Log(Found::Unknown) => Answer::Refused {
                status: 404,
                code: "key-unknown",
                detail: "no request with this key is in the log, or it is forgotten; send the request with it as Idempotency-Key"
                    .to_owned(),
            },
        }
    }

    /// What the fold says at a tail that is not older than the question.
    async fn known(&self, shown: &str) -> Result<Known, Answer> {
        let stopped = || Answer::Unavailable {
            code: "log-unreadable",
            detail: "the log cannot be read: see /readyz?verbose of the sidecar".to_owned(),
        };
        let tail = loop {
            match self.reads.tail().await {
                Some(tail) => break tail,
                None => self.context.shell.sleep(super::reads::RETRY_WAIT).await,
            }
        };
        let mut view = self.views.tail.clone();
        let reached = view.wait_for(|view| view.position >= tail || view.trouble.is_some()).await;
        if !reached.is_ok_and(|view| view.trouble.is_none()) {
            return Err(stopped());
        }
        let (answer, known) = oneshot::channel();
        let question = Question { key: key_of(shown), answer };
        self.questions.try_send(question).map_err(|_| Answer::Unavailable {
            code: "ingress-busy",
            detail: "the ingress has more questions than it can take in".to_owned(),
        })?;
        known.await.map_err(|_| stopped())
    }

    async fn of_owner(&self, name: MessageName, shown: &str) -> Answer {
        // The message stands at or before what this ingress had read when it found the key.
        let read = self.views.tail.borrow().position;
        // An owner that is at this very request, or whose node is away, answers nothing.
        let wait = OWNER_WAIT.min(self.context.config.reply_timeout() / 2);
        let answer = self.context.shell.within(wait, self.reads.kept(name)).await;
        match answer {
            None => Answer::Pending { key: shown.to_owned() },
            Some(KeptAnswer { kept: Some(mail), .. }) => Answer::Reply(signed(mail)),
            Some(answer) if answer.applied < read => Answer::Pending { key: shown.to_owned() },
            Some(_) => Answer::Refused {
                status: 410,
                code: "reply-gone",
                detail: "the request was applied, and its reply is no longer kept".to_owned(),
            },
        }
    }
}
