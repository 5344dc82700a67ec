//! What can be wrong with exporting and importing checkpoints.

use std::time::Duration;

use axum::http::StatusCode;
use broker_adapter::fold::KeptCheckpoint;
use broker_adapter::ids::{Hash, Position, ShardId};
use broker_adapter::store::StoreError;
use sidecar::checkpoint::archive::ArchiveError;
use sidecar::checkpoint::import::ImportError;
use sidecar::command::BeginFailure;

use super::Problem;

/// How a service is begun with a state from elsewhere.
const BEGINNING: &str = "a state from elsewhere only begins a service whose log is empty: start its sidecars with create = false on another \
                         broker, or under another name (`from` then names the archive's own service), and import there";

fn kept_ones(kept: &[KeptCheckpoint]) -> String {
    let all: Vec<String> =
        kept.iter().map(|kept| format!("{} ({:.12})", kept.position, kept.manifest.to_string())).collect();
    if all.is_empty() { "none is kept".to_owned() } else { format!("kept are those after {}", all.join(", ")) }
}

pub(in crate::rest) fn unknown_checkpoint(asked: &str, shard: &ShardId, kept: &[KeptCheckpoint]) -> Problem {
    let detail = format!("the log of {shard} keeps no checkpoint {asked:?}");
    let hint = format!("name one by its position or hash, or `newest`; {}", kept_ones(kept));
    Problem::new(StatusCode::NOT_FOUND, "unknown-checkpoint", "Unknown checkpoint", detail, hint)
}

pub(in crate::rest) fn damaged_checkpoint(error: &str) -> Problem {
    let hint = "export another one; `segue checkpoint create` has the owner take a new one, which stores anew what is lost; an archive of \
                this one, imported, puts it back"
        .to_owned();
    let (code, title) = ("checkpoint-damaged", "Checkpoint damaged");
    Problem::new(StatusCode::CONFLICT, code, title, error.to_owned(), hint)
}

pub(in crate::rest) fn state_lost(reason: &str) -> Problem {
    let hint = "look at the broker and the checkpoint store, and ask again".to_owned();
    let (code, title) = ("store-unreadable", "Checkpoint store unreadable");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, title, reason.to_owned(), hint)
}

pub(in crate::rest) fn too_many_transfers(most: usize) -> Problem {
    let hint = "wait for another one to end".to_owned();
    let detail = format!("{most} checkpoints are exported or imported already");
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-transfers", "Too many transfers", detail, hint)
}

/// Nothing of it counts, whatever was wrong.
pub(in crate::rest) fn importing(error: ImportError) -> Problem {
    match error {
        ImportError::Archive(error) => archive(&error),
        ImportError::Store(error @ StoreError::Full(_)) => {
            let hint = "make room in the checkpoint store, and import again".to_owned();
            let (code, title) = ("store-full", "Checkpoint store full");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, title, error.to_string(), hint)
        }
        ImportError::Store(error) => state_lost(&error.to_string()),
    }
}

pub(in crate::rest) fn archive(error: &ArchiveError) -> Problem {
    use StatusCode as S;
    let export = "send what `segue checkpoint export`, or GET …/checkpoints/newest/export, wrote";
    let (status, code, title, hint) = match error {
        ArchiveError::NotOne(_) => (S::UNPROCESSABLE_ENTITY, "bad-archive", "No archive", export),
        ArchiveError::Truncated { .. } => {
            (S::UNPROCESSABLE_ENTITY, "archive-cut-off", "Archive cut off", "copy the file again, or export again")
        }
        ArchiveError::Damaged(_) => {
            (S::UNPROCESSABLE_ENTITY, "archive-damaged", "Archive damaged", "copy the file again, or export again")
        }
        ArchiveError::TooLarge { .. } => {
            (S::PAYLOAD_TOO_LARGE, "archive-too-large", "Archive too large", "raise import_limit_mb of the migrator")
        }
        ArchiveError::Unreadable(_) => (S::BAD_REQUEST, "bad-body", "Bad body", "send it again"),
        ArchiveError::TooSlow(_) => (S::REQUEST_TIMEOUT, "bad-body", "Bad body", "send it without long rests"),
    };
    Problem::new(status, code, title, error.to_string(), hint.to_owned())
}

pub(in crate::rest) fn wrong_service(found: &ShardId, wanted: &ShardId) -> Problem {
    let detail = format!("the archive is one of {found}, not of {wanted}");
    let hint = format!(
        "choose the right file; if a state of {found} is meant to begin a service, name it: from={}",
        found.service
    );
    Problem::new(StatusCode::CONFLICT, "wrong-service", "Archive of another service", detail, hint)
}

pub(in crate::rest) fn foreign_checkpoint(
    (shard, position, hash): (&ShardId, Position, Hash),
    kept: &[KeptCheckpoint],
) -> Problem {
    let detail = format!(
        "the log of {shard} has begun, and it keeps no checkpoint after {position} with the hash {:.12}: the archive is of another log, or \
         of a checkpoint that is no longer kept; {}",
        hash.to_string(),
        kept_ones(kept)
    );
    let hint = format!("only a checkpoint that the log itself keeps is put back; {BEGINNING}");
    Problem::new(StatusCode::CONFLICT, "foreign-checkpoint", "Checkpoint of another log", detail, hint)
}

pub(in crate::rest) fn no_node(shard: &ShardId) -> Problem {
    let detail = format!("no node that is alive can run {shard}");
    let hint = "start a sidecar whose [[service]] has run or attach, with create = false".to_owned();
    Problem::new(StatusCode::CONFLICT, "no-node", "No node", detail, hint)
}

pub(in crate::rest) fn node_needed(shard: &ShardId, nodes: &[String]) -> Problem {
    let detail = format!("{shard} can begin on several nodes: {}", nodes.join(", "));
    let hint = format!("say on which: node={}", nodes.first().map_or("NODE", String::as_str));
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "node-needed", "Node needed", detail, hint)
}

pub(in crate::rest) fn begin_failed(shard: &ShardId, node: &str, failure: &BeginFailure) -> Problem {
    use StatusCode as S;
    let (status, code, title, hint) = match failure {
        BeginFailure::HasBegun => (S::CONFLICT, "already-begun", "Service begun already", BEGINNING),
        BeginFailure::Origin(_) => (
            S::CONFLICT,
            "state-of-unknown-origin",
            "State of unknown origin",
            "empty the service, or import with replace_state=true: then a copy of what it holds is kept",
        ),
        BeginFailure::Service(_) => (
            S::CONFLICT,
            "state-refused",
            "State refused",
            "is it a state of this service, of this version? The log is as it was; mend the service and import again",
        ),
        BeginFailure::Other(_) => (
            S::SERVICE_UNAVAILABLE,
            "begin-failed",
            "Beginning failed",
            "look at the node and the broker, and import again",
        ),
    };
    let detail = format!("{shard} does not begin on {node} with the imported state: {failure}");
    Problem::new(status, code, title, detail, hint.to_owned())
}

pub(in crate::rest) fn unanswered(shard: &ShardId, node: &str, limit: Duration) -> Problem {
    let detail = format!("{node} did not say within {limit:?} whether {shard} has begun");
    let hint = "it may still begin: GET …/checkpoints tells; the same import again goes on where it is".to_owned();
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "begin-unanswered", "Beginning unanswered", detail, hint)
}
