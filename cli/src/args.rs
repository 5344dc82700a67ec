//! The command line: what can be asked of `segue`, and which flags stand for which configuration keys.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{ConfigError, Override, parse_set};
use crate::operate::args::{
    AskArguments, CheckpointCommand, EXIT_CODES, LogCommand, MigrationCommand, NodeCommand, OrderArguments,
    ServiceCommand,
};

/// Moves a running stateful service from one device to another without stopping it.
#[derive(Debug, Parser)]
#[command(name = "segue", version, propagate_version = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows a service that moves between two devices under load, and checks that nothing was lost.
    Demo(DemoArguments),
    /// Serves the embedded broker to other processes.
    Broker(BrokerArguments),
    /// Serves the REST interface and carries migrations out.
    Migrator(MigratorArguments),
    /// Runs beside the services of one device.
    Sidecar(SidecarArguments),
    /// Moves a service to a node.
    #[command(after_help = EXIT_CODES)]
    Migrate(Box<MigrateArguments>),
    /// Migrations: list, show, watch, cancel, undo, retire, record.
    #[command(subcommand)]
    Migration(MigrationCommand),
    /// Services: list, show, why they are where they are.
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Nodes: list, show, drain.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Checkpoints: list, create, verify, export, import.
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),
    /// Logs: their last records, what they hold, whether they are sound.
    #[command(subcommand)]
    Log(LogCommand),
    /// Looks at everything: what is reachable, durable, lagging; what to do.
    #[command(after_help = EXIT_CODES)]
    Doctor(AskArguments),
    /// Writes a shell's completions to standard output.
    Completions {
        /// Whose.
        shell: clap_complete::Shell,
    },
    /// Measures parts of the system on this machine.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// The service that the demo moves.
    #[command(hide = true)]
    DelayBoard(DelayBoardArguments),
    /// Runs a command that is killed when the process that started it ends.
    #[command(hide = true)]
    WithParent(WithParentArguments),
}

/// Where a configuration comes from; SEGUE_COMMAND__KEY variables lie between the file and the flags.
#[derive(Clone, Debug, Args)]
pub struct ConfigArguments {
    /// The TOML file; configs/ has commented samples.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Sets any key over file and environment, as in --set service.0.listen=127.0.0.1:8080.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Debug, Args)]
pub struct BrokerArguments {
    #[command(flatten)]
    pub config: ConfigArguments,
    /// Where other processes reach it, as HOST:PORT.
    #[arg(long)]
    pub listen: Option<String>,
    /// The folder of its logs and checkpoints.
    #[arg(long)]
    pub path: Option<String>,
    /// Where health and metrics are served, as HOST:PORT.
    #[arg(long)]
    pub admin: Option<String>,
}

#[derive(Debug, Args)]
pub struct MigratorArguments {
    #[command(flatten)]
    pub config: ConfigArguments,
    /// Where REST is served, as HOST:PORT.
    #[arg(long)]
    pub listen: Option<String>,
    /// The broker's URL.
    #[arg(long)]
    pub broker: Option<String>,
}

#[derive(Debug, Args)]
pub struct SidecarArguments {
    #[command(flatten)]
    pub config: ConfigArguments,
    /// This device's name.
    #[arg(long)]
    pub node: Option<String>,
    /// The broker's URL.
    #[arg(long)]
    pub broker: Option<String>,
    /// Where health and metrics are served, as HOST:PORT.
    #[arg(long)]
    pub admin: Option<String>,
    /// Replaces states of unknown origin on first contact, after copies of them were kept.
    #[arg(long)]
    pub replace_state: bool,
}

impl ConfigArguments {
    /// What the flags say, the named ones last: they are what the user sees first.
    ///
    /// # Errors
    /// If a `--set` has no `=`.
    pub fn overrides(&self, named: &[(&str, &Option<String>)]) -> Result<Vec<Override>, ConfigError> {
        let set = self.set.iter().map(|set| parse_set(set)).collect::<Result<Vec<_>, _>>()?;
        let named = named.iter().filter_map(|(key, value)| {
            // A named flag's value is text, whatever it looks like.
            let quoted = toml::Value::String((*value).clone()?).to_string();
            Some(Override::flag(&format!("--{key}"), key, &quoted))
        });
        Ok(set.into_iter().chain(named).collect())
    }
}

#[derive(Debug, Args)]
pub struct MigrateArguments {
    /// The service that moves.
    pub service: String,
    /// The node it moves to.
    #[arg(long, value_name = "NODE")]
    pub to: String,
    /// How it moves.
    #[arg(long, value_name = "STRATEGY", default_value = "live", value_parser = STRATEGIES)]
    pub strategy: String,
    /// How long the source may be paused before it takes itself back (precopy, ms2m, stop-and-copy).
    #[arg(long, value_name = "MS")]
    pub pause_limit_ms: Option<u64>,
    /// How long the replay may take before the source is stopped (ms2m).
    #[arg(long, value_name = "MS")]
    pub cutoff_ms: Option<u64>,
    /// How long the source stays a standby afterwards.
    #[arg(long, value_name = "S")]
    pub keep_standby_s: Option<u64>,
    /// Hands over even if nothing proves that source and target are equal.
    #[arg(long)]
    pub allow_unproven: bool,
    /// Which part of the service.
    #[arg(long, value_name = "SHARD")]
    pub shard: Option<String>,
    /// Refuses if the plan expects a longer blackout.
    #[arg(long, value_name = "MS")]
    pub max_blackout_ms: Option<u64>,
    /// Rolls back if it has not completed by then.
    #[arg(long, value_name = "S")]
    pub deadline_s: Option<u64>,
    /// Why, for people.
    #[arg(long)]
    pub reason: Option<String>,
    /// Only runs all checks and shows the plan; nothing is changed.
    #[arg(long)]
    pub dry_run: bool,
    /// The same key gives the same migration, however often it is asked for.
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    #[command(flatten)]
    pub order: OrderArguments,
}

/// The strategies' names.
const STRATEGIES: [&str; 4] = ["live", "precopy", "ms2m", "stop-and-copy"];

#[derive(Clone, Debug, Args)]
pub struct DemoArguments {
    /// How it moves.
    #[arg(long, value_name = "STRATEGY", default_value = "live", value_parser = STRATEGIES)]
    pub strategy: String,
    /// Requests per second.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: u32,
    /// How often the service moves.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub moves: u32,
    /// How many times the file of 27,004 flights is sent.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// Padding of the service's state, in MB: incompressible, and a part of it changed by each request.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=4096))]
    pub state_mb: u64,
    /// On which broker: `embedded`; `nats`, `nats=PROGRAM` or `kafka` (start an installed server); or the URL of one that runs
    /// (nats://HOST:PORT, kafka://HOST:PORT).
    #[arg(long, value_name = "BROKER", default_value = "embedded")]
    pub broker: String,
    /// Where the server that `--broker kafka` starts is installed: the folder in which its `libs` lies.
    #[arg(long, value_name = "FOLDER", env = "SEGUE_KAFKA_HOME")]
    pub kafka_home: Option<PathBuf>,
    /// Writes the result as one JSON object.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Leaves everything running at the end, until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
}

#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// How fast a target replays the delay board's log, in batches and one by one.
    Replay(BenchReplayArguments),
}

#[derive(Debug, Args)]
pub struct BenchReplayArguments {
    /// Flights in the log.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub records: u64,
    /// How often each is measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub times: u32,
}

#[derive(Debug, Args)]
pub struct DelayBoardArguments {
    /// Where it serves, as HOST:PORT.
    #[arg(long)]
    pub listen: String,
    /// Padding of its state, in MB.
    #[arg(long, default_value_t = 0)]
    pub state_mb: u64,
}

#[derive(Debug, Args)]
pub struct WithParentArguments {
    /// The process that started this one; if it has ended already, the command is not run.
    #[arg(long)]
    pub parent: Option<i32>,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}
