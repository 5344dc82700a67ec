//! `segue migrate` and `segue migration …`.

use std::io;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::args::{Form, MigrationCommand};
use super::ask::Asker;
use super::failure::OperateError;
use super::show::{Out, ago, bytes, duration, text};
use super::watch::{nobody_reads, phase_time, watch};
use super::{Operator, interrupt};
use crate::args::MigrateArguments;

/// Orders a migration, or only asks for its plan.
///
/// # Errors
/// If it is refused; with `--watch`, if it does not complete.
pub async fn migrate(arguments: &MigrateArguments, operator: &mut Operator) -> Result<(), OperateError> {
    let order = order(arguments);
    if arguments.dry_run {
        let answer = operator.asker.post("/v1/migrations?validate_only=true", &order).await?;
        let plan = answer.json();
        plan_of(&plan, &mut operator.out).map_err(nobody_reads)?;
        return if plan["ok"] == true {
            Ok(())
        } else {
            Err(OperateError::Unsound("the plan has a check that fails: the migration would be refused".to_owned()))
        };
    }
    let key = arguments.idempotency_key.as_deref();
    let answer = operator.asker.rest.post_with_key("/v1/migrations", &order, key).await?;
    if answer.status != 202 {
        return Err(OperateError::of_answer(&answer));
    }
    accepted(&answer.json(), arguments.order.watch, "completed", operator).await
}

/// `segue migration …`.
///
/// # Errors
/// [`OperateError`].
pub async fn run(command: &MigrationCommand, operator: &mut Operator) -> Result<(), OperateError> {
    match command {
        MigrationCommand::Ls { service, node, outcome, running, limit, .. } => {
            let mut query = Vec::new();
            for (name, value) in [("service", service), ("node", node), ("outcome", outcome)] {
                query.extend(value.clone().map(|value| (name, value)));
            }
            if *running {
                query.push(("running", "true".to_owned()));
            }
            let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
            let items = operator.asker.list("/v1/migrations", &query, limit).await?;
            ls(&items, operator)
        }
        MigrationCommand::Show(of) => {
            let migration = operator.asker.get(&format!("/v1/migrations/{}", of.id)).await?;
            let events = operator.asker.get(&format!("/v1/migrations/{}/events", of.id)).await;
            let events = events.ok().and_then(|mut events| match events["items"].take() {
                Value::Array(items) => Some(items),
                _ => None,
            });
            let now_ms = operator.asker.shell.wall_ms();
            details(&migration, &events.unwrap_or_default(), &mut operator.out, now_ms).map_err(nobody_reads)
        }
        MigrationCommand::Watch(of) => {
            let Operator { asker, out } = operator;
            watch(asker, &of.id.to_string(), "completed", interrupt(), out).await
        }
        MigrationCommand::Cancel(of) => follow_up(("cancel", "cancelled"), of, operator).await,
        MigrationCommand::Undo(of) => follow_up(("undo", "completed"), of, operator).await,
        MigrationCommand::Retire(of) => follow_up(("retire", "completed"), of, operator).await,
        MigrationCommand::Record { migration, to } => {
            let path = format!("/v1/migrations/{}/recording", migration.id);
            record(&operator.asker, &path, to.as_deref(), &mut operator.out).await
        }
    }
}

async fn follow_up(
    (what, hoped): (&str, &str),
    of: &super::args::FollowUpArguments,
    operator: &mut Operator,
) -> Result<(), OperateError> {
    let answer = operator.asker.post(&format!("/v1/migrations/{}/{what}", of.id), &json!({})).await?;
    accepted(&answer.json(), of.order.watch, hoped, operator).await
}

async fn accepted(migration: &Value, watches: bool, hoped: &str, operator: &mut Operator) -> Result<(), OperateError> {
    let id = text(migration, "/id");
    let Operator { asker, out } = operator;
    if watches {
        let _ = out.note(&format!("accepted: {}/v1/migrations/{id}", asker.url));
        return watch(asker, &id, hoped, interrupt(), out).await;
    }
    match out.form {
        // The id alone, so that scripts may take it as it is.
        Form::Table => writeln!(out.data, "{id}").map_err(nobody_reads)?,
        _ => out.one(migration, &[]).map_err(nobody_reads)?,
    }
    let _ = out.note(&format!("accepted: {}/v1/migrations/{id}; `segue migration watch {id}` follows it", asker.url));
    Ok(())
}

fn ls(items: &[Value], operator: &mut Operator) -> Result<(), OperateError> {
    let now_ms = operator.asker.shell.wall_ms();
    let out = &mut operator.out;
    if items.is_empty() {
        let _ = out.note("no such migration; `segue migrate SERVICE --to NODE` begins one");
    }
    let columns: &[super::show::Column<'_>] = &[
        ("id", &|item| text(item, "/id")),
        ("service", &|item| text(item, "/service")),
        ("operation", &|item| text(item, "/operation")),
        ("from", &|item| text(item, "/from")),
        ("to", &|item| text(item, "/to")),
        ("strategy", &|item| text(item, "/strategy")),
        ("state", &|item| if item["outcome"].is_null() { text(item, "/phase") } else { text(item, "/outcome") }),
        ("proof", &|item| text(item, "/proof")),
        ("blackout", &|item| duration(item, "/blackout_ms")),
        ("total", &|item| duration(item, "/total_ms")),
        ("accepted", &|item| ago(item, "/accepted_ms", now_ms)),
    ];
    out.list(items, columns).map_err(nobody_reads)
}

/// One migration, for people: what it is, its phases, its events.
///
/// # Errors
/// If nobody reads.
pub fn details(migration: &Value, events: &[Value], out: &mut Out, now_ms: u64) -> io::Result<()> {
    if out.form != Form::Table {
        return out.one(migration, &[]);
    }
    let route = format!("{} -> {}", text(migration, "/from"), text(migration, "/to"));
    let or_empty = |value: String| if value == "-" { String::new() } else { value };
    let accepted = if now_ms == 0 { String::new() } else { ago(migration, "/accepted_ms", now_ms) };
    let state = match &migration["outcome"] {
        Value::Null => format!("running: {}", text(migration, "/phase")),
        _ => text(migration, "/outcome"),
    };
    let lines = [
        ("migration", text(migration, "/id")),
        ("service", format!("{} (shard {})", text(migration, "/service"), text(migration, "/shard"))),
        ("route", route),
        ("strategy", text(migration, "/strategy")),
        ("state", state),
        ("accepted", accepted),
        ("total", or_empty(duration(migration, "/total_ms"))),
        ("proof", or_empty(text(migration, "/proof"))),
        ("blackout", or_empty(duration(migration, "/blackout_ms"))),
        ("planned", or_empty(duration(migration, "/planned_blackout_ms"))),
        ("state size", or_empty(bytes(migration, "/state_bytes"))),
        ("lag", migration["lag_records"].as_u64().map(|lag| format!("{lag} records")).unwrap_or_default()),
        ("forecast", or_empty(text(migration, "/forecast/sentence"))),
        ("reason", or_empty(text(migration, "/reason"))),
        ("error", or_empty(text(migration, "/error"))),
    ];
    out.one(migration, &lines)?;
    let rows = migration["phases"].as_array().into_iter().flatten();
    let rows = rows.map(|phase| vec![text(phase, "/name"), text(phase, "/attempt"), phase_time(phase)]).collect();
    writeln!(out.data)?;
    out.table(&["phase", "attempt", "time"], rows)?;
    if events.is_empty() {
        return Ok(());
    }
    let began_ms = migration["accepted_ms"].as_u64().unwrap_or_default();
    let since = |event: &Value| {
        let ms = event["at_ms"].as_u64().map(|at_ms| at_ms.saturating_sub(began_ms));
        ms.map_or("-".to_owned(), |ms| format!("+{:.3} s", std::time::Duration::from_millis(ms).as_secs_f64()))
    };
    let rows = events.iter().map(|event| vec![since(event), text(event, "/title"), text(event, "/detail")]).collect();
    writeln!(out.data)?;
    out.table(&["at", "event", "detail"], rows)
}

/// A plan, for people: what was checked, what is expected.
fn plan_of(plan: &Value, out: &mut Out) -> io::Result<()> {
    if out.form != Form::Table {
        return out.one(plan, &[]);
    }
    let route = format!("{} -> {}", text(plan, "/from"), text(plan, "/to"));
    let lines = [
        ("service", text(plan, "/service")),
        ("route", route),
        ("strategy", text(plan, "/strategy")),
        ("total", duration(plan, "/total_ms")),
        ("blackout", duration(plan, "/blackout_ms")),
        ("state size", bytes(plan, "/state_bytes")),
        ("forecast", text(plan, "/sentence")),
    ];
    out.one(plan, &lines)?;
    let sign = |check: &Value| match (check["ok"] == true, check["severity"].as_str()) {
        (true, _) => "ok".to_owned(),
        (false, Some(severity)) => severity.to_owned(),
        (false, None) => "error".to_owned(),
    };
    let checks = plan["checks"].as_array().into_iter().flatten();
    let hint = |check: &Value| if check["ok"] == true { String::new() } else { text(check, "/hint") };
    writeln!(out.data)?;
    let rows = checks.map(|check| vec![sign(check), text(check, "/title"), text(check, "/detail"), hint(check)]);
    out.table(&["check", "of", "detail", "what to do"], rows.collect())?;
    writeln!(out.data)?;
    let phases = plan["phases"].as_array().into_iter().flatten();
    let rows = phases.map(|phase| vec![text(phase, "/name"), duration(phase, "/expected_ms"), text(phase, "/basis")]);
    out.table(&["phase", "expected", "basis"], rows.collect())
}

async fn record(asker: &Asker, path: &str, to: Option<&Path>, out: &mut Out) -> Result<(), OperateError> {
    let answer = asker.rest.get(path).await?;
    if answer.status != 200 {
        return Err(OperateError::of_answer(&answer));
    }
    let Some(to) = to else {
        return out.data.write_all(&answer.body).map_err(nobody_reads);
    };
    let failed = |reason| OperateError::File { what: "cannot write", path: to.display().to_string(), reason };
    std::fs::write(to, &answer.body).map_err(failed)?;
    let _ =
        out.note(&format!("written: {} ({} bytes); the dashboard's history opens it", to.display(), answer.body.len()));
    Ok(())
}

/// What REST takes.
fn order(arguments: &MigrateArguments) -> Value {
    let mut order = Map::new();
    order.insert("service".to_owned(), arguments.service.clone().into());
    order.insert("to".to_owned(), arguments.to.clone().into());
    order.insert("strategy".to_owned(), arguments.strategy.clone().into());
    let texts = [("shard", &arguments.shard), ("reason", &arguments.reason)];
    order.extend(texts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?.into()))));
    let numbers = [
        ("pause_limit_ms", arguments.pause_limit_ms),
        ("cutoff_ms", arguments.cutoff_ms),
        ("keep_standby_s", arguments.keep_standby_s),
        ("max_blackout_ms", arguments.max_blackout_ms),
        ("deadline_s", arguments.deadline_s),
    ];
    order.extend(numbers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))));
    if arguments.allow_unproven {
        order.insert("allow_unproven".to_owned(), true.into());
    }
    Value::Object(order)
}
