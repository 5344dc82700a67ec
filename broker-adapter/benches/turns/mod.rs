//! What the benches share: their record, blocks of pipelined appends, and how two who took turns are compared.
//!
//! A shared machine is not the same from one second to the next: whoever is compared runs in short blocks, one behind the other, first
//! the one and then the other ahead, and the ratio is the median of the pairs' ratios.
#![allow(dead_code)] // no bench needs all of it

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use broker_adapter::ids::{Count, Incarnation, MessageName, Replica, Sequence, Session};
use broker_adapter::record::{Body, Key, Message, Record, Request, wire};
use futures_util::future::BoxFuture;

/// A message whose frame has `frame_bytes` or a few more.
pub fn record(frame_bytes: usize) -> Record {
    let message = |body: usize| {
        let name = MessageName { session: Session::from_bits(1), sequence: Sequence::FIRST };
        Record::Message(Box::new(Message {
            name,
            base: None,
            key: Key::Own { count: Count(1) },
            source: None,
            ingress: Replica { node: "a".parse().expect("a name"), incarnation: Incarnation::from_bits(2) },
            request: Request {
                method: "POST".to_owned(),
                path: "/".to_owned(),
                headers: Vec::new(),
                body: Body::Inline(vec![7; body].into()),
            },
        }))
    };
    (0..frame_bytes).map(message).find(|record| wire::encode(record).bytes.len() >= frame_bytes).expect("one fits")
}

/// Whether a part of the bench was asked for: all are if none is named behind `--`.
pub fn asked_for(part: &str) -> bool {
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    named.is_empty() || named.iter().any(|name| name == part)
}

/// Calls whose records were made before, so that nobody's rate pays for the making.
pub struct Block {
    pub calls: usize,
    pub records_per_call: usize,
    pub in_flight: usize,
    pub limit: Duration,
}

impl Block {
    /// Records per second, until the time is over or no call is left.
    pub async fn rate<T>(&self, one: impl Fn() -> T, append: impl AsyncFn(T) -> BoxFuture<'static, ()>) -> f64 {
        let mut stock: Vec<T> = (0..self.calls).map(|_| one()).collect();
        let (mut in_flight, mut done, began) = (VecDeque::new(), 0, Instant::now());
        while began.elapsed() < self.limit
            && let Some(call) = stock.pop()
        {
            in_flight.push_back(append(call).await);
            if in_flight.len() >= self.in_flight {
                in_flight.pop_front().expect("some are in flight").await;
                done += 1;
            }
        }
        for append in in_flight {
            append.await;
            done += 1;
        }
        rate(done * self.records_per_call, began)
    }
}

#[allow(clippy::cast_precision_loss)]
pub fn rate(records: usize, began: Instant) -> f64 {
    records as f64 / began.elapsed().as_secs_f64()
}

/// What two measured who took turns, by pairs.
#[derive(Default)]
pub struct Pairs {
    own: Vec<f64>,
    theirs: Vec<f64>,
}

impl Pairs {
    /// Who is ahead in this round.
    pub fn own_first(round: usize) -> bool {
        round % 2 == 1
    }

    pub fn add_own(&mut self, value: f64) {
        self.own.push(value);
    }

    pub fn add_theirs(&mut self, value: f64) {
        self.theirs.push(value);
    }

    fn ratio(&self) -> f64 {
        median(self.own.iter().zip(&self.theirs).map(|(own, theirs)| own / theirs).collect())
    }

    /// For rates: the more, the better.
    pub fn tell_rates(self, what: &str, goal: f64) {
        let ratio = self.ratio();
        let (own, theirs) = (median(self.own), median(self.theirs));
        println!("  {what}: adapter {own:.0}/s, raw {theirs:.0}/s: {ratio:.2} (goal >= {goal:.2})");
    }

    /// For seconds: the fewer, the better.
    pub fn tell_times(self, what: &str, goal: f64) {
        let ratio = self.ratio();
        let time = |all| Duration::from_secs_f64(median(all));
        println!(
            "  {what}: adapter {:.0?}, raw {:.0?}: {ratio:.2} (goal <= {goal:.2})",
            time(self.own),
            time(self.theirs)
        );
    }
}

pub fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// The p50 of `times` runs, in seconds.
pub async fn p50(times: usize, run: impl AsyncFn()) -> f64 {
    let mut all = Vec::with_capacity(times);
    for _ in 0..times {
        let began = Instant::now();
        run().await;
        all.push(began.elapsed().as_secs_f64());
    }
    median(all)
}
