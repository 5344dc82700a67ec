//! The order over broken connections and slow bodies.

use std::sync::Arc;
use std::time::Duration;

use broker_adapter::ids::{
    Count, Hash, Id128, Incarnation, MessageName, Position, Replica, Sequence, Session, ShardId,
};
use broker_adapter::log::MessageLog;
use broker_adapter::memory::{Delay, Faults, MemoryBroker};
use broker_adapter::record::{Key, Mark, Message, Request};
use broker_adapter::shell::sim::SimWorld;

use super::*;

struct Bench {
    broker: Arc<MemoryBroker>,
    log: Arc<dyn MessageLog>,
    bodies: Bodies,
    _tasks: TaskSet,
}

async fn bench(seed: u64) -> Bench {
    let (shell, tasks) = SimWorld::new(seed).process();
    let broker = MemoryBroker::new(seed, shell.clone(), Faults::default());
    let link = broker.connect("a");
    let log = link.log("s.0").await.expect("it opens");
    let shard = ShardId::whole("s".parse().expect("a good name"));
    Bench { broker, log, bodies: Bodies { store: link.store(), shard, shell }, _tasks: tasks }
}

fn mark(id: u128) -> Record {
    Record::Mark(Mark { id: Id128(id), asker: Incarnation::from_bits(1), state: false })
}

impl Bench {
    async fn marks(&self, records: u128) {
        for id in 0..records {
            self.log.append(vec![mark(id)]).await.expect("it is sound");
        }
    }

    /// Appends a message with a body of so many bytes in the store.
    async fn large(&self, session: u128, bytes: usize) {
        let name = MessageName { session: Session::from_bits(session), sequence: Sequence::FIRST };
        let base = Count(0);
        let body = Bytes::from(vec![u8::try_from(session % 250).expect("small"); bytes]);
        let hash = self.bodies.put(BodyName { message: name, base }, body, |_| ()).await.expect("it is stored");
        let body = Body::Stored { hash, length: bytes as u64 };
        let request = Request { method: "POST".to_owned(), path: "/".to_owned(), headers: Vec::new(), body };
        let ingress = Replica { node: "a".parse().expect("a good name"), incarnation: Incarnation::from_bits(1) };
        let key = Key::Own { count: base };
        let message = Message { name, base: Some(base), key, source: None, ingress, request };
        self.log.append(vec![Record::Message(Box::new(message))]).await.expect("it is sound");
    }

    fn feed(&self) -> Feed {
        let shell = self.bodies.shell.clone();
        Feed::new(Follower::new(self.log.clone(), shell, Position::ZERO, 0), self.bodies.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_reads_ahead_gives_the_same_records_over_broken_connections() {
    let bench = bench(7).await;
    bench.marks(300).await;
    bench.broker.set_faults(Faults { read_broken_per_mille: 300, ..Faults::default() });
    let mut feed = bench.feed();
    let mut ready = 0;
    for id in 0..300 {
        if id % 50 == 0 {
            bench.broker.crash_and_restart();
        }
        // What else is waited for ends at any moment.
        let _ = bench.bodies.shell.within(Duration::from_millis(id as u64 % 7), feed.read_ahead()).await;
        let read = match feed.next_ready() {
            Some(read) => {
                ready += 1;
                read
            }
            None => feed.next().await,
        };
        assert_eq!(read.expect("nothing stops it").entry.record, mark(id));
    }
    assert!(ready > 100, "{ready}");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_stops_a_feed_behind_everything_that_was_read_ahead() {
    let bench = bench(8).await;
    bench.marks(10).await;
    bench.broker.damage("s.0", Position(7));
    let mut feed = bench.feed();
    assert!(bench.bodies.shell.within(Duration::from_secs(1), feed.read_ahead()).await.is_none());
    for id in 0..6 {
        assert_eq!(feed.next().await.expect("it is whole").entry.record, mark(id));
    }
    let stopped = feed.next_ready().expect("it was read ahead");
    assert!(matches!(stopped, Err(ReadError::Damaged { position: Position(7), .. })), "{stopped:?}");
}

#[tokio::test(start_paused = true)]
async fn bodies_are_fetched_at_the_same_time_and_given_in_order() {
    const STORE: Duration = Duration::from_millis(100);
    let bench = bench(9).await;
    for session in 1..=8 {
        bench.large(session, 1_000).await;
        bench.log.append(vec![mark(session)]).await.expect("it is sound");
    }
    bench.broker.set_faults(Faults { store_delay: Delay { min: STORE, max: STORE }, ..Faults::default() });
    let began = bench.bodies.shell.now();
    let mut feed = bench.feed();
    assert!(feed.next_ready().is_none(), "the first one's body is not here");
    for session in 1..=8u128 {
        let read = feed.next().await.expect("nothing stops it");
        let body = read.body.expect("it is stored").expect("it is there");
        assert_eq!(Hash::of(&body), Hash::of(&vec![u8::try_from(session).expect("small"); 1_000]));
        let read = feed.next().await.expect("nothing stops it");
        assert_eq!((read.entry.record, read.body), (mark(session), None));
    }
    assert!(bench.bodies.shell.now() - began < 2 * STORE, "one after the other takes eight times as long");
}

#[tokio::test(start_paused = true)]
async fn what_is_fetched_ahead_is_bounded_and_everything_comes() {
    let bench = bench(10).await;
    let bytes = usize::try_from(FETCH_AHEAD_BYTES / 3).expect("small") + 1;
    for session in 1..=5 {
        bench.large(session, bytes).await;
    }
    let mut feed = bench.feed();
    assert!(bench.bodies.shell.within(Duration::from_secs(1), feed.read_ahead()).await.is_none());
    assert_eq!((feed.fetched_bytes, feed.waiting), (2 * bytes as u64, 3));
    for _ in 1..=5 {
        let read = feed.next().await.expect("nothing stops it");
        assert_eq!(read.body.expect("it is stored").expect("it is there").len(), bytes);
    }
    assert_eq!((feed.fetched_bytes, feed.waiting, feed.staged_bytes), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_waited_for_and_a_body_that_is_not_there_is_told() {
    let bench = bench(11).await;
    bench.large(1, 10).await;
    bench.large(2, 10).await;
    let (objects, _) = bench.broker.objects("body/");
    let second = objects.into_iter().next_back().expect("there are two");
    bench.bodies.remove(vec![second.clone()]).await;
    bench.broker.fail_gets("a", 20);
    let mut feed = bench.feed();
    assert!(bench.bodies.shell.within(Duration::from_secs(1), feed.next()).await.is_none(), "it is waited for");
    assert!(feed.next().await.expect("nothing stops it").body.expect("it is stored").is_ok());
    let gone = feed.next().await.expect("nothing stops it").body.expect("it is stored").expect_err("it is gone");
    assert!(gone.0.contains(&second), "{gone}");
}
