//! What people get who ask for something wrong.

use std::io::Write;
use std::process::Output;

use crate::segue;

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

#[test]
fn a_wrong_config_is_exit_2_with_file_line_and_key() {
    for (command, text, place) in [
        ("broker", "listen = 'x'\npaht = 'y'\n", ":2:1: key \"paht\": unknown field"),
        ("sidecar", "node = 'a'\n\n[[service]]\nnmae = 'x'\n", ":4:1: key \"service.0.nmae\": unknown field"),
        ("migrator", "listen = 7\n", ":1:10: key \"listen\": invalid type"),
    ] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let output = segue().arg(command).arg("--config").arg(file.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{command}: {}", told(&output));
        assert!(told(&output).starts_with(&format!("segue: {}{place}", file.path().display())), "{}", told(&output));
        assert_eq!(told(&output).lines().count(), 1);
    }
}

#[test]
fn a_wrong_variable_is_exit_2_with_its_name() {
    let output = segue().arg("broker").env("SEGUE_BROKER__PORT", "7").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).starts_with("segue: the environment variable SEGUE_BROKER__PORT: key \"port\""));
}

#[test]
fn a_wrong_flag_is_exit_2() {
    assert_eq!(segue().args(["broker", "--prot", "7"]).output().unwrap().status.code(), Some(2));
    assert_eq!(segue().args(["demo", "--rate", "0"]).output().unwrap().status.code(), Some(2));
    let output = segue().args(["broker", "--set", "listen"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).contains("write KEY=VALUE"));
}

#[test]
fn an_unknown_strategy_is_exit_2_with_the_known_ones() {
    for command in
        [&["migrate", "board", "--to", "b", "--strategy", "teleport"][..], &["demo", "--strategy", "teleport"]]
    {
        let output = segue().args(command).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        for word in ["teleport", "live", "precopy", "ms2m", "stop-and-copy"] {
            assert!(told(&output).contains(word), "{}", told(&output));
        }
    }
}

#[test]
fn what_is_no_id_of_a_migration_is_exit_2_and_says_where_ids_are() {
    for command in ["undo", "retire", "cancel"] {
        for id in ["", "foo", "a b/c", "../nodes", "0f"] {
            let output = segue().args(["migration", command, id]).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{command} {id:?}: {}", told(&output));
            assert!(told(&output).contains("`segue migration ls` tell it"), "{}", told(&output));
        }
        let id = "0123456789abcdef0123456789abcdef";
        let output = segue().args(["migration", command, id, "--migrator", "http://127.0.0.1:1"]).output().unwrap();
        assert_eq!(output.status.code(), Some(4));
        assert!(told(&output).starts_with("segue: nobody answers at http://127.0.0.1:1"), "{}", told(&output));
    }
}

#[test]
fn a_migrator_that_does_not_answer_is_named() {
    let migrate = ["migrate", "board", "--to", "b", "--migrator"];
    let output = segue().args(migrate).arg("http://127.0.0.1:1").output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(told(&output).starts_with("segue: nobody answers at http://127.0.0.1:1"), "{}", told(&output));
    let output = segue().args(migrate).arg("127.0.0.1:1").output().unwrap();
    assert!(told(&output).contains("use http://HOST:PORT"), "{}", told(&output));
}
