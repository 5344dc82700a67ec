//! The first face on Kafka: one partition, in which the record at an offset has the position offset + 1.
//!
//! `append` resolves when all replicas in sync have the record (`acks=all`). `tail` asks the partition's leader for its
//! high watermark; where there are more brokers, one that was cut off may believe to lead and know less, so there a `Mark`
//! is appended instead: its position covers everything that was acknowledged before.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};
use futures_util::stream::BoxStream;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use crate::broker::ConnectError;
use crate::ids::{Incarnation, Position};
use crate::log::{AppendError, MessageLog, ReadError, Usage};
use crate::record::{Entry, Mark, Record};
use crate::shell::Shell;

use super::ask::{self, Extent, Question};
use super::client::{QUESTION_LIMIT, Target};
use super::lane::{Lane, offset};
use super::reads;
use super::topics::{Facts, Place, Topics};

/// Longer than librdkafka tries: only if it forgets an append.
const OUTCOME_LIMIT: Duration = Duration::from_secs(30);

/// A log's handle.
pub struct KafkaLog {
    target: Target,
    place: Place,
    facts: Facts,
    topics: Arc<Topics>,
    shell: Shell,
    lane: Arc<Lane>,
    asker: mpsc::Sender<Question>,
    /// Who asks, in the marks that `tail` appends.
    asking: Incarnation,
}

impl KafkaLog {
    /// A handle of a partition that was verified; waits until its leader has answered.
    pub async fn open(
        target: &Target,
        place: Place,
        facts: Facts,
        topics: Arc<Topics>,
        shell: &Shell,
    ) -> Result<KafkaLog, ConnectError> {
        let failed = |reason: String| ConnectError::Unreachable { url: target.url(), reason };
        let (asker, questions) = mpsc::channel();
        let lane = Lane::new(target, &place, facts.message_limit_bytes, shell, asker.clone());
        ask::start(lane.clone(), questions).map_err(|error| failed(format!("no thread is left: {error}")))?;
        let asking = Incarnation(shell.random());
        let log = KafkaLog { target: target.clone(), place, facts, topics, shell: shell.clone(), lane, asker, asking };
        log.extent().await.map_err(|error| failed(error.to_string()))?;
        Ok(log)
    }

    fn extent(&self) -> BoxFuture<'static, Result<Extent, ReadError>> {
        let (asker, shell) = (self.asker.clone(), self.shell.clone());
        async move {
            let until = shell.now() + QUESTION_LIMIT;
            loop {
                let (asked, answer) = oneshot::channel();
                if asker.send(Question::Extent(asked)).is_err() {
                    return Err(ReadError::Unreachable("the log's handle is gone".to_owned()));
                }
                let reason = match shell.within(QUESTION_LIMIT, answer).await {
                    Some(Ok(Ok(extent))) => return Ok(extent),
                    Some(Ok(Err(reason))) => reason,
                    Some(Err(_)) => "the log's handle is gone".to_owned(),
                    None => "no answer in time".to_owned(),
                };
                if shell.now() >= until {
                    return Err(ReadError::Unreachable(reason));
                }
                shell.sleep(Duration::from_millis(20)).await;
            }
        }
        .boxed()
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        // It lives until it gets this.
        let _ = self.asker.send(Question::End);
    }
}

impl MessageLog for KafkaLog {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'static, Result<Vec<Position>, AppendError>> {
        if records.is_empty() {
            return future::ready(Ok(Vec::new())).boxed();
        }
        let outcome = self.lane.append(&records);
        let shell = self.shell.clone();
        async move {
            match shell.within(OUTCOME_LIMIT, outcome?).await {
                Some(Ok(outcome)) => outcome,
                Some(Err(_)) => Err(AppendError::Unknown("the log's handle is gone".to_owned())),
                None => Err(AppendError::Unknown("no answer in time".to_owned())),
            }
        }
        .boxed()
    }

    fn read(&self, from: Position) -> BoxStream<'static, Result<Entry, ReadError>> {
        reads::entries(&self.target, &self.place, self.facts.replicas, from)
    }

    fn tail(&self) -> BoxFuture<'static, Result<Position, ReadError>> {
        if self.facts.replicas == 1 {
            return self.extent().map(|extent| Ok(extent?.tail)).boxed();
        }
        let mark = Mark { id: self.shell.random(), asker: self.asking, state: false };
        let appended = self.append(vec![Record::Mark(mark)]);
        let last = |positions: Result<Vec<Position>, AppendError>| match positions {
            Ok(positions) => Ok(positions.last().copied().expect("one record was appended")),
            Err(error) => Err(ReadError::Unreachable(error.to_string())),
        };
        appended.map(last).boxed()
    }

    fn trim(&self, before: Position) -> BoxFuture<'static, Result<(), ReadError>> {
        let (extent, topics, target, place) =
            (self.extent(), self.topics.clone(), self.target.clone(), self.place.clone());
        async move {
            let Extent { first, tail } = extent.await?;
            let before = before.min(tail.next());
            if before <= first {
                return Ok(());
            }
            let failed = |reason: String| ReadError::Unreachable(format!("the trim failed: {reason}"));
            let deleted = {
                let mut places = TopicPartitionList::new();
                places
                    .add_partition_offset(&place.topic, place.partition, Offset::Offset(offset(before)))
                    .map_err(|error| failed(target.tell(&error)))?;
                topics.admin.delete_records(&places, &super::topics::options())
            };
            let deleted = deleted.await.map_err(|error| failed(target.tell(&error)))?;
            match deleted.elements().first().map(|element| element.error()) {
                Some(Ok(())) => Ok(()),
                Some(Err(error)) => Err(failed(target.tell(&error))),
                None => Err(failed("the cluster deleted nothing".to_owned())),
            }
        }
        .boxed()
    }

    /// Kafka's clients cannot be told a partition's bytes: they are 0 here, and the limit by records decides.
    fn usage(&self) -> BoxFuture<'static, Result<Usage, ReadError>> {
        let (extent, durability) = (self.extent(), self.facts.durability());
        let record_limit_bytes = self.lane.record_limit_bytes() as u64;
        async move {
            let Extent { first, tail } = extent.await?;
            Ok(Usage { first, tail, bytes: 0, limit_bytes: None, record_limit_bytes, durability })
        }
        .boxed()
    }
}
