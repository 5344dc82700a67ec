//! Children end with their parent, whatever ends it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::segue;

fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/stat"))).unwrap_or_default();
    // A zombie has ended; nobody has asked how.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn a_child_is_killed_when_its_parent_is() {
    let program = env!("CARGO_BIN_EXE_segue");
    // The shell stands for a sidecar: it starts a child through with-parent, tells its pid, and is killed.
    let script = format!("{program} with-parent -- sleep 600 & echo $!; wait");
    let mut parent = std::process::Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let child: u32 = line.trim().parse().unwrap();
    let limit = Instant::now() + Duration::from_secs(10);
    // Only once it is the command itself has it set the signal.
    let comm = || std::fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
    while comm().trim() != "sleep" {
        assert!(Instant::now() < limit, "the child did not become the command");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(is_running(child));
    parent.kill().unwrap();
    parent.wait().unwrap();
    while is_running(child) {
        assert!(Instant::now() < limit, "the child outlives its parent");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_orphan_runs_nothing() {
    // Process 1 is not the parent of this one.
    let output = segue().args(["with-parent", "--parent", "1", "--", "echo", "ran"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("\"echo\" is not run"));
}

#[test]
fn a_command_that_is_not_there_is_named() {
    let output = segue().args(["with-parent", "--", "no-such-program"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("\"no-such-program\" cannot be run"));
}
