//! A sample of the table of faults of brokers: each kind on NATS and on Kafka; `tests/soak --brokers` plays all of it.

use std::collections::BTreeSet;

use segue_tests::brokers::{Cell, Fault, sample, table};
use segue_tests::cells::{Asked, Line, Record, soak};

/// Servers and processes of these wait most of the time.
const AT_A_TIME: usize = 3;

fn cost_nothing(cells: Vec<Cell>, at_a_time: usize) {
    let count = cells.len();
    let mut record = Record::open(None).expect("nothing is kept");
    let lines = soak(&Asked { cells, at_a_time, logs: None }, &mut record, |line| {
        println!("{} {} after {} ms: {}", line.cell, line.outcome, line.ms, line.proof);
        true
    });
    let lines = lines.expect("nothing is kept");
    let wrong: Vec<&Line> = lines.iter().filter(|line| !line.is_clean()).collect();
    assert!(wrong.is_empty(), "look at each with `tests/soak --brokers --cell NAME --logs FOLDER`: {wrong:#?}");
    assert_eq!(lines.len(), count);
}

#[test]
fn the_sample_has_every_kind_of_fault_on_nats_and_on_kafka() {
    let sample = sample();
    assert!(sample.iter().all(|cell| table().contains(cell)), "a cell of the sample is not in the table");
    for is_kafka in [false, true] {
        let of_one = sample.iter().filter(|cell| cell.broker.is_kafka() == is_kafka);
        let kinds: BTreeSet<Fault> = of_one.clone().map(|cell| cell.fault).collect();
        assert_eq!(kinds, BTreeSet::from(Fault::ALL));
        let moments: BTreeSet<_> = of_one.map(|cell| cell.moment).collect();
        assert_eq!(moments.len(), 4);
    }
}

#[test]
fn a_fault_of_a_single_server_costs_nothing_or_stops_everybody() {
    cost_nothing(sample().into_iter().filter(|cell| cell.broker.servers() == 1).collect(), AT_A_TIME);
}

#[test]
fn the_death_of_a_leader_of_three_costs_nothing() {
    cost_nothing(sample().into_iter().filter(|cell| cell.broker.servers() == 3).collect(), 1);
}
