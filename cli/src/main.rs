//! The binary `segue`: reads the command line and the configuration, and starts what was asked for. Wiring only.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong arguments or configuration; an operator's commands tell more causes apart. Long-running commands end by signal, at any
//! moment: nothing that was acknowledged needs a clean end.

mod args;
mod bench;
mod board;
mod broker;
mod config;
mod demo;
mod logging;
mod migration;
mod operate;
mod rest;
mod serve;
mod traces;
mod with_parent;

use std::io::Write;
use std::process::ExitCode;

use broker_adapter::shell::{Shell, real};
use clap::{CommandFactory, Parser};

use args::{Arguments, Command};
use config::ConfigError;
use operate::{Asked, OperateError};
use traces::{Traces, TracesError};

/// Why the program ends without success.
enum Failure {
    /// The configuration is wrong.
    Config(ConfigError),
    /// The variables that ask for traces are wrong.
    Traces(TracesError),
    /// Something else, for people.
    Other(String),
    /// What an operator asked for did not succeed.
    Operate(OperateError),
    /// It was told already, as a result.
    Told,
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::Config(error)
    }
}

fn main() -> ExitCode {
    let failure = match run(Arguments::parse().command) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(failure) => failure,
    };
    match failure {
        Failure::Config(error) => {
            eprintln!("segue: {error}");
            ExitCode::from(2)
        }
        Failure::Traces(error) => {
            eprintln!("segue: {error}");
            ExitCode::from(2)
        }
        Failure::Other(reason) => {
            eprintln!("segue: {reason}");
            ExitCode::FAILURE
        }
        Failure::Operate(error) => {
            eprintln!("segue: {error}");
            ExitCode::from(error.exit_code())
        }
        Failure::Told => ExitCode::FAILURE,
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::WithParent(arguments) => Err(other(with_parent::run(&arguments))),
        Command::DelayBoard(arguments) => {
            logging::start("info");
            one_thread(async |shell| {
                let address = board::serve(&arguments.listen, arguments.state_mb, shell).await.map_err(|error| {
                    Failure::Other(format!("the delay board cannot listen on {}: {error}", arguments.listen))
                })?;
                tracing::info!(%address, "the delay board serves");
                std::future::pending().await
            })
        }
        Command::Migrate(arguments) => operate(Asked::Migrate(arguments)),
        Command::Migration(command) => operate(Asked::Migration(command)),
        Command::Service(command) => operate(Asked::Service(command)),
        Command::Node(command) => operate(Asked::Node(command)),
        Command::Checkpoint(command) => operate(Asked::Checkpoint(command)),
        Command::Log(command) => operate(Asked::Log(command)),
        Command::Doctor(arguments) => operate(Asked::Doctor(arguments)),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "segue", &mut text);
            std::io::stdout().write_all(&text).map_err(other)
        }
        Command::Demo(arguments) => {
            logging::start("warn");
            let good = one_thread(async |shell| demo::run(arguments, shell).await.map_err(other))?;
            if good { Ok(()) } else { Err(Failure::Told) }
        }
        Command::Bench(command) => {
            logging::start("warn");
            many_threads(async |shell| bench::run(command, shell).await.map_err(other))
        }
        Command::Broker(arguments) => server("segue-broker", async |shell, _| broker::run(&arguments, shell).await),
        Command::Migrator(arguments) => {
            server("segue-migrator", async |shell, _| serve::migrator(&arguments, shell).await)
        }
        Command::Sidecar(arguments) => {
            server("segue-sidecar", async |shell, traces| serve::sidecar(&arguments, traces, shell).await)
        }
    }
}

/// Under this name in traces.
fn server(name: &'static str, work: impl AsyncFnOnce(Shell, &Traces) -> Result<(), Failure>) -> Result<(), Failure> {
    let traces = logging::start_server(name).map_err(Failure::Traces)?;
    many_threads(async |shell| traces.around(work(shell, &traces)).await)
}

fn operate(asked: Asked) -> Result<(), Failure> {
    logging::start("warn");
    one_thread(async |shell| operate::run(asked, &shell).await.map_err(Failure::Operate))
}

fn other(error: impl std::error::Error) -> Failure {
    Failure::Other(error.to_string())
}

/// For what mostly waits: everything on the main thread, which lasts as long as the process.
fn one_thread<T>(work: impl AsyncFnOnce(Shell) -> Result<T, Failure>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(other)?;
    let (shell, _tasks) = real::process();
    runtime.block_on(work(shell))
}

/// For servers.
fn many_threads<T>(work: impl AsyncFnOnce(Shell) -> Result<T, Failure>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(other)?;
    let (shell, _tasks) = real::process();
    runtime.block_on(work(shell))
}
