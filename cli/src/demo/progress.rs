//! What the terminal shows while the demo runs: one line that changes on a terminal, plain lines now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use broker_adapter::shell::Shell;
use tokio::sync::watch;

use super::load::Progress;
use super::moves::Moving;
use super::witness::Seen;

const TERMINAL_EVERY: Duration = Duration::from_millis(200);
const PLAIN_EVERY: Duration = Duration::from_secs(3);

/// Where the parts of the line come from.
pub struct Sources {
    /// The load.
    pub load: watch::Receiver<Progress>,
    /// The log.
    pub seen: watch::Receiver<Seen>,
    /// The migrations.
    pub moving: watch::Receiver<Moving>,
    /// Requests in all.
    pub requests: usize,
    /// Migrations in all.
    pub moves: u32,
}

/// Shows the line until it is dropped.
pub async fn show(sources: Sources, shell: Shell) {
    let is_terminal = std::io::stdout().is_terminal();
    let every = if is_terminal { TERMINAL_EVERY } else { PLAIN_EVERY };
    let (mut last, mut last_at) = (0, shell.now());
    loop {
        shell.sleep(every).await;
        let (ended, now) = (sources.load.borrow().ended, shell.now());
        let rate_per_s = (ended - last) as f64 / (now - last_at).as_secs_f64().max(1e-3);
        (last, last_at) = (ended, now);
        let line = sources.line(rate_per_s);
        if is_terminal {
            print!("\r\x1b[2K{line}");
        } else {
            println!("{line}");
        }
        // A closed terminal is no reason to stop.
        let _ = std::io::stdout().flush();
    }
}

/// Ends the changing line, so that what follows begins on a new one.
pub fn clear() {
    if std::io::stdout().is_terminal() {
        print!("\r\x1b[2K");
    }
}

impl Sources {
    fn line(&self, rate_per_s: f64) -> String {
        let load = *self.load.borrow();
        let moving = self.moving.borrow();
        let owner = self.seen.borrow().owner.clone().unwrap_or_else(|| "nobody".to_owned());
        let phase = moving.phase.as_deref().unwrap_or("serving");
        let lag = moving.lag_records.map(|lag| format!(", {lag} records behind")).unwrap_or_default();
        let refused = load.ended - load.acknowledged;
        let refused = if refused > 0 { format!(", {refused} not acknowledged") } else { String::new() };
        format!(
            "{:>6} of {} flights, {rate_per_s:>6.0}/s, owner {owner}, moves {}/{}: {phase}{lag}{refused}",
            load.ended, self.requests, moving.ended, self.moves
        )
    }
}
