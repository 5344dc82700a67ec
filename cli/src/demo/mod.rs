//! `segue demo`: a stateful service moves between two devices under load, and a check that nothing was lost.
//!
//! Reading order: [`layout`], [`processes`] and [`cluster`] start everything; [`load`], [`moves`] and [`witness`] run beside each
//! other; [`timeline`], [`verdict`] and [`expected`] are pure and judge; [`report`] tells.

mod broker;
mod cluster;
pub mod expected;
pub mod layout;
mod load;
mod moves;
pub mod processes;
mod progress;
mod report;
mod timeline;
mod verdict;
mod witness;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use broker_adapter::ConnectError;
use broker_adapter::ids::{ServiceName, ShardId};
use broker_adapter::log::ReadError;
use broker_adapter::shell::Shell;
use bytes::Bytes;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::args::DemoArguments;
use crate::rest::{Rest, RestError};
use broker::{Choice, ChoiceError, Server};
use cluster::StartError;
use layout::{Layout, NODE_A, SERVICE};
use load::{Load, Outcome, Plan, Sent};
use moves::{Ask, Move, Moving, Schedule};
use processes::{ProcessError, Processes};
use report::Report;
use timeline::{Span, Timeline, Window, percentile};
use verdict::{Logged, Reply};

/// How often the processes are looked at.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// Until the board must be shown.
const BOARD_LIMIT: Duration = Duration::from_secs(30);

/// Unacknowledged requests that are told one by one.
const TOLD_UNACKNOWLEDGED: usize = 5;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// There is no such broker.
    #[error(transparent)]
    Broker(#[from] ChoiceError),
    /// A process did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A process ended.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The operating system.
    #[error("{what}: {reason}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What it said.
        reason: io::Error,
    },
    /// The embedded file.
    #[error("the embedded flights cannot be read: {0}")]
    Flights(#[from] csv::Error),
    /// The service's log cannot be opened.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The service's log cannot be read.
    #[error("the log of the service cannot be read: {0}")]
    Log(#[from] ReadError),
    /// The board cannot be read.
    #[error("the board cannot be read: {0}")]
    Board(#[from] RestError),
    /// Something ended that should not have.
    #[error("the load ended without a result")]
    NoLoad,
    /// The result cannot be written.
    #[error("{path} cannot be written: {reason}", path = path.display())]
    Json {
        /// Where to.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// The user, or whoever started this.
    #[error("interrupted; everything that was started has been ended")]
    Interrupted,
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> DemoError {
    move |reason| DemoError::System { what, reason }
}

/// Runs the demo; tells whether all correctness holds.
///
/// # Errors
/// Why there is no result. Whatever was started is ended, its logs are kept.
pub async fn run(arguments: DemoArguments, shell: Shell) -> Result<bool, DemoError> {
    let mut layout =
        Layout::create(arguments.state_mb, &shell).await.map_err(system("folder and ports cannot be had"))?;
    let choice = Choice::of(&arguments, &layout.broker, &shell)?;
    let written = layout.use_broker(choice.url, arguments.state_mb);
    written.map_err(system("the configuration cannot be written"))?;
    let mut processes = Processes::default();
    let result = tokio::select! {
        biased;
        () = interrupted() => Err(DemoError::Interrupted),
        result = start_and_judge(&arguments, &layout, &choice.server, &mut processes, &shell) => result,
    };
    if arguments.keep
        && let Ok((_, owner)) = &result
    {
        tell_what_runs(&layout, &processes, owner);
        interrupted().await;
    }
    let result = result.map(|(good, _)| good);
    processes.end().await;
    if !matches!(result, Ok(true) | Err(DemoError::Interrupted)) {
        layout.keep();
        eprintln!("the logs of this run are kept in {}", layout.folder().display());
    }
    result
}

/// Tells whether all correctness holds, and which node owns the service at the end.
async fn start_and_judge(
    arguments: &DemoArguments,
    layout: &Layout,
    server: &Server,
    processes: &mut Processes,
    shell: &Shell,
) -> Result<(bool, String), DemoError> {
    let lines = expected::flights().map_err(system("the embedded flights cannot be unpacked"))?;
    println!(
        "starting broker, migrator, {} and their services in {}",
        layout.nodes.each_ref().map(|n| n.name).join(", "),
        layout.folder().display()
    );
    if let Some(told) = broker::left_behind(server, &layout.broker_url()) {
        println!("{told}");
    }
    let (broker, migrator) = cluster::start(layout, server, processes, shell).await?;
    let pids: Vec<String> = processes.pids().map(|(name, pid)| format!("{name} {pid}")).collect();
    println!("watch and move it in a browser: http://{} (pids: {})", layout.migrator, pids.join(", "));
    let shard = ShardId::whole(SERVICE.parse::<ServiceName>().expect("the demo's service has a plain name"));
    let log = broker.log(&shard.log_name()).await?;
    let witness = witness::start(log.clone(), shell);
    let plan = Plan {
        address: layout.nodes[0].ingress.clone(),
        lines: Arc::new(lines.iter().cloned().map(Bytes::from).collect()),
        requests: lines.len() * arguments.rounds as usize,
        rate_per_s: arguments.rate,
    };
    let requests = plan.requests;
    println!("sending {requests} flights at {}/s through {NODE_A}, {} moves", arguments.rate, arguments.moves);
    let load = load::start(plan, shell).map_err(system("no thread for the pacing"))?;
    let seen = witness.seen.clone();
    let (sent, moves) = tokio::select! {
        biased;
        error = until_one_ends(processes, shell) => return Err(error.into()),
        result = drive(arguments, load, seen.clone(), &migrator, shell) => result?,
    };
    let applied = witness.finish(log.tail().await?).await?;
    let owner = seen.borrow().owner.clone().unwrap_or_else(|| NODE_A.to_owned());
    let board = read_board(layout, &owner, shell).await?;
    let expected = expected::board(&lines, arguments.rounds as usize)?;
    let report = judge(arguments.clone(), &lines, &sent, moves, &applied, board == expected);
    println!("{}", report.text());
    if let Some(path) = &arguments.json {
        let text = format!("{:#}\n", report.json());
        std::fs::write(path, text).map_err(|reason| DemoError::Json { path: path.clone(), reason })?;
    }
    Ok((report.is_good(), owner))
}

/// Load, migrations and the progress line beside each other, until both have ended.
async fn drive(
    arguments: &DemoArguments,
    load: Load,
    seen: watch::Receiver<witness::Seen>,
    migrator: &Rest,
    shell: &Shell,
) -> Result<(Vec<Sent>, Vec<Move>), DemoError> {
    let requests = expected::FLIGHTS * arguments.rounds as usize;
    let length = Duration::from_secs_f64(requests as f64 / f64::from(arguments.rate));
    let schedule = Schedule { moves: arguments.moves, began: load.began, length };
    let ask = Ask { rest: migrator, strategy: &arguments.strategy };
    let (moving_sender, moving) = watch::channel(Moving::default());
    let sources = progress::Sources { load: load.progress.clone(), seen, moving, requests, moves: arguments.moves };
    let work = async { tokio::join!(load.finish(), moves::carry_out(schedule, ask, shell, &moving_sender)) };
    let (sent, moves) = tokio::select! {
        biased;
        both = work => both,
        () = progress::show(sources, shell.clone()) => (None, Vec::new()),
    };
    progress::clear();
    Ok((sent.ok_or(DemoError::NoLoad)?, moves))
}

async fn until_one_ends(processes: &mut Processes, shell: &Shell) -> ProcessError {
    loop {
        if let Err(error) = processes.check() {
            return error;
        }
        shell.sleep(CHECK_EVERY).await;
    }
}

/// The board as the last owner shows it.
async fn read_board(layout: &Layout, owner: &str, shell: &Shell) -> Result<Value, DemoError> {
    let node = layout.node(owner).unwrap_or(&layout.nodes[0]);
    let rest = Rest::new(&format!("http://{}", node.ingress), shell.clone(), BOARD_LIMIT)?;
    let answer = rest.get("/board").await?;
    if answer.status != 200 {
        eprintln!(
            "the board of {} was refused ({}): {}",
            node.name,
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
    }
    Ok(answer.json())
}

fn judge(
    arguments: DemoArguments,
    lines: &[String],
    sent: &[Sent],
    moves: Vec<Move>,
    applied: &[Logged],
    board_equal: bool,
) -> Report {
    let requests = lines.len() * arguments.rounds as usize;
    let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).cycle().take(requests).collect();
    let replies: Vec<Reply> = sent.iter().filter_map(reply).collect();
    for sent in sent.iter().filter(|sent| reply(sent).is_none()).take(TOLD_UNACKNOWLEDGED) {
        eprintln!("request {} was not acknowledged: {:?}", sent.request, sent.outcome);
    }
    let span = |sent: &Sent| Span { due: sent.due, ended: sent.ended, acknowledged: reply(sent).is_some() };
    let timeline = Timeline::new(sent.iter().map(span).collect());
    let windows: Vec<Window> = moves.iter().map(|moved| moved.window).collect();
    let mut late: Vec<Duration> = sent.iter().map(|sent| sent.sent.saturating_sub(sent.due)).collect();
    late.sort_unstable();
    Report {
        verdict: verdict::judge(&lines, applied, &replies),
        board_equal,
        longest_stall: timeline.blackout(timeline.whole()),
        generator_late_p99: percentile(&late, 99),
        moves: moves
            .into_iter()
            .map(|moved| {
                let cost = timeline.cost(moved.window, &windows);
                (moved, cost)
            })
            .collect(),
        arguments,
    }
}

fn reply(sent: &Sent) -> Option<Reply> {
    match sent.outcome {
        Outcome::Acknowledged { n, hash } => {
            Some(Reply { request: sent.request, n, hash, sent: sent.sent, got: sent.ended })
        }
        Outcome::Refused { .. } | Outcome::Unanswered { .. } => None,
    }
}

fn tell_what_runs(layout: &Layout, processes: &Processes, owner: &str) {
    let [a, b] = &layout.nodes;
    let other = if owner == a.name { b.name } else { a.name };
    let program = std::env::current_exe().map_or_else(|_| "segue".to_owned(), |path| path.display().to_string());
    println!("\neverything runs on until Ctrl-C; configurations and logs are in {}", layout.folder().display());
    for (name, pid) in processes.pids() {
        println!("  {name:<9} pid {pid}");
    }
    println!("try:");
    println!("  http://{} in a browser: watch it, move it, undo it", layout.migrator);
    println!(
        "  curl http://{}/board            through {}; http://{}/board through {}",
        a.ingress, a.name, b.ingress, b.name
    );
    println!("  curl http://{}/v1/services      and /v1/nodes, /v1/migrations", layout.migrator);
    println!("  curl 'http://{}/readyz?verbose' and /metrics, of {}", a.admin, a.name);
    println!("  {program} migrate {SERVICE} --to {other} --watch --migrator http://{}", layout.migrator);
    println!(
        "  kill -9 the pid of {other}, then move to it: refused, and why; `{program} sidecar --config` starts it again,"
    );
    println!("  its file is {}", layout.folder().join(format!("{other}.toml")).display());
    println!("  kill -9 the owner's delay-board process (pgrep -f delay-board): its sidecar starts and reloads it");
}

/// Ctrl-C, or the signal that asks a process to end.
async fn interrupted() {
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = (interrupt, terminate) else {
        return std::future::pending().await;
    };
    tokio::select! {
        biased;
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
