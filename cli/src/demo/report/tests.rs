//! The form of the demo's result, and what makes it good.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::demo::timeline::Window;

fn arguments() -> DemoArguments {
    DemoArguments {
        strategy: "live".to_owned(),
        rate: 1000,
        moves: 1,
        rounds: 1,
        state_mb: 0,
        broker: "embedded".to_owned(),
        kafka_home: None,
        json: None,
        keep: false,
    }
}

fn moved(proof: &str) -> (Move, Cost) {
    let migration = serde_json::from_value(json!({
        "id": "0f", "service": "delay-board", "strategy": "live", "from": "edge-a", "to": "edge-b",
        "phase": "completed", "outcome": "completed", "proof": proof, "total_ms": 40,
        "phases": [{"name": "prepare", "ms": 2}, {"name": "replay", "ms": 3}, {"name": "completed", "ms": null}],
    }));
    let latency =
        Latency { p50: Duration::from_millis(1), p99: Duration::from_millis(2), max: Duration::from_micros(3500) };
    let cost = Cost {
        blackout: Duration::from_millis(7),
        blackout_ended: Duration::from_millis(4),
        quiet_blackout: Some(Duration::from_millis(4)),
        latency,
        quiet_latency: Some(latency),
    };
    let window = Window { from: Duration::ZERO, to: Duration::from_secs(1) };
    (Move { from: "edge-a", to: "edge-b", window, result: Ok(migration.unwrap()) }, cost)
}

fn report() -> Report {
    Report {
        arguments: arguments(),
        verdict: Verdict { sent: 5, acknowledged: 5, ..Verdict::default() },
        board_equal: true,
        longest_stall: Duration::from_millis(9),
        generator_late_p99: Duration::from_micros(100),
        moves: vec![moved("state")],
    }
}

#[test]
fn the_json_object_has_the_agreed_form() {
    let latency = json!({"p50_ms": 1.0, "p99_ms": 2.0, "max_ms": 3.5});
    let expected = json!({
        "sent": 5, "acknowledged": 5, "lost": 0, "doubled": 0, "reordered": 0, "board_equal": true,
        "broker": "embedded", "rounds": 1, "rate_per_s": 1000, "state_mb": 0, "longest_stall_ms": 9.0,
        "generator_late_p99_ms": 0.1,
        "migrations": [{
            "id": "0f", "strategy": "live", "from": "edge-a", "to": "edge-b", "outcome": "completed", "proof": "state",
            "total_ms": 40.0, "blackout_ms": 7.0, "blackout_in": "replay", "quiet_blackout_ms": 4.0, "window": latency, "quiet": latency,
            "phases": {"prepare": 2.0, "replay": 3.0},
        }],
    });
    assert_eq!(report().json(), expected);
}

#[test]
fn the_table_shows_what_the_object_holds() {
    let text = report().text();
    for part in
        ["edge-a -> edge-b", "live, state", "1.0 / 2.0 / 3.5", "quiet blackout ms", "  replay ms", "3.0 ms over 1"]
    {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn only_a_run_without_any_fault_is_good() {
    assert!(report().is_good());
    let lost = Verdict { lost: 1, ..report().verdict };
    let unacknowledged = Verdict { acknowledged: 4, ..report().verdict };
    assert!(!Report { verdict: lost, ..report() }.is_good());
    assert!(!Report { verdict: unacknowledged, ..report() }.is_good());
    assert!(!Report { board_equal: false, ..report() }.is_good());
    assert!(!Report { moves: vec![moved("replies only")], ..report() }.is_good());
    let refused = (Move { result: Err("409".to_owned()), ..moved("state").0 }, moved("state").1);
    assert!(!Report { moves: vec![refused], ..report() }.is_good());
}
