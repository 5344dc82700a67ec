//! The binary `segue`: reads the command line and the configuration, and starts what was asked for. Wiring only.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong arguments or configuration. Long-running commands end by signal, at any
//! moment: nothing that was acknowledged needs a clean end.

mod args;
mod bench;
mod board;
mod config;
mod demo;
mod logging;
mod migrate;
mod migration;
mod rest;
mod serve;
mod with_parent;

use std::process::ExitCode;

use broker_adapter::shell::{Shell, real};
use clap::Parser;

use args::{Arguments, Command};
use config::ConfigError;

/// Why the program ends without success.
enum Failure {
    /// The configuration is wrong.
    Config(ConfigError),
    /// Something else, for people.
    Other(String),
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
        Failure::Other(reason) => {
            eprintln!("segue: {reason}");
            ExitCode::FAILURE
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
        Command::Migrate(arguments) => {
            logging::start("warn");
            one_thread(async |shell| migrate::run(&arguments, shell).await.map_err(other))
        }
        Command::Undo(arguments) => follow_up("undo", &arguments),
        Command::Retire(arguments) => follow_up("retire", &arguments),
        Command::Cancel(arguments) => follow_up("cancel", &arguments),
        Command::Demo(arguments) => {
            logging::start("warn");
            let good = one_thread(async |shell| demo::run(arguments, shell).await.map_err(other))?;
            if good { Ok(()) } else { Err(Failure::Told) }
        }
        Command::Bench(command) => {
            logging::start("warn");
            many_threads(async |shell| bench::run(command, shell).await.map_err(other))
        }
        Command::Broker(arguments) => {
            logging::start("info");
            many_threads(async |shell| serve::broker(&arguments, shell).await)
        }
        Command::Migrator(arguments) => {
            logging::start("info");
            many_threads(async |shell| serve::migrator(&arguments, shell).await)
        }
        Command::Sidecar(arguments) => {
            logging::start("info");
            many_threads(async |shell| serve::sidecar(&arguments, shell).await)
        }
    }
}

fn follow_up(what: &str, arguments: &args::FollowUpArguments) -> Result<(), Failure> {
    logging::start("warn");
    one_thread(async |shell| migrate::follow_up(what, arguments, shell).await.map_err(other))
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
