//! A sample of the table of faults of real processes; `tests/soak --processes` plays all of it.

use segue_tests::cells::{Asked, Line, Record, sample, soak};

#[test]
fn a_fault_of_any_process_in_any_phase_costs_nothing() {
    let cells = sample();
    assert_eq!(cells.len(), 20, "a cell of the sample is not in the table");
    let mut record = Record::open(None).expect("nothing is kept");
    let asked = Asked { cells, at_a_time: 4, logs: None };
    let lines = soak(&asked, &mut record, |line| {
        println!("{} {}: {}", line.cell, line.outcome, line.proof);
        true
    });
    let lines = lines.expect("nothing is kept");
    let wrong: Vec<&Line> = lines.iter().filter(|line| !line.is_clean()).collect();
    assert!(wrong.is_empty(), "look at each with `tests/soak --processes --cell NAME --logs FOLDER`: {wrong:#?}");
    assert_eq!(lines.len(), 20);
}
