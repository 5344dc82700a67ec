//! The operator's commands: what they ask REST or the broker, and how the answers are written.
//!
//! ```text
//! args.rs ─▶ migrations, services, checkpoints, log, doctor ─▶ ask.rs ─▶ REST     (JSON in, JSON out; archives.rs: files)
//!                     │                          └──────────▶ direct.rs ─▶ broker (verify, stats, export)
//!                     └─▶ show.rs: data on standard output, messages on standard error
//! ```
//! Nothing here decides anything: refusals are the migrator's, in its words.

mod archives;
pub mod args;
mod ask;
mod checkpoints;
mod direct;
mod doctor;
mod failure;
mod log;
mod migrations;
mod services;
mod show;
#[cfg(test)]
mod tests;
mod watch;

use std::io::{self, IsTerminal};

use broker_adapter::shell::Shell;
use tokio::signal::unix::{SignalKind, signal};

use args::{AskArguments, CheckpointCommand, Form, LogCommand, MigrationCommand, NodeCommand, ServiceCommand};
use ask::Asker;
pub use failure::OperateError;
use show::Out;

use crate::args::MigrateArguments;

/// Everything that can be asked.
#[derive(Debug)]
pub enum Asked {
    /// `segue migrate`.
    Migrate(Box<MigrateArguments>),
    /// `segue migration …`.
    Migration(MigrationCommand),
    /// `segue service …`.
    Service(ServiceCommand),
    /// `segue node …`.
    Node(NodeCommand),
    /// `segue checkpoint …`.
    Checkpoint(CheckpointCommand),
    /// `segue log …`.
    Log(LogCommand),
    /// `segue doctor`.
    Doctor(AskArguments),
}

/// Who asks, and where the answers go.
pub struct Operator {
    asker: Asker,
    out: Out,
}

/// Does what is asked, on the process's own standard streams.
///
/// # Errors
/// [`OperateError`]; [`OperateError::exit_code`] tells the cause to programs.
pub async fn run(asked: Asked, shell: &Shell) -> Result<(), OperateError> {
    let form = asked.form();
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let live = io::stderr().is_terminal() && !plain && form == Form::Table;
    let out = Out { data: Box::new(io::stdout()), notes: Box::new(io::stderr()), live, form };
    answer(asked, shell, out).await
}

async fn answer(asked: Asked, shell: &Shell, mut out: Out) -> Result<(), OperateError> {
    let ask = match &asked {
        Asked::Migrate(arguments) => &arguments.order.ask,
        Asked::Migration(command) => command.ask(),
        Asked::Service(
            ServiceCommand::Ls { ask } | ServiceCommand::Show { ask, .. } | ServiceCommand::Why { ask, .. },
        )
        | Asked::Node(NodeCommand::Ls { ask } | NodeCommand::Show { ask, .. } | NodeCommand::Drain { ask, .. })
        | Asked::Checkpoint(CheckpointCommand::Ls { ask, .. } | CheckpointCommand::Create { ask, .. })
        | Asked::Log(LogCommand::Tail { ask, .. })
        | Asked::Doctor(ask) => ask,
        Asked::Checkpoint(CheckpointCommand::Import(arguments)) => &arguments.ask,
        Asked::Checkpoint(CheckpointCommand::Export(arguments)) if !arguments.is_direct() => &arguments.ask,
        Asked::Checkpoint(command) => return direct::checkpoint(command, shell, &mut out).await,
        Asked::Log(command) => return direct::log(command, shell, &mut out).await,
    };
    let mut operator = Operator { asker: Asker::new(ask, shell)?, out };
    match &asked {
        Asked::Migrate(arguments) => migrations::migrate(arguments, &mut operator).await,
        Asked::Migration(command) => migrations::run(command, &mut operator).await,
        Asked::Service(command) => services::services(command, &mut operator).await,
        Asked::Node(command) => services::nodes(command, &mut operator).await,
        Asked::Checkpoint(command) => checkpoints::run(command, &mut operator).await,
        Asked::Log(command) => log::run(command, &mut operator).await,
        Asked::Doctor(_) => doctor::run(&mut operator).await,
    }
}

impl Asked {
    fn form(&self) -> Form {
        match self {
            Asked::Migrate(arguments) => arguments.order.ask.output,
            Asked::Migration(command) => command.ask().output,
            Asked::Service(
                ServiceCommand::Ls { ask } | ServiceCommand::Show { ask, .. } | ServiceCommand::Why { ask, .. },
            )
            | Asked::Node(NodeCommand::Ls { ask } | NodeCommand::Show { ask, .. } | NodeCommand::Drain { ask, .. })
            | Asked::Checkpoint(CheckpointCommand::Ls { ask, .. } | CheckpointCommand::Create { ask, .. })
            | Asked::Log(LogCommand::Tail { ask, .. })
            | Asked::Doctor(ask) => ask.output,
            Asked::Checkpoint(CheckpointCommand::Import(arguments)) => arguments.ask.output,
            Asked::Checkpoint(CheckpointCommand::Export(arguments)) => arguments.ask.output,
            Asked::Checkpoint(CheckpointCommand::Verify { broker, .. })
            | Asked::Log(LogCommand::Stats { broker, .. } | LogCommand::Verify { broker, .. }) => broker.output,
        }
    }
}

impl MigrationCommand {
    fn ask(&self) -> &AskArguments {
        match self {
            MigrationCommand::Ls { ask, .. } => ask,
            MigrationCommand::Show(of) | MigrationCommand::Watch(of) => &of.ask,
            MigrationCommand::Record { migration, .. } => &migration.ask,
            MigrationCommand::Cancel(of) | MigrationCommand::Undo(of) | MigrationCommand::Retire(of) => &of.order.ask,
        }
    }
}

/// Resolves at Ctrl-C.
async fn interrupt() {
    match signal(SignalKind::interrupt()) {
        Ok(mut interrupt) => {
            interrupt.recv().await;
        }
        // Then the signal ends the process, as it does everywhere else.
        Err(_) => std::future::pending().await,
    }
}
