//! The one task that keeps everything that reads wait for, in the order in which they came.
//!
//! One question for the log's tail serves all reads that wait for it. It also keeps the questions to other nodes, those of other
//! nodes, and a few open connections to the instance: never the one over which messages are delivered.

use std::collections::{BTreeMap, BTreeSet};

use broker_adapter::ids::{Id128, Position};
use broker_adapter::log::ReadError;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use crate::command::{KeptAnswer, ReadAnswer, ReplicaState};
use crate::shard::{Context, ReplicaView};

/// How many questions of other nodes are under way; more are dropped like lost mail, and asked again.
const ANSWERING_MAX: usize = 1_024;
const FORGET_FIRST: usize = 64;

/// What another node answered.
pub(super) enum Answered {
    Read(ReadAnswer),
    Kept(KeptAnswer),
}

pub(super) enum Input {
    /// Tell when this node's replica has applied `tail`.
    Applied {
        tail: Position,
        reached: oneshot::Sender<ReplicaView>,
    },
    /// Tell the log's tail.
    Tail(oneshot::Sender<Result<Position, ReadError>>),
    /// A question to another node.
    Expect {
        id: Id128,
        answer: oneshot::Sender<Box<Answered>>,
    },
    Answered {
        id: Id128,
        answer: Box<Answered>,
    },
    /// A question of another node: whether it is to be answered, or is being answered already.
    Begin {
        id: Id128,
        is_new: oneshot::Sender<bool>,
    },
    End(Id128),
}

pub(super) struct Asker {
    context: Context,
    inputs: mpsc::Receiver<Input>,
    replica: watch::Receiver<ReplicaView>,
    waiting: Vec<oneshot::Sender<Result<Position, ReadError>>>,
    applied: Vec<(Position, oneshot::Sender<ReplicaView>)>,
    expected: BTreeMap<Id128, oneshot::Sender<Box<Answered>>>,
    /// At so many questions those that were given up are forgotten.
    forget_at: usize,
    answering: BTreeSet<Id128>,
}

impl Asker {
    pub fn new(context: Context, inputs: mpsc::Receiver<Input>, replica: watch::Receiver<ReplicaView>) -> Asker {
        Asker {
            context,
            inputs,
            replica,
            waiting: Vec::new(),
            applied: Vec::new(),
            expected: BTreeMap::new(),
            forget_at: FORGET_FIRST,
            answering: BTreeSet::new(),
        }
    }

    pub async fn run(mut self) {
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
            } else if !reached.is_closed() {
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
                if self.expected.len() >= self.forget_at {
                    // Nobody waits any more for a question that was given up.
                    self.expected.retain(|_, waiting| !waiting.is_closed());
                    self.forget_at = 2 * self.expected.len().max(FORGET_FIRST);
                }
                self.expected.insert(id, answer);
            }
            Input::Answered { id, answer } => {
                if let Some(expected) = self.expected.remove(&id) {
                    // The client may have gone.
                    let _ = expected.send(answer);
                }
            }
            Input::Begin { id, is_new } => {
                let has_room = self.answering.len() < ANSWERING_MAX;
                // Who asked waits for it in any case.
                let _ = is_new.send(has_room && self.answering.insert(id));
            }
            Input::End(id) => {
                self.answering.remove(&id);
            }
        }
    }
}
