//! A replica whose state is known: an instance of the service, and all that belongs to it at the same position.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker_adapter::fold::{Bug, Fold, Verdict};
use broker_adapter::ids::{MessageName, MigrationId, Position, Replica};
use broker_adapter::record::Message;
use broker_adapter::shell::TaskSet;

use super::bodies::BodyTable;
use super::divergence::Divergence;
use super::feed::Feed;
use super::gather::{BatchSize, Pending};
use super::job::CheckpointJob;
use super::kept::{Kept, KeptReplies};
use super::proof::Proof;
use super::running::RunningHash;
use super::steps::{Pinning, Target};
use crate::command::Reply;
use crate::ingress::paths;
use crate::problem;
use crate::runner::Instance;
use crate::service::batch::Delivery;
use crate::service::{Connection, Limits, Reading, SavedState, ServiceError, state};
use crate::shard::Context;
use crate::trace;

/// State, fold, kept replies and running hash of one position.
pub(super) struct Active {
    /// Which load this is: what tasks of an earlier one report is dropped.
    pub load: u64,
    pub instance: Box<dyn Instance>,
    pub connection: Connection,
    pub reading: Reading,
    /// When an attached instance was asked last whether it is still the same.
    pub asked: Duration,
    pub fold: Fold,
    /// The log, and the bodies that are not in it.
    pub feed: Feed,
    /// Those that may be replayed.
    pub bodies: BodyTable,
    pub kept: KeptReplies,
    pub running: RunningHash,
    /// The position of the checkpoint that was loaded.
    pub loaded_at: Position,
    /// Whether a digest of the owner agreed since the load.
    pub agreed: bool,
    /// The last position at which a digest of the owner agreed, or that of the load.
    pub agreed_at: Position,
    /// Where a digest of the owner differed.
    pub diverged: Option<Divergence>,
    /// The last position up to which the owner's own digest was appended, and when.
    pub digest_at: Position,
    pub digest_time: Duration,
    /// A checkpoint on its way.
    pub job: Option<CheckpointJob>,
    /// A migration's pin on its way.
    pub pinning: Option<Pinning>,
    /// The migration whose target this is.
    pub target: Option<Target>,
    /// When the end of a migration's pin was appended last.
    pub releases: BTreeMap<MigrationId, Duration>,
    /// The mark to be answered or compared.
    pub proofs: Vec<Proof>,
    /// What reads or hashes this instance's state; ends with it.
    pub tasks: TaskSet,
    /// How fast a replay goes.
    pub replay: ReplayPace,
    /// How many requests go together.
    pub batch: BatchSize,
}

/// How often an attached service is asked while it is idle: it finds restarts, and keeps the connections from being closed.
const ASK_ATTACHED_EVERY: Duration = Duration::from_millis(500);

/// Lets the requests of the owner through while a replica replays, as long as the replay gains on the tail even so.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReplayPace {
    delivered: u64,
    took: Duration,
    applied: Position,
    tail: Position,
}

/// How many deliveries of a replay follow one another, at least.
const REPLAY_RUN_RECORDS: u64 = 32;
const REPLAY_REST_MIN: Duration = Duration::from_millis(1);
const REPLAY_REST_MAX: Duration = Duration::from_millis(20);

impl ReplayPace {
    /// Counts deliveries and how long they took; how long to rest now. Where nothing arrives, nobody is disturbed; where half as much
    /// arrives as is applied, the replay has no time to spare.
    pub fn rest(&mut self, records: u64, took: Duration, applied: Position, tail: Position) -> Option<Duration> {
        self.delivered += records;
        self.took += took;
        if self.delivered < REPLAY_RUN_RECORDS {
            return None;
        }
        let took = self.took;
        let (progress, arrived) = (applied.records_since(self.applied), tail.records_since(self.tail));
        *self = ReplayPace { delivered: 0, took: Duration::ZERO, applied, tail };
        let rests = arrived > 0 && arrived <= progress / 2;
        rests.then(|| (took / 2).clamp(REPLAY_REST_MIN, REPLAY_REST_MAX))
    }
}

impl Active {
    /// Delivers messages and keeps their replies, which are the same whether the messages go alone or together. What comes next is
    /// read meanwhile.
    pub async fn deliver(&mut self, context: &Context, messages: &[Pending]) -> Result<Vec<Arc<Reply>>, ServiceError> {
        self.reopen_if_closed().await?;
        let limits =
            Limits { time: context.config.delivery_timeout(), reply_bytes: self.fold.settings().reply_limit_bytes };
        let deliveries: Vec<Delivery<'_>> = messages.iter().map(|pending| delivery(context, pending)).collect();
        let spans = trace::Deliveries::begin(context, messages.iter().map(sent));
        let began = context.shell.now();
        let redelivers = context.rules.plant(Bug::RedeliverToSameInstance) && self.instance.is_alive();
        let (connection, feed) = (&mut self.connection, &mut self.feed);
        let delivered = async {
            let delivered = match (&context.config.batch, deliveries.as_slice()) {
                (Some(path), [_, _, ..]) => connection.deliver_batch(path, &deliveries, limits).await,
                _ => one_by_one(connection, &deliveries, limits).await,
            };
            if delivered.is_err() && redelivers {
                connection.reopen().await?;
                return one_by_one(connection, &deliveries, limits).await;
            }
            delivered
        };
        let replies = tokio::select! { biased;
            replies = delivered => replies,
            never = feed.read_ahead() => match never {},
        };
        let replies = match replies {
            Ok(replies) => replies,
            Err(error) => {
                spans.failed(&error);
                return Err(error);
            }
        };
        spans.answered(&replies);
        context.metrics.deliveries.inc_by(messages.len() as u64);
        context.metrics.delivery_seconds.observe((context.shell.now() - began).as_secs_f64());
        let mut kept = Vec::with_capacity(replies.len());
        for (pending, reply) in messages.iter().zip(replies) {
            self.running.add(pending.position, &reply);
            let reply = Arc::new(reply);
            self.keep(pending.message.name, pending.position, reply.clone());
            kept.push(reply);
        }
        Ok(kept)
    }

    /// Asks the instance for its state; see [`state::save`].
    pub async fn save_state(&mut self, context: &Context) -> Result<SavedState, ServiceError> {
        let place = self.instance.place();
        state::save(&context.config, &place, &mut self.connection, &context.shell).await
    }

    /// A service may close a connection that is idle; only one that shows to be the same still has its state.
    async fn reopen_if_closed(&mut self) -> Result<(), ServiceError> {
        if !self.connection.is_closed() {
            return Ok(());
        }
        let address = self.instance.address().to_owned();
        if !self.instance.is_alive() {
            return Err(ServiceError::Connect { address, reason: "the service has ended".to_owned() });
        }
        if self.is_held() {
            return Err(ServiceError::closed(&address));
        }
        self.connection.reopen().await
    }

    /// Whether nothing but open connections shows that it is the instance that was loaded.
    fn is_held(&self) -> bool {
        self.instance.place().attached && self.connection.token().is_none()
    }

    /// Whether an idle instance is still the one that was loaded, as far as can be seen; an attached one is asked now and then.
    pub async fn look(&mut self, context: &Context) -> Result<(), ServiceError> {
        let attached = self.instance.place().attached;
        if self.connection.is_closed() && (self.is_held() || !self.instance.is_alive()) {
            return self.reopen_if_closed().await;
        }
        if !attached || self.job.as_ref().is_some_and(CheckpointJob::is_alone) {
            return Ok(());
        }
        if self.reading.reader().is_closed() {
            return Err(ServiceError::closed(self.instance.address()));
        }
        if context.shell.now() < self.asked + ASK_ATTACHED_EVERY {
            return Ok(());
        }
        self.reopen_if_closed().await?;
        let limit = context.config.delivery_timeout();
        self.connection.probe(&context.config.ready, limit).await?;
        self.reading.reader().keep(&context.config.ready, limit).await?;
        self.asked = context.shell.now();
        Ok(())
    }

    /// What a message that counts and is not applied is answered with.
    pub fn answer_unapplied(&mut self, message: &Message, verdict: &Verdict) -> Arc<Reply> {
        let reply = match verdict {
            Verdict::Repeat(repeated) if !repeated.same_request => problem::key_reused(),
            Verdict::Repeat(repeated) => match self.kept.get(repeated.of) {
                Some((_, reply)) => reply,
                None => problem::reply_gone(),
            },
            _ => problem::key_expired(),
        };
        self.keep(message.name, self.fold.position(), reply.clone());
        reply
    }

    /// What a message for a path by which the sidecar saves or loads the service is answered: an ingress without a replica does not
    /// know these paths.
    pub fn answer_hidden(&mut self, message: &Message) -> Arc<Reply> {
        let position = self.fold.position();
        let reply = Arc::new(paths::hidden(&message.request.path).into_reply());
        self.running.add(position, &reply);
        self.keep(message.name, position, reply.clone());
        reply
    }

    fn keep(&mut self, name: MessageName, position: Position, reply: Arc<Reply>) {
        let kept = Kept { name, position, reply };
        self.kept.keep(kept, self.fold.settings());
    }

    /// Whether this replica owns at its position.
    pub fn owns(&self, me: &Replica) -> bool {
        self.fold.is_owner(me)
    }
}

async fn one_by_one(
    connection: &mut Connection,
    deliveries: &[Delivery<'_>],
    limits: Limits,
) -> Result<Vec<Reply>, ServiceError> {
    let mut replies = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        let extra = [
            ("segue-position", delivery.position.to_string()),
            ("segue-time", delivery.time_ms.to_string()),
            ("segue-seed", delivery.seed.clone()),
            ("segue-replay", delivery.replay.to_string()),
        ];
        replies.push(connection.deliver(delivery.request, &extra, limits).await?);
    }
    Ok(replies)
}

fn delivery<'a>(context: &Context, pending: &'a Pending) -> Delivery<'a> {
    Delivery {
        position: pending.position,
        time_ms: pending.time_ms,
        seed: seed(context, pending.position),
        replay: !pending.gives_out,
        request: &pending.message.request,
    }
}

fn sent(pending: &Pending) -> trace::Sent<'_> {
    trace::Sent { position: pending.position, request: &pending.message.request, replay: !pending.gives_out }
}

/// Randomness that every replica has alike: from shard and position.
fn seed(context: &Context, position: Position) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(context.shard.log_name().as_bytes());
    hasher.update(&position.0.to_be_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_rests_only_while_somebody_is_served_and_it_gains_on_the_tail() {
        let took = Duration::from_millis(4);
        let rest = |applied, tail| {
            let mut pace =
                ReplayPace { delivered: 0, took: Duration::ZERO, applied: Position(100), tail: Position(1_000) };
            assert_eq!(pace.rest(1, took, Position(101), Position(1_000)), None, "a run is longer");
            pace.rest(63, took, Position(applied), Position(tail))
        };
        assert_eq!(rest(164, 1_000), None, "nothing arrives");
        assert_eq!(rest(164, 1_010), Some(took));
        assert_eq!(rest(164, 1_040), None, "too much arrives");
    }
}
