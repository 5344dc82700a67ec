//! A replica whose state is known: an instance of the service, and all that belongs to it at the same position.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker_adapter::fold::{Fold, Verdict};
use broker_adapter::follow::Follower;
use broker_adapter::ids::{Hash, MessageName, MigrationId, Position, Replica};
use broker_adapter::record::{Header, Message};
use broker_adapter::shell::TaskSet;
use bytes::Bytes;

use super::kept::{Kept, KeptReplies};
use super::proof::Proof;
use super::running::RunningHash;
use super::steps::{CheckpointJob, Target};
use crate::command::Reply;
use crate::runner::Instance;
use crate::service::{Connection, Limits, Reading, SavedState, ServiceError, state};
use crate::shard::Context;

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
    pub follower: Follower,
    pub kept: KeptReplies,
    pub running: RunningHash,
    /// Whether a digest of the owner agreed since the load.
    pub agreed: bool,
    /// Where a digest of the owner differed.
    pub diverged: Option<Divergence>,
    /// The last position up to which the owner's own digest was appended, and when.
    pub digest_at: Position,
    pub digest_time: Duration,
    /// A checkpoint on its way.
    pub job: Option<CheckpointJob>,
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
}

/// How often an attached service is asked while it is idle: it finds restarts, and keeps the connections from being closed.
const ASK_ATTACHED_EVERY: Duration = Duration::from_millis(500);

/// Lets the requests of the owner through while a replica replays, as long as the replay gains on the tail even so.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReplayPace {
    delivered: u64,
    lag_records: u64,
}

/// How many deliveries of a replay follow one another.
const REPLAY_RUN_RECORDS: u64 = 32;
pub(super) const REPLAY_REST: Duration = Duration::from_millis(1);

impl ReplayPace {
    /// Counts a delivery; whether it is time to rest. A replay that gained less than half of what it delivered has none to spare.
    pub fn rests(&mut self, lag_records: u64) -> bool {
        self.delivered += 1;
        if self.delivered < REPLAY_RUN_RECORDS {
            return false;
        }
        let gained = self.lag_records.saturating_sub(lag_records);
        *self = ReplayPace { delivered: 0, lag_records };
        gained >= REPLAY_RUN_RECORDS / 2
    }
}

/// Source and target differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Divergence {
    pub position: Position,
    pub owners: Hash,
    pub own: Hash,
    pub what: &'static str,
}

impl Divergence {
    pub fn message(&self) -> String {
        format!(
            "the {} differ at or before position {}: the owner's hash is {}, this replica's {}; the service is not deterministic \
             given its inputs, Segue-Time and Segue-Seed, or its save is not canonical: make it so, or do not move it by replay",
            self.what, self.position, self.owners, self.own
        )
    }
}

impl Active {
    /// Delivers a message and keeps its reply.
    pub async fn deliver(
        &mut self,
        context: &Context,
        message: &Message,
        gives_out: bool,
    ) -> Result<Arc<Reply>, ServiceError> {
        let position = self.fold.position();
        let extra = [
            ("segue-position", position.to_string()),
            ("segue-time", self.fold.time_ms().to_string()),
            ("segue-seed", seed(context, position)),
            ("segue-replay", (!gives_out).to_string()),
        ];
        self.reopen_if_closed().await?;
        let limits =
            Limits { time: context.config.delivery_timeout(), reply_bytes: self.fold.settings().reply_limit_bytes };
        let began = context.shell.now();
        let reply = self.connection.deliver(&message.request, &extra, limits).await?;
        context.metrics.deliveries.inc();
        context.metrics.delivery_seconds.observe((context.shell.now() - began).as_secs_f64());
        self.running.add(position, &reply);
        let reply = Arc::new(reply);
        self.keep(message.name, reply.clone());
        Ok(reply)
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
        if !attached {
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
            Verdict::Repeat(repeated) if !repeated.same_request => {
                problem(422, "key-reused", "this Idempotency-Key was used for another request")
            }
            Verdict::Repeat(repeated) => match self.kept.get(repeated.of) {
                Some((_, reply)) => reply,
                None => problem(410, "reply-gone", "the request was applied, and its reply is no longer kept"),
            },
            _ => problem(410, "key-expired", "the request was not applied: its key is too old to be sure"),
        };
        self.keep(message.name, reply.clone());
        reply
    }

    fn keep(&mut self, name: MessageName, reply: Arc<Reply>) {
        let kept = Kept { name, position: self.fold.position(), reply };
        self.kept.keep(kept, self.fold.settings());
    }

    /// Whether this replica owns at its position.
    pub fn owns(&self, me: &Replica) -> bool {
        self.fold.is_owner(me)
    }
}

/// A reply of ours in RFC 9457's form; the same in every replica.
pub(super) fn problem(status: u16, code: &str, detail: &str) -> Arc<Reply> {
    let body =
        format!(r#"{{"type":"about:blank","title":"{code}","status":{status},"code":"{code}","detail":"{detail}"}}"#);
    let content_type =
        Header { name: "content-type".to_owned(), value: Bytes::from_static(b"application/problem+json") };
    Arc::new(Reply { status, headers: vec![content_type], body: body.into() })
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
    fn a_replay_rests_only_while_it_gains_on_the_tail() {
        let mut pace = ReplayPace { delivered: 0, lag_records: 1_000 };
        let mut rests = |lags: Vec<u64>| lags.into_iter().filter(|lag| pace.rests(*lag)).count();
        assert_eq!(rests((936..1_000).rev().collect()), 2, "nothing arrives");
        assert_eq!(rests(vec![930; 64]), 0, "as much arrives as is delivered");
    }
}
