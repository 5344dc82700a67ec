//! The proof that a fault fell into its phase: what the migrator told at its two sides, and the wall time by which the journal
//! says that the phase began and ended.

use std::time::Duration;

use super::{Cell, Moment};
use crate::harness::{Cluster, Migration};

/// How long an answer of the migrator is waited for; a dead or stopped one gives none.
const ASK_LIMIT: Duration = Duration::from_millis(300);

/// What was seen while the fault struck.
pub struct Seen {
    /// The phase told right before it.
    before: String,
    /// The phase told right after it, which may be one that the fault led to; none by a migrator that is the victim.
    after: Option<String>,
    /// On the machine's one wall clock.
    struck_ms: [u64; 2],
    /// What the fault itself shows.
    pub victim: String,
}

/// What the migrator tells of the phase.
pub async fn told(cluster: &Cluster, id: &str) -> Option<String> {
    cluster.rest.told(id, ASK_LIMIT).await.map(|migration| migration.phase)
}

impl Seen {
    /// The side before; `None` if the migration is not in the phase (any more).
    pub async fn before(cluster: &Cluster, id: &str, phase: &str) -> Option<Seen> {
        let before = told(cluster, id).await.filter(|told| told == phase)?;
        let now = cluster.shell.wall_ms();
        Some(Seen { before, after: None, struck_ms: [now; 2], victim: String::new() })
    }

    /// The side after; `struck_ms` is when the fault had struck.
    pub async fn after(&mut self, cluster: &Cluster, id: &str, struck_ms: u64) {
        self.struck_ms[1] = struck_ms;
        self.after = told(cluster, id).await;
    }

    /// The proof, or why there is none.
    pub fn verdict(&self, cell: &Cell, ended: &Migration) -> Result<String, String> {
        let [from, to] = self.struck_ms.map(|ms| ms.saturating_sub(ended.accepted_ms));
        let (began, left) = window(cell.phase, ended);
        let lasted = match left {
            Some(left) => format!("{began} to {left}"),
            None => format!("{began} on"),
        };
        let told = self.after.as_deref();
        let inside = began <= from && left.is_none_or(|left| to <= left);
        let held = if cell.moment == Moment::Held { "driver held; " } else { "" };
        let proof = format!(
            "{held}told {} before and {} after; struck at {from} to {to} ms of phase {lasted} ms; {}",
            self.before,
            told.unwrap_or("nothing"),
            self.victim
        );
        if inside { Ok(proof) } else { Err(proof) }
    }
}

/// When the phase began and ended at its first time, in milliseconds since the acceptance: phases follow without a gap.
fn window(phase: &str, ended: &Migration) -> (u64, Option<u64>) {
    let mut began = 0;
    for time in &ended.phases {
        let left = time.ms.map(|ms| began + ms);
        if time.name == phase {
            return (began, left);
        }
        began = left.unwrap_or(began);
    }
    (began, Some(began))
}
