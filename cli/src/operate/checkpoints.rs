//! `segue checkpoint ls|create|export|import` by way of the migrator. What reads the store itself is in `direct.rs`.

use serde_json::json;

use super::Operator;
use super::archives;
use super::args::{CheckpointCommand, ShardArguments};
use super::ask::encode;
use super::failure::OperateError;
use super::show::{Column, ago, bytes, text};
use super::watch::nobody_reads;

/// What the migrator is asked for.
///
/// # Errors
/// [`OperateError`].
pub async fn run(command: &CheckpointCommand, operator: &mut Operator) -> Result<(), OperateError> {
    match command {
        CheckpointCommand::Ls { shard, .. } => {
            let answer = operator.asker.get(&path(shard)).await?;
            let items = answer["items"].as_array().cloned().unwrap_or_default();
            let now_ms = operator.asker.shell.wall_ms();
            if items.is_empty() {
                let _ = operator.out.note("no checkpoint is kept; `segue checkpoint create` has the owner take one");
            }
            let yes = |is: bool| if is { "yes" } else { "-" }.to_owned();
            let columns: &[Column<'_>] = &[
                ("position", &|item| text(item, "/position")),
                ("hash", &|item| text(item, "/hash").chars().take(16).collect()),
                ("state", &|item| bytes(item, "/bytes")),
                ("taken", &|item| ago(item, "/at_ms", now_ms)),
                ("kept", &|item| yes(item["kept"] == true)),
                ("pinned", &|item| yes(item["pinned"] == true)),
            ];
            operator.out.list(&items, columns).map_err(nobody_reads)
        }
        CheckpointCommand::Create { shard, .. } => {
            let answer = operator.asker.post(&path(shard), &json!({})).await?.json();
            operator.out.one(&answer, &[("asked", "the owner takes a checkpoint".to_owned())]).map_err(nobody_reads)
        }
        CheckpointCommand::Export(arguments) => archives::export(arguments, operator).await,
        CheckpointCommand::Import(arguments) => archives::import(arguments, operator).await,
        CheckpointCommand::Verify { .. } => unreachable!("this asks the broker itself"),
    }
}

fn path(shard: &ShardArguments) -> String {
    format!("/v1/services/{}/checkpoints?shard={}", encode(&shard.service), encode(&shard.shard))
}
