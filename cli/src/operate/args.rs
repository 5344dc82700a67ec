//! What an operator can ask of a running system, as flags and words.

use std::path::PathBuf;

use broker_adapter::ids::MigrationId;
use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use crate::args::ConfigArguments;

/// Told by `--help` of every command that asks a migrator.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed for another reason; standard error says which
  2    wrong arguments or configuration
  3    refused: it cannot be done as things stand; the hint and the checks say what to do
  4    the migrator or the broker cannot be reached, or does not answer in time
  5    no valid token, or its role may not do this
  6    there is no such migration, service, node or checkpoint
  7    the migration ended otherwise: rolled back, failed or cancelled
  8    the migration ended because source and target differ
  9    a check found something wrong (doctor, verify)
  130  stopped by Ctrl-C; what was ordered goes on";

/// How results are written to standard output; messages go to standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    #[default]
    Table,
    /// One JSON value, as REST gives it.
    Json,
    /// One JSON value per line: each item of a list, each step of what is watched.
    Jsonl,
}

/// Whom to ask, and how the answer is written.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Asking")]
pub struct AskArguments {
    /// Where the migrator serves REST.
    #[arg(long, value_name = "URL", env = "SEGUE_MIGRATOR", default_value = "http://127.0.0.1:7272")]
    pub migrator: String,
    /// The file that holds the token, if the migrator wants one; SEGUE_TOKEN holds the token itself.
    #[arg(long, value_name = "FILE", env = "SEGUE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Who signed the certificate of a migrator at https://, as PEM, if the system does not trust them.
    #[arg(long, value_name = "FILE", env = "SEGUE_CA")]
    pub ca: Option<PathBuf>,
    /// How the result is written.
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = Form::Table)]
    pub output: Form,
}

/// What is ordered goes on without whoever watches it.
#[derive(Clone, Debug, Args)]
pub struct OrderArguments {
    /// Shows the phases and waits for the end.
    #[arg(long)]
    pub watch: bool,
    #[command(flatten)]
    pub ask: AskArguments,
}

/// One migration.
#[derive(Clone, Debug, Args)]
pub struct MigrationArguments {
    /// Its id, as `segue migrate` and `segue migration ls` tell it.
    #[arg(value_parser = migration_id)]
    pub id: MigrationId,
    #[command(flatten)]
    pub ask: AskArguments,
}

/// What follows a migration.
#[derive(Clone, Debug, Args)]
pub struct FollowUpArguments {
    /// The migration's id, as `segue migrate` and `segue migration ls` tell it.
    #[arg(value_parser = migration_id)]
    pub id: MigrationId,
    #[command(flatten)]
    pub order: OrderArguments,
}

/// `segue migration …`.
#[derive(Debug, Subcommand)]
pub enum MigrationCommand {
    /// Lists migrations, the newest first.
    #[command(after_help = EXIT_CODES)]
    Ls {
        /// Only of this service.
        #[arg(long)]
        service: Option<String>,
        /// Only from or to this node.
        #[arg(long)]
        node: Option<String>,
        /// Only those that ended so: completed, rolled-back, failed, diverged, cancelled.
        #[arg(long)]
        outcome: Option<String>,
        /// Only those that run.
        #[arg(long, conflicts_with = "outcome")]
        running: bool,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        #[command(flatten)]
        ask: AskArguments,
    },
    /// Shows one migration: its phases, proof, blackout and what went wrong.
    #[command(after_help = EXIT_CODES)]
    Show(MigrationArguments),
    /// Follows a migration to its end.
    #[command(after_help = EXIT_CODES)]
    Watch(MigrationArguments),
    /// Asks a running migration to end.
    #[command(after_help = EXIT_CODES)]
    Cancel(FollowUpArguments),
    /// Moves a service back to where a completed migration took it from.
    #[command(after_help = EXIT_CODES)]
    Undo(FollowUpArguments),
    /// Retires the standby that a completed migration left.
    #[command(after_help = EXIT_CODES)]
    Retire(FollowUpArguments),
    /// Writes everything known of a migration into one JSON file, which the dashboard opens offline.
    #[command(after_help = EXIT_CODES)]
    Record {
        #[command(flatten)]
        migration: MigrationArguments,
        /// The file; standard output if it is not given.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

/// `segue service …`.
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Lists services: their owners, standbys, rates and checkpoints.
    #[command(after_help = EXIT_CODES)]
    Ls {
        #[command(flatten)]
        ask: AskArguments,
    },
    /// Shows one service and its replicas.
    #[command(after_help = EXIT_CODES)]
    Show {
        /// Its name.
        service: String,
        #[command(flatten)]
        ask: AskArguments,
    },
    /// Why a service is where it is, and whereto it can move or why not.
    #[command(after_help = EXIT_CODES)]
    Why {
        /// Its name.
        service: String,
        /// Which part of it.
        #[arg(long, default_value = "0")]
        shard: String,
        #[command(flatten)]
        ask: AskArguments,
    },
}

/// `segue node …`.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Lists nodes and what they own.
    #[command(after_help = EXIT_CODES)]
    Ls {
        #[command(flatten)]
        ask: AskArguments,
    },
    /// Shows one node and its replicas.
    #[command(after_help = EXIT_CODES)]
    Show {
        /// Its name.
        node: String,
        #[command(flatten)]
        ask: AskArguments,
    },
    /// Moves everything that a node owns to other nodes.
    #[command(after_help = EXIT_CODES)]
    Drain {
        /// Its name.
        node: String,
        /// How many move at a time.
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
        at_a_time: u32,
        /// Why, for people.
        #[arg(long)]
        reason: Option<String>,
        /// Only tells what would move and what cannot.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        ask: AskArguments,
    },
}

/// A shard of a service.
#[derive(Clone, Debug, Args)]
pub struct ShardArguments {
    /// The service.
    pub service: String,
    /// Which part of it.
    #[arg(long, default_value = "0")]
    pub shard: String,
}

/// The broker itself is asked, by the migrator's configuration; no migrator needs to run.
#[derive(Debug, Args)]
#[command(next_help_heading = "The broker")]
pub struct DirectArguments {
    #[command(flatten)]
    pub config: ConfigArguments,
    /// The broker's URL.
    #[arg(long, value_name = "URL")]
    pub broker: Option<String>,
    /// How the result is written.
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = Form::Table)]
    pub output: Form,
}

/// `segue checkpoint …`.
#[derive(Debug, Subcommand)]
pub enum CheckpointCommand {
    /// Lists the checkpoints of a service.
    #[command(after_help = EXIT_CODES)]
    Ls {
        #[command(flatten)]
        shard: ShardArguments,
        #[command(flatten)]
        ask: AskArguments,
    },
    /// Has the owner take a checkpoint now.
    #[command(after_help = EXIT_CODES)]
    Create {
        #[command(flatten)]
        shard: ShardArguments,
        #[command(flatten)]
        ask: AskArguments,
    },
    /// Reads kept checkpoints whole, from the store, and checks every hash.
    #[command(after_help = EXIT_CODES)]
    Verify {
        #[command(flatten)]
        shard: ShardArguments,
        /// Only the one at this position.
        #[arg(long, value_name = "N")]
        position: Option<u64>,
        #[command(flatten)]
        broker: DirectArguments,
    },
    /// Writes a checkpoint into one file, which `import` takes again; it holds the service's state, and perhaps secrets.
    #[command(after_help = EXIT_CODES)]
    Export(Box<ExportArguments>),
    /// Takes a file that `export` wrote: puts back what the store has lost of a checkpoint that the log keeps, or begins a service
    /// whose log has no checkpoint yet. Anything else is refused.
    #[command(after_help = EXIT_CODES)]
    Import(Box<ImportArguments>),
}

/// `segue checkpoint export`: the migrator is asked; with --config or --broker the store itself is read, and no migrator needs to run.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("store").args(["config", "broker"]).multiple(true))]
pub struct ExportArguments {
    #[command(flatten)]
    pub shard: ShardArguments,
    /// The one at this position; the newest if not given.
    #[arg(long, value_name = "N")]
    pub position: Option<u64>,
    /// The file; it must not exist.
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// Only the service's state, as the service saved it. It cannot be imported; needs --config or --broker.
    #[arg(long, requires = "store")]
    pub state: bool,
    #[command(flatten)]
    pub ask: AskArguments,
    #[command(flatten)]
    pub config: ConfigArguments,
    /// The broker's URL: reads the store itself.
    #[arg(long, value_name = "URL")]
    pub broker: Option<String>,
}

impl ExportArguments {
    /// Whether the store itself is read.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.broker.is_some() || self.config.config.is_some()
    }

    /// Where the store is.
    #[must_use]
    pub fn direct(&self) -> DirectArguments {
        DirectArguments { config: self.config.clone(), broker: self.broker.clone(), output: self.ask.output }
    }
}

/// `segue checkpoint import`.
#[derive(Clone, Debug, Args)]
pub struct ImportArguments {
    /// What `segue checkpoint export` wrote.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The service that takes it.
    #[arg(long, value_name = "NAME")]
    pub service: String,
    /// Which part of it.
    #[arg(long, value_name = "N", default_value = "0")]
    pub shard: String,
    /// The archive's own service, if a service of another name begins with its state.
    #[arg(long, value_name = "NAME")]
    pub from: Option<String>,
    /// Where a service that has not begun is to begin; needed if several nodes can run it.
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// What the service holds there already may be replaced, after a copy was kept.
    #[arg(long)]
    pub replace_state: bool,
    /// Reads and checks the whole file, and tells what would be done.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub ask: AskArguments,
}

/// `segue log …`.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Shows the last records of a service's log; bodies are cut and credentials hidden.
    #[command(after_help = EXIT_CODES)]
    Tail {
        #[command(flatten)]
        shard: ShardArguments,
        /// How many.
        #[arg(short = 'n', long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        count: u32,
        /// From this position on, instead of the last ones.
        #[arg(long, value_name = "POSITION")]
        from: Option<u64>,
        /// Goes on with what comes.
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        ask: AskArguments,
    },
    /// Reads the whole log from the broker: how many records of each kind, what counted, who owned when.
    #[command(after_help = EXIT_CODES)]
    Stats {
        #[command(flatten)]
        shard: ShardArguments,
        #[command(flatten)]
        broker: DirectArguments,
    },
    /// Reads the whole log from the broker and checks positions, checksums and that a checkpoint leads to its beginning.
    #[command(after_help = EXIT_CODES)]
    Verify {
        #[command(flatten)]
        shard: ShardArguments,
        #[command(flatten)]
        broker: DirectArguments,
    },
}

fn migration_id(text: &str) -> Result<MigrationId, String> {
    text.parse().map_err(|_| {
        "a migration's id is 32 hexadecimal digits; `segue migrate` and `segue migration ls` tell it".to_owned()
    })
}
