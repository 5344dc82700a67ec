//! `segue log tail`: records as the migrator shows them.

use std::time::Duration;

use serde_json::Value;

use super::args::{Form, LogCommand, ShardArguments};
use super::ask::encode;
use super::failure::OperateError;
use super::show::text;
use super::watch::nobody_reads;
use super::{Operator, interrupt};

/// How often the end of a log is looked at.
const POLL_EVERY: Duration = Duration::from_millis(500);
/// How many records one answer is asked to have.
const PAGE: u64 = 200;

/// `segue log tail`.
///
/// # Errors
/// [`OperateError`].
pub async fn run(command: &LogCommand, operator: &mut Operator) -> Result<(), OperateError> {
    let LogCommand::Tail { shard, count, from, follow, .. } = command else {
        unreachable!("the others ask the broker itself")
    };
    let path = path(shard);
    let ends = operator.asker.get(&format!("{path}?count=1")).await?;
    let (first, tail) = (number(&ends, "first"), number(&ends, "tail"));
    let mut next = from.unwrap_or((tail + 1).saturating_sub(u64::from(*count))).max(first).max(1);
    let mut left = u64::from(*count);
    let mut shown_head = false;
    let mut interrupted = Box::pin(interrupt());
    loop {
        let page = if *follow { PAGE } else { left.min(PAGE) };
        let answer = operator.asker.get(&format!("{path}?from={next}&count={page}")).await?;
        let items = answer["items"].as_array().cloned().unwrap_or_default();
        show(&items, &mut shown_head, operator)?;
        if let Some(last) = items.last() {
            next = number(last, "position") + 1;
            left = left.saturating_sub(items.len() as u64);
        }
        let at_end = next > number(&answer, "tail") || items.is_empty();
        if !follow && (left == 0 || at_end) {
            return Ok(());
        }
        if at_end {
            tokio::select! {
                biased;
                () = &mut interrupted => return Err(OperateError::Interrupted),
                () = operator.asker.shell.sleep(POLL_EVERY) => {}
            }
        }
    }
}

fn show(items: &[Value], shown_head: &mut bool, operator: &mut Operator) -> Result<(), OperateError> {
    let out = &mut operator.out;
    for item in items {
        let line = match out.form {
            // A stream has no end that could close an array.
            Form::Json | Form::Jsonl => item.to_string(),
            Form::Table => {
                if !*shown_head {
                    writeln!(out.data, "{:>12}  {:<10}  {:<6}  SUMMARY", "POSITION", "KIND", "COUNTS")
                        .map_err(nobody_reads)?;
                }
                *shown_head = true;
                let counts = match item["counts"].as_bool() {
                    Some(true) => "yes",
                    Some(false) => "void",
                    None => "-",
                };
                let [position, kind, summary] = ["/position", "/kind", "/summary"].map(|part| text(item, part));
                format!("{position:>12}  {kind:<10}  {counts:<6}  {summary}")
            }
        };
        writeln!(out.data, "{line}").map_err(nobody_reads)?;
    }
    Ok(())
}

fn path(shard: &ShardArguments) -> String {
    format!("/v1/log/{}/{}", encode(&shard.service), encode(&shard.shard))
}

fn number(item: &Value, name: &str) -> u64 {
    item[name].as_u64().unwrap_or_default()
}
