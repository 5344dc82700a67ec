//! `segue doctor`: what is reachable, durable, lagging, and what to do about what is not.

use std::time::Duration;

use serde_json::{Value, json};

use super::Operator;
use super::failure::OperateError;
use super::show::{Column, duration, text};
use super::watch::nobody_reads;
use crate::rest::Rest;

/// More than a migrator remembers.
const ALL: usize = 100_000;
/// How long a sidecar's own port may take to answer.
const ADMIN_LIMIT: Duration = Duration::from_secs(2);
/// A replica that follows is not further behind than this for long.
const LAG_RECORDS: u64 = 10_000;

/// What was looked at.
struct Found {
    items: Vec<Value>,
}

impl Found {
    fn good(&mut self, what: &str, detail: String) {
        self.add("ok", what, detail, "");
    }

    fn bad(&mut self, what: &str, detail: String, hint: &str) {
        self.add("wrong", what, detail, hint);
    }

    fn doubtful(&mut self, what: &str, detail: String, hint: &str) {
        self.add("look", what, detail, hint);
    }

    fn add(&mut self, found: &str, what: &str, detail: String, hint: &str) {
        self.items.push(json!({"found": found, "what": what, "detail": detail, "hint": hint}));
    }
}

/// Looks at everything that the migrator can reach, and tells.
///
/// # Errors
/// If the migrator does not answer, or something is wrong.
pub async fn run(operator: &mut Operator) -> Result<(), OperateError> {
    let mut found = Found { items: Vec::new() };
    migrator(operator, &mut found).await?;
    let nodes = operator.asker.list("/v1/nodes", &[], ALL).await?;
    look_at_nodes(operator, &nodes, &mut found).await;
    let services = operator.asker.list("/v1/services", &[], ALL).await?;
    look_at_services(&services, &mut found);
    let running = [("running", "true".to_owned())];
    let migrations = operator.asker.list("/v1/migrations", &running, ALL).await?;
    look_at_migrations(&migrations, &mut found);
    let columns: &[Column<'_>] = &[
        ("", &|item| text(item, "/found")),
        ("what", &|item| text(item, "/what")),
        ("detail", &|item| text(item, "/detail")),
        ("what to do", &|item| text(item, "/hint")),
    ];
    operator.out.list(&found.items, columns).map_err(nobody_reads)?;
    let wrong = found.items.iter().filter(|item| item["found"] == "wrong").count();
    match wrong {
        0 => Ok(()),
        1 => Err(OperateError::Unsound("1 thing is wrong".to_owned())),
        _ => Err(OperateError::Unsound(format!("{wrong} things are wrong"))),
    }
}

async fn migrator(operator: &Operator, found: &mut Found) -> Result<(), OperateError> {
    let ready = operator.asker.rest.get("/readyz?verbose").await?;
    let lines = String::from_utf8_lossy(&ready.body).into_owned();
    for line in lines.lines() {
        let told = line.trim_start_matches(['[', '+', '-', ']', ' ']).to_owned();
        if line.starts_with("[-]") {
            found.bad("migrator", told, "look at the broker and at the migrator's own log");
        } else {
            found.good("migrator", told);
        }
    }
    let status = operator.asker.get("/v1/status").await?;
    let (url, durability) = (text(&status, "/broker/url"), text(&status, "/broker/durability"));
    found.good("broker", format!("{url}: {durability}"));
    Ok(())
}

async fn look_at_nodes(operator: &Operator, nodes: &[Value], found: &mut Found) {
    if nodes.is_empty() {
        let hint = "start a sidecar, with the same broker as this migrator";
        found.bad("nodes", "no node is known".to_owned(), hint);
    }
    for node in nodes {
        let name = format!("node {}", text(node, "/name"));
        if node["silent"] == true {
            let detail = format!("not heard for {}", duration(node, "/heard_ms_ago"));
            found.bad(&name, detail, "look at its sidecar, and whether it reaches the broker");
            continue;
        }
        let admin = text(node, "/admin");
        match ready(operator, &admin).await {
            Some((200, _)) => found.good(&name, format!("alive and ready at {admin}")),
            Some((_, told)) => {
                found.bad(&name, format!("alive, not ready: {told}"), "the detail says what it waits for");
            }
            // It speaks to us through the broker, which suffices.
            None => found.doubtful(
                &name,
                format!("alive; {admin} cannot be reached from here"),
                "nothing, if it is behind NAT",
            ),
        }
        for shard in node["shards"].as_array().into_iter().flatten().filter(|shard| !shard["trouble"].is_null()) {
            let hint = "`segue service why` tells where it can move; the sidecar's log tells more";
            found.bad(&format!("{name}, {}", text(shard, "/service")), text(shard, "/trouble"), hint);
        }
    }
}

/// The status and the lines that are not good.
async fn ready(operator: &Operator, admin: &str) -> Option<(u16, String)> {
    let rest = Rest::new(&format!("http://{admin}"), operator.asker.shell.clone(), ADMIN_LIMIT).ok()?;
    let answer = rest.get("/readyz?verbose").await.ok()?;
    let lines = String::from_utf8_lossy(&answer.body).into_owned();
    let bad: Vec<&str> = lines.lines().filter(|line| line.starts_with("[-]")).collect();
    Some((answer.status, bad.join("; ")))
}

fn look_at_services(services: &[Value], found: &mut Found) {
    for service in services {
        let name = format!("service {}", text(service, "/service"));
        let owner = text(service, "/owner");
        if service["owner"].is_null() {
            found.bad(&name, "nobody owns it".to_owned(), "start the sidecar whose [[service]] has create = true");
            continue;
        }
        match service["lag_records"].as_u64() {
            Some(lag) if lag > LAG_RECORDS => {
                let hint = "more comes in than it applies: offer a batch endpoint, or move it to a faster node";
                found.bad(&name, format!("{owner} is {lag} records behind"), hint);
            }
            _ => found.good(&name, format!("owned by {owner} since epoch {}", text(service, "/epoch"))),
        }
        if service["checkpoint"].is_null() {
            found.bad(&name, "no checkpoint counts".to_owned(), "its owner tells why in its log");
        }
    }
}

fn look_at_migrations(migrations: &[Value], found: &mut Found) {
    for migration in migrations {
        let name = format!("migration {}", text(migration, "/id"));
        let phase = text(migration, "/phase");
        if migration["forecast"]["converges"] == false {
            let hint = "let less in, cancel it, or choose precopy or ms2m with a cutoff";
            found.bad(&name, format!("{phase}: {}", text(migration, "/forecast/sentence")), hint);
        } else {
            found.good(&name, format!("{} to {}: {phase}", text(migration, "/service"), text(migration, "/to")));
        }
    }
}
