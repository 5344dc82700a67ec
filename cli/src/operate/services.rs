//! `segue service …` and `segue node …`.

use serde_json::{Value, json};

use super::Operator;
use super::args::{Form, NodeCommand, ServiceCommand};
use super::ask::encode;
use super::failure::OperateError;
use super::show::{Column, ago, duration, text};
use super::watch::nobody_reads;

/// More than a migrator remembers.
const ALL: usize = 100_000;

/// `segue service …`.
///
/// # Errors
/// [`OperateError`].
pub async fn services(command: &ServiceCommand, operator: &mut Operator) -> Result<(), OperateError> {
    match command {
        ServiceCommand::Ls { .. } => {
            let items = operator.asker.list("/v1/services", &[], ALL).await?;
            if items.is_empty() {
                let _ = operator
                    .out
                    .note("no node tells of a service: does a sidecar run, with the same broker as this migrator?");
            }
            let columns: &[Column<'_>] = &[
                ("service", &|item| text(item, "/service")),
                ("shard", &|item| text(item, "/shard")),
                ("owner", &|item| text(item, "/owner")),
                ("standbys", &|item| text(item, "/standbys")),
                ("rate", &|item| rate(item, "/rate_per_s")),
                ("lag", &|item| text(item, "/lag_records")),
                ("tail", &|item| text(item, "/tail")),
                ("checkpoint", &|item| duration(item, "/checkpoint_age_ms")),
                ("proof", &|item| text(item, "/proof")),
                ("migration", &|item| text(item, "/migration")),
            ];
            operator.out.list(&items, columns).map_err(nobody_reads)
        }
        ServiceCommand::Show { service, .. } => {
            let answer = operator.asker.get(&format!("/v1/services/{}", encode(service))).await?;
            show_service(&answer, operator)
        }
        ServiceCommand::Why { service, shard, .. } => {
            let path = format!("/v1/services/{}/why?shard={}", encode(service), encode(shard));
            let why = operator.asker.get(&path).await?;
            show_why(&why, operator)
        }
    }
}

fn show_service(answer: &Value, operator: &mut Operator) -> Result<(), OperateError> {
    let out = &mut operator.out;
    if out.form != Form::Table {
        return out.one(answer, &[]).map_err(nobody_reads);
    }
    for shard in answer["items"].as_array().into_iter().flatten() {
        let lines = [
            ("service", format!("{} (shard {})", text(shard, "/service"), text(shard, "/shard"))),
            ("owner", format!("{} since epoch {}", text(shard, "/owner"), text(shard, "/epoch"))),
            ("tail", text(shard, "/tail")),
            ("messages", text(shard, "/messages_counted")),
            ("rate", rate(shard, "/rate_per_s")),
            ("checkpoint", format!("at {}, {} old", text(shard, "/checkpoint"), duration(shard, "/checkpoint_age_ms"))),
            ("proof", text(shard, "/proof")),
            ("migration", text(shard, "/migration")),
        ];
        out.one(shard, &lines).map_err(nobody_reads)?;
        let replicas = shard["replicas"].as_array().into_iter().flatten();
        let row = |replica: &Value| {
            let silent = if replica["silent"] == true { "silent" } else { "" };
            let state = [text(replica, "/state"), silent.to_owned()].join(" ").trim().to_owned();
            vec![
                text(replica, "/node"),
                state,
                text(replica, "/applied"),
                text(replica, "/listen"),
                text(replica, "/trouble"),
            ]
        };
        out.table(&["node", "replica", "applied", "listens at", "trouble"], replicas.map(row).collect())
            .map_err(nobody_reads)?;
    }
    Ok(())
}

fn show_why(why: &Value, operator: &mut Operator) -> Result<(), OperateError> {
    let now_ms = operator.asker.shell.wall_ms();
    let out = &mut operator.out;
    let lines = [
        ("service", format!("{} (shard {})", text(why, "/service"), text(why, "/shard"))),
        ("owner", text(why, "/owner")),
        ("since", ago(why, "/since_ms", now_ms)),
        ("because", text(why, "/because")),
    ];
    out.one(why, &lines).map_err(nobody_reads)?;
    let history = why["history"].as_array().into_iter().flatten();
    let row = |fence: &Value| ["/epoch", "/owner", "/cause", "/position"].map(|part| text(fence, part)).to_vec();
    out.table(&["epoch", "owner", "cause", "position"], history.map(row).collect()).map_err(nobody_reads)?;
    let targets = why["can_move_to"].as_array().into_iter().flatten();
    let row = |target: &Value| {
        let failed = target["checks"].as_array().into_iter().flatten().filter(|check| check["ok"] == false);
        let reasons: Vec<String> = failed.map(|check| text(check, "/detail")).collect();
        vec![text(target, "/node"), if target["ok"] == true { "yes" } else { "no" }.to_owned(), reasons.join("; ")]
    };
    out.table(&["can move to", "", "why not"], targets.map(row).collect()).map_err(nobody_reads)
}

/// `segue node …`.
///
/// # Errors
/// [`OperateError`].
pub async fn nodes(command: &NodeCommand, operator: &mut Operator) -> Result<(), OperateError> {
    match command {
        NodeCommand::Ls { .. } => {
            let items = operator.asker.list("/v1/nodes", &[], ALL).await?;
            if items.is_empty() {
                let _ =
                    operator.out.note("no node is known: does a sidecar run, with the same broker as this migrator?");
            }
            let columns: &[Column<'_>] = &[
                ("node", &|item| text(item, "/name")),
                ("class", &|item| text(item, "/class")),
                ("arch", &|item| text(item, "/arch")),
                ("state", &|item| if item["silent"] == true { "silent" } else { "alive" }.to_owned()),
                ("heard", &|item| duration(item, "/heard_ms_ago")),
                ("owns", &|item| names(item, "/owns")),
                ("standby of", &|item| names(item, "/standby_of")),
                ("admin", &|item| text(item, "/admin")),
            ];
            operator.out.list(&items, columns).map_err(nobody_reads)
        }
        NodeCommand::Show { node, .. } => {
            let answer = operator.asker.get(&format!("/v1/nodes/{}", encode(node))).await?;
            show_node(&answer, operator)
        }
        NodeCommand::Drain { node, at_a_time, reason, dry_run, .. } => {
            let content = json!({"at_a_time": at_a_time, "reason": reason, "validate_only": dry_run});
            let answer = operator.asker.post(&format!("/v1/nodes/{}/drain", encode(node)), &content).await?;
            show_drain(&answer.json(), node, operator)
        }
    }
}

fn show_node(node: &Value, operator: &mut Operator) -> Result<(), OperateError> {
    let out = &mut operator.out;
    let state = if node["silent"] == true { "silent" } else { "alive" };
    let lines = [
        ("node", text(node, "/name")),
        ("class", format!("{}, {}", text(node, "/class"), text(node, "/arch"))),
        ("state", format!("{state}, heard {} ago", duration(node, "/heard_ms_ago"))),
        ("admin", text(node, "/admin")),
        ("incarnation", text(node, "/incarnation")),
    ];
    out.one(node, &lines).map_err(nobody_reads)?;
    let shards = node["shards"].as_array().into_iter().flatten();
    let row = |shard: &Value| {
        ["/service", "/shard", "/state", "/owner", "/applied", "/tail", "/trouble"]
            .map(|part| text(shard, part))
            .to_vec()
    };
    out.table(&["service", "shard", "replica", "owner", "applied", "tail", "trouble"], shards.map(row).collect())
        .map_err(nobody_reads)
}

fn show_drain(answer: &Value, node: &str, operator: &mut Operator) -> Result<(), OperateError> {
    let out = &mut operator.out;
    let moves = answer["moves"].as_array().map(Vec::as_slice).unwrap_or_default();
    match out.form {
        Form::Table => {
            let row = |moved: &Value| {
                let problem = moved["problem"]["detail"].as_str().or(moved["problem"].as_str());
                let problem = problem.unwrap_or_default().to_owned();
                vec![
                    text(moved, "/service"),
                    text(moved, "/shard"),
                    text(moved, "/to"),
                    text(moved, "/migration"),
                    problem,
                ]
            };
            out.table(&["service", "shard", "to", "migration", "cannot move"], moves.iter().map(row).collect())
        }
        _ => out.one(answer, &[]),
    }
    .map_err(nobody_reads)?;
    let stays = moves.iter().filter(|moved| !moved["problem"].is_null()).count();
    if stays > 0 {
        return Err(OperateError::Unsound(format!("{stays} of {} cannot move away from {node}", moves.len())));
    }
    if moves.is_empty() {
        let _ = out.note(&format!("{node} owns nothing"));
    }
    Ok(())
}

fn rate(item: &Value, pointer: &str) -> String {
    item.pointer(pointer).and_then(Value::as_f64).map_or("-".to_owned(), |rate| format!("{rate:.0}/s"))
}

/// `service` of each; its shard if it is not the only one's name.
fn names(item: &Value, pointer: &str) -> String {
    let owned = item.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let name = |shard: &Value| match shard["shard"].as_str() {
        None | Some("0") => text(shard, "/service"),
        Some(part) => format!("{}.{part}", text(shard, "/service")),
    };
    if owned.is_empty() { "-".to_owned() } else { owned.iter().map(name).collect::<Vec<_>>().join(", ") }
}
