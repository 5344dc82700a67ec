//! Golden tests: each command against made-up answers, what it writes beside what it is to write. After a change that is meant,
//! `SEGUE_WRITE_GOLDEN=1 cargo test -p cli golden` writes the files again: look at their difference.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use broker_adapter::shell::{Shell, sim::SimWorld};
use clap::Parser;
use serde_json::Value;

use super::show::Out;
use super::{Asked, OperateError, answer};
use crate::args::{Arguments, Command};

const ANSWERS: &str = include_str!("answers.json");
const ADDRESS: &str = "127.0.0.1:7272";

/// What a command wrote.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panicked with it").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("nobody panicked with it").clone()).unwrap()
    }
}

/// The answers by `METHOD PATH`; several for one are given one after the other, the last again and again.
#[derive(Clone)]
struct MadeUp {
    answers: Arc<Value>,
    asked: Arc<Mutex<Vec<String>>>,
}

async fn made_up(State(made_up): State<MadeUp>, headers: HeaderMap, request: Request) -> Response {
    let mut asked = format!("{} {}", request.method(), request.uri());
    let content = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap_or_default();
    let order: Value = serde_json::from_slice(&content).unwrap_or_default();
    if let Some(to) = order["to"].as_str() {
        asked += &format!(" to {to}");
    }
    let mut log = made_up.asked.lock().expect("nobody panicked with it");
    let times = log.iter().filter(|before| **before == asked).count();
    log.push(asked.clone());
    if headers.get(header::AUTHORIZATION).is_some_and(|token| token != "Bearer right") {
        return (StatusCode::UNAUTHORIZED, r#"{"code": "bad-token", "title": "Token not known"}"#).into_response();
    }
    let Some(answers) = made_up.answers[&asked].as_array() else {
        return (StatusCode::NOT_FOUND, format!(r#"{{"code": "no-such-path", "title": "{asked} is not made up"}}"#))
            .into_response();
    };
    let answer = &answers[times.min(answers.len() - 1)];
    let status = StatusCode::from_u16(u16::try_from(answer["status"].as_u64().unwrap_or(200)).unwrap()).unwrap();
    let body = answer["text"].as_str().map_or_else(|| answer["body"].to_string(), str::to_owned);
    (status, body).into_response()
}

/// Runs one command line; what it wrote as data and as notes, and how it ended.
async fn run(line: &str) -> (String, String, Result<(), OperateError>) {
    let world = SimWorld::new(1);
    let (shell, _tasks) = world.process();
    let answers = Arc::new(serde_json::from_str(ANSWERS).unwrap());
    let router = Router::new().fallback(made_up).with_state(MadeUp { answers, asked: Arc::default() });
    let listener = shell.listen(ADDRESS).await.unwrap();
    shell.spawn(migrator::rest::serve(router, listener, shell.clone()));
    let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap_or_else(|error| panic!("{error}"));
    let asked = asked(arguments.command);
    run_asked(asked, &shell).await
}

async fn run_asked(asked: Asked, shell: &Shell) -> (String, String, Result<(), OperateError>) {
    let (data, notes) = (Written::default(), Written::default());
    let form = asked.form();
    let out = Out { data: Box::new(data.clone()), notes: Box::new(notes.clone()), live: false, form };
    let result = answer(asked, shell, out).await;
    (data.text(), notes.text(), result)
}

fn asked(command: Command) -> Asked {
    match command {
        Command::Migrate(arguments) => Asked::Migrate(arguments),
        Command::Migration(command) => Asked::Migration(command),
        Command::Service(command) => Asked::Service(command),
        Command::Node(command) => Asked::Node(command),
        Command::Checkpoint(command) => Asked::Checkpoint(command),
        Command::Log(command) => Asked::Log(command),
        Command::Doctor(arguments) => Asked::Doctor(arguments),
        other => panic!("{other:?} asks nobody"),
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/operate/tests/golden").join(format!("{name}.txt"))
}

#[tokio::test(start_paused = true)]
async fn golden_what_each_command_writes() {
    let id = "00000000000000000000000000000abc";
    let lines = [
        ("migrate", "segue migrate delay-board --to edge-b".to_owned()),
        ("migrate-dry-run", "segue migrate delay-board --to edge-c --dry-run".to_owned()),
        ("migrate-refused", "segue migrate delay-board --to edge-d".to_owned()),
        ("migration-ls", "segue migration ls".to_owned()),
        ("migration-ls-jsonl", "segue migration ls -o jsonl".to_owned()),
        ("migration-show", format!("segue migration show {id}")),
        ("migration-watch", format!("segue migration watch {id}")),
        ("migration-cancel", format!("segue migration cancel {id} -o json")),
        ("migration-unknown", "segue migration show 00000000000000000000000000000def".to_owned()),
        ("service-ls", "segue service ls".to_owned()),
        ("service-show", "segue service show delay-board".to_owned()),
        ("service-why", "segue service why delay-board".to_owned()),
        ("node-ls", "segue node ls".to_owned()),
        ("node-show", "segue node show edge-a".to_owned()),
        ("node-drain", "segue node drain edge-a --dry-run".to_owned()),
        ("checkpoint-ls", "segue checkpoint ls delay-board".to_owned()),
        ("checkpoint-import", "segue checkpoint import Cargo.toml --service delay-board --dry-run".to_owned()),
        (
            "checkpoint-import-begin",
            "segue checkpoint import Cargo.toml --service delay-board --from old-board --node edge-b --replace-state -o json"
                .to_owned(),
        ),
        ("checkpoint-import-refused", "segue checkpoint import Cargo.toml --service delay-board".to_owned()),
        ("checkpoint-export-unknown", "segue checkpoint export delay-board --position 12 --to never-written".to_owned()),
        ("log-tail", "segue log tail delay-board -n 3".to_owned()),
        ("doctor", "segue doctor".to_owned()),
    ];
    let mut different = Vec::new();
    for (name, line) in lines {
        let (data, notes, result) = run(&line).await;
        let (code, error) = match &result {
            Ok(()) => (0, String::new()),
            Err(error) => (error.exit_code(), format!("segue: {error}\n")),
        };
        let written = format!("$ {line}\n{data}--- standard error, exit code {code}\n{notes}{error}");
        if std::env::var_os("SEGUE_WRITE_GOLDEN").is_some() {
            std::fs::write(golden(name), &written).unwrap();
        }
        let expected = std::fs::read_to_string(golden(name)).unwrap_or_default();
        if written != expected {
            different.push(format!("== {name}\nexpected:\n{expected}\nwritten:\n{written}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn a_plain_state_is_exported_only_from_the_store_itself() {
    let parse = |more: &str| {
        let line = format!("segue checkpoint export delay-board --to x --state {more}");
        Arguments::try_parse_from(line.split_whitespace())
    };
    assert!(parse("").unwrap_err().to_string().contains("--broker"));
    for direct in ["--broker segue://127.0.0.1:1", "--config migrator.toml"] {
        assert!(matches!(asked(parse(direct).unwrap().command), Asked::Checkpoint(_)), "{direct}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_json_line_is_json() {
    for line in ["segue migration ls -o jsonl", "segue service ls -o jsonl", "segue doctor -o jsonl"] {
        let (data, _, _) = run(line).await;
        assert!(data.lines().count() > 1, "{line}: {data}");
        for line in data.lines() {
            serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_shown_and_a_wrong_one_has_its_exit_code() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let line = format!("segue service ls --token-file {}", file.path().display());
    for (token, code) in [("right\n", None), ("wrong", Some(5)), ("two words", Some(2)), ("", Some(2))] {
        std::fs::write(file.path(), token).unwrap();
        let (_, _, result) = run(&line).await;
        assert_eq!(result.as_ref().err().map(OperateError::exit_code), code, "{token:?}: {result:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_migrator_that_is_not_there_is_told_apart() {
    let (_, _, result) = run("segue service ls --migrator http://127.0.0.1:1").await;
    let error = result.unwrap_err();
    assert_eq!(error.exit_code(), 4);
    assert!(error.to_string().contains("--migrator"), "{error}");
}
