//! The demo's migrations: spread evenly over the run, there and back, each measured on the client's clock.

use std::time::Duration;

use broker_adapter::shell::Shell;
use tokio::sync::watch;

use super::layout::{NODE_A, NODE_B, SERVICE};
use super::timeline::{AFTER_COMPLETION, Window};
use crate::migration::{self, Migration};
use crate::rest::Rest;

/// Where the service stands, for the progress line.
#[derive(Clone, Debug, Default)]
pub struct Moving {
    /// Migrations that ended.
    pub ended: u32,
    /// The phase of the one that runs.
    pub phase: Option<String>,
    /// How far its target is behind.
    pub lag_records: Option<u64>,
}

/// A migration that was tried.
#[derive(Clone, Debug)]
pub struct Move {
    /// From which node.
    pub from: &'static str,
    /// To which node.
    pub to: &'static str,
    /// From its acceptance to its completion plus 1 s, on the client's clock.
    pub window: Window,
    /// How it ended; or why it did not even begin.
    pub result: Result<Migration, String>,
}

impl Move {
    /// Whether it completed, with the strongest proof.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.result.as_ref().is_ok_and(|migration| {
            migration.outcome.as_deref() == Some("completed") && migration.proof.as_deref() == Some("state")
        })
    }
}

/// When the moves begin.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// How many.
    pub moves: u32,
    /// When the first request is due.
    pub began: Duration,
    /// How long requests are due.
    pub length: Duration,
}

/// Moves the service back and forth; ends with the last move.
pub async fn carry_out(schedule: Schedule, rest: &Rest, shell: &Shell, moving: &watch::Sender<Moving>) -> Vec<Move> {
    let (mut from, mut to) = (NODE_A, NODE_B);
    let mut moves = Vec::new();
    for number in 1..=schedule.moves {
        shell.sleep_until(schedule.began + schedule.length * number / (schedule.moves + 1)).await;
        // Asking and being accepted are one for the client: the window begins with the question.
        let asked = shell.now();
        let result = one(to, rest, shell, moving).await;
        let window = Window { from: asked, to: shell.now() + AFTER_COMPLETION };
        let completed = result.as_ref().is_ok_and(|migration| migration.outcome.as_deref() == Some("completed"));
        moves.push(Move { from, to, window, result });
        if completed {
            std::mem::swap(&mut from, &mut to);
        }
        moving.send_replace(Moving { ended: number, ..Moving::default() });
    }
    moves
}

async fn one(to: &str, rest: &Rest, shell: &Shell, moving: &watch::Sender<Moving>) -> Result<Migration, String> {
    let location = migration::start(rest, SERVICE, to, false).await.map_err(|error| error.to_string())?;
    let show = |migration: &Migration| {
        moving.send_modify(|moving| {
            moving.phase = Some(migration.phase.clone());
            moving.lag_records = migration.lag_records;
        });
    };
    migration::follow(rest, &location, shell, show).await.map_err(|error| error.to_string())
}
