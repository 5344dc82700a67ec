//! Faults after which nobody may go on, because the log is not the one it was: deleted and made anew, or an older copy.
//!
//! The clients' first part ends before the fault, so what was acknowledged is known to the record. The second part begins while the
//! fault strikes, and none of it that was sent once the log was gone may be answered by the service.

use std::time::Duration;

use super::play::{End, Scene, finish, load};
use super::strike::Prepared;
use super::{Cell, Fault};
use crate::cells::play::told;
use crate::checker::{Evidence, Outcome, check};
use crate::harness::wait_for;
use crate::ledger::Chain;

/// What those say that stopped; one of these, and a position.
const WORDS: [&str; 4] = ["rewound", "made anew", "was trimmed", "behind the tail"];
/// How long the migrator may take to tell how a move stands.
const ASK_LIMIT: Duration = Duration::from_millis(500);

/// Plays the rest of such a cell.
pub async fn stopped(cell: &Cell, scene: &mut Scene, prepared: Prepared) -> End {
    let before = finish(scene).await;
    let shell = scene.cluster.shell.clone();
    let known = scene.recorder.up_to_tail().await;
    let last = known.last().expect("there are records").position;
    let loads = ["edge-a", "edge-b"].map(|node| (node, format!("late-{node}")));
    let shown = match cell.fault {
        Fault::Rewound => {
            let older = prepared.older.expect("the cell keeps a copy");
            scene.cluster.broker.kill();
            scene.cluster.broker.rewind_files(older.path());
            scene.loads = loads.map(|(node, prefix)| load(&scene.cluster, node, &prefix)).into();
            scene.cluster.broker.restart();
            scene.cluster.broker.ready(&shell).await;
            format!("the log ended at {last}, its server came back with files of before")
        }
        _ => {
            scene.loads = loads.map(|(node, prefix)| load(&scene.cluster, node, &prefix)).into();
            scene.cluster.broker.recreate_log(&shell).await
        }
    };
    // Deleting takes its time: whoever was sent before this may have been answered by the log that was.
    let struck = shell.now();
    if let Some(hold) = &scene.cluster.hold {
        hold.release();
    }
    let mut said = Vec::new();
    for node in ["edge-a", "edge-b"] {
        let what = format!("{node} to stop and say why");
        let line = wait_for(&shell, &what, || async {
            let conditions = scene.cluster.conditions(node).await;
            let line = conditions.lines().find(|line| line.starts_with("[-]"))?.to_owned();
            (WORDS.iter().any(|word| line.contains(word)) && line.bytes().any(|byte| byte.is_ascii_digit()))
                .then_some(line)
        });
        said.push(line.await);
    }
    for load in &scene.loads {
        load.is_refused(1).await;
    }
    let mut late = finish(scene).await;
    late.retain(|seen| seen.sent >= struck);
    let answered = late.iter().filter(|seen| matches!(seen.outcome, Outcome::Reply { .. })).count();
    let (refused, all) =
        (late.iter().filter(|seen| matches!(seen.outcome, Outcome::Refused { .. })).count(), late.len());
    let mut evidence = Evidence::from_log(&known, "/append");
    evidence.observations = before;
    let mut wrong = told(&check(&evidence, &mut Chain::default()));
    if answered > 0 {
        wrong.push(format!("{answered} clients were answered by a log that is not the one it was"));
    }
    let (_, recorder_said) = scene.recorder.until_it_stopped();
    let migration = match &scene.id {
        Some(id) => scene.cluster.rest.told(id, ASK_LIMIT).await,
        None => None,
    };
    if migration.as_ref().is_some_and(|told| told.outcome.as_deref() == Some("completed")) {
        wrong.push("the move completed on a log that is not the one it was".to_owned());
    }
    let proof = format!(
        "{shown}; a reader says: {}; edge-a says: {}; of {all} later requests {refused} got 503, {answered} a reply",
        recorder_said.unwrap_or_else(|| "nothing".to_owned()),
        said[0].trim_start_matches("[-] ")
    );
    End { migration, proof: Ok(proof), fences: Vec::new(), wrong }
}
