//! Invariant 4, played through a [`Follower`] on a broker that breaks, rewinds and damages: a gap stops everything.

use std::sync::Arc;
use std::time::Duration;

use super::{Faults, MemoryBroker};
use crate::follow::Follower;
use crate::ids::{Id128, Incarnation, Position};
use crate::log::{MessageLog, ReadError};
use crate::record::{Mark, Record};
use crate::shell::sim::SimWorld;
use crate::shell::{Shell, TaskSet};

struct Bench {
    broker: Arc<MemoryBroker>,
    log: Arc<dyn MessageLog>,
    shell: Shell,
    _tasks: TaskSet,
}

async fn bench(seed: u64, records: u128) -> Bench {
    let (shell, tasks) = SimWorld::new(seed).process();
    let broker = MemoryBroker::new(seed, shell.clone(), Faults::default());
    let log = broker.connect("a").log("clock.0").await.unwrap();
    for id in 0..records {
        log.append(vec![mark(id)]).await.unwrap();
    }
    Bench { broker, log, shell, _tasks: tasks }
}

fn mark(id: u128) -> Record {
    Record::Mark(Mark { id: Id128(id), asker: Incarnation::from_bits(1), state: false })
}

impl Bench {
    async fn follow_to(&self, position: u64) -> Follower {
        let mut follower = Follower::new(self.log.clone(), self.shell.clone(), Position::ZERO, 0);
        while follower.position() < Position(position) {
            follower.next().await.unwrap();
        }
        follower
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_gets_every_record_once_and_in_order_over_broken_connections() {
    let bench = bench(1, 300).await;
    bench.broker.set_faults(Faults { read_broken_per_mille: 300, ..Faults::default() });
    let mut follower = Follower::new(bench.log.clone(), bench.shell.clone(), Position::ZERO, 0);
    for id in 0..300 {
        if id % 50 == 0 {
            bench.broker.crash_and_restart();
        }
        assert_eq!(follower.next().await.unwrap().record, mark(id));
    }
    assert!(bench.broker.fired()["read_broken_per_mille"] > 50);
    assert_eq!(bench.broker.fired()["crash_and_restart"], 6);
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_a_log_that_was_rewound_stops() {
    let bench = bench(2, 10).await;
    let mut follower = bench.follow_to(10).await;
    bench.broker.rewind("clock.0", Position(4));
    let stopped = follower.next().await;
    assert_eq!(stopped, Err(ReadError::BehindTail { asked: Position(10), tail: Position(4) }));
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_a_log_that_was_rewound_and_grew_again_stops() {
    let bench = bench(3, 10).await;
    let mut follower = bench.follow_to(10).await;
    bench.broker.rewind("clock.0", Position(4));
    for id in 100..110 {
        bench.log.append(vec![mark(id)]).await.unwrap();
    }
    let stopped = follower.next().await;
    assert!(matches!(stopped, Err(ReadError::Different { position: Position(10), .. })), "{stopped:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_stops_at_a_damaged_record() {
    let bench = bench(4, 10).await;
    let mut follower = bench.follow_to(6).await;
    bench.broker.damage("clock.0", Position(7));
    let stopped = follower.next().await;
    assert!(matches!(stopped, Err(ReadError::Damaged { position: Position(7), .. })), "{stopped:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_behind_the_trim_is_told_where_the_log_begins() {
    let bench = bench(5, 10).await;
    let mut follower = bench.follow_to(3).await;
    bench.broker.crash_and_restart();
    bench.log.trim(Position(8)).await.unwrap();
    let stopped = follower.next().await;
    assert_eq!(stopped, Err(ReadError::Trimmed { asked: Position(3), first: Position(8) }));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_cut_off_waits_and_sees_everything_when_it_is_healed() {
    let bench = bench(6, 5).await;
    let mut follower = bench.follow_to(5).await;
    bench.broker.cut_off("a");
    let other = bench.broker.connect("b").log("clock.0").await.unwrap();
    other.append(vec![mark(5)]).await.unwrap();
    assert!(bench.shell.within(Duration::from_secs(10), follower.next()).await.is_none());
    bench.broker.heal("a");
    assert_eq!(follower.next().await.unwrap().record, mark(5));
}
