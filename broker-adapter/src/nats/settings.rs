//! The streams of this adapter: made if they are missing, and verified at every connect, because a stream that deletes by itself
//! loses acknowledged records (invariant 4).
//!
//! A mismatch is named with the `nats` command that mends it; what no command can change on a stream is named as such.

use serde_json::{Value, json};

use crate::broker::ConnectError;

use super::api::{self, StreamInfo};
use super::link::Link;
use super::options::NatsOptions;

/// A setting that is not as it must be.
struct Mismatch {
    what: String,
    /// The flag of `nats stream edit` that mends it.
    mend: Option<String>,
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Log,
    Store,
}

/// What a stream of ours must be.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub kind: Kind,
    pub name: String,
    pub subjects: Vec<String>,
}

/// The stream as it is, after it was made if need be, and found to be as it must.
pub async fn open(link: &Link, wanted: &Wanted) -> Result<StreamInfo, ConnectError> {
    let lines = link.lines().ok_or_else(|| link.refused("the process has ended"))?;
    let (line, shell) = (&lines.store, link.shell());
    let mut result = api::stream_info(line, shell, &wanted.name).await;
    if result.as_ref().is_err_and(|error| error.is(api::STREAM_NOT_FOUND)) {
        result = match api::create_stream(line, shell, &new(wanted, link.options())).await {
            // Another process made it in between, with other options.
            Err(error) if error.is(api::STREAM_NAME_IN_USE) => api::stream_info(line, shell, &wanted.name).await,
            result => result,
        };
    }
    let info = result.map_err(|error| link.refused(format!("stream {}: {}", wanted.name, error.reason())))?;
    match check(&info.config, wanted, link.options()) {
        Ok(()) => Ok(info),
        Err(problems) => Err(ConnectError::Settings { what: format!("the stream {}", wanted.name), problems }),
    }
}

/// The configuration of a new stream.
fn new(wanted: &Wanted, options: &NatsOptions) -> Value {
    let limit = match wanted.kind {
        Kind::Log => options.max_bytes,
        Kind::Store => options.store_max_bytes,
    };
    let mut config = json!({
        "name": wanted.name,
        "subjects": wanted.subjects,
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_age": 0,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_msg_size": -1,
        "max_consumers": -1,
        "max_bytes": limit.map_or(-1, |limit| i64::try_from(limit.get()).unwrap_or(i64::MAX)),
        "num_replicas": options.replicas.unwrap_or(1),
        "deny_delete": wanted.kind == Kind::Log,
        "allow_rollup_hdrs": wanted.kind == Kind::Store,
        "allow_direct": wanted.kind == Kind::Store,
    });
    let placement = &options.placement;
    if placement.cluster.is_some() || !placement.tags.is_empty() {
        config["placement"] =
            json!({ "cluster": placement.cluster.clone().unwrap_or_default(), "tags": placement.tags });
    }
    config
}

/// Whether a stream is as it must be; if not, every mismatch and what to do.
pub fn check(config: &Value, wanted: &Wanted, options: &NatsOptions) -> Result<(), String> {
    let mismatches = mismatches(config, wanted, options);
    if mismatches.is_empty() {
        return Ok(());
    }
    let what: Vec<&str> = mismatches.iter().map(|mismatch| mismatch.what.as_str()).collect();
    let flags: Vec<&str> = mismatches.iter().filter_map(|mismatch| mismatch.mend.as_deref()).collect();
    let mut text = what.join("; ");
    if !flags.is_empty() {
        text += &format!("; mend with: nats stream edit {} {}", wanted.name, flags.join(" "));
    }
    if flags.len() < mismatches.len() {
        text += &format!(
            "; what no flag mends is fixed when a stream is made: keep a copy (nats stream backup {} DIRECTORY) and use another name",
            wanted.name
        );
    }
    Err(text)
}

fn mismatches(config: &Value, wanted: &Wanted, options: &NatsOptions) -> Vec<Mismatch> {
    let mut all = Vec::new();
    let mut must = |fits: bool, what: String, mend: Option<&str>| {
        if !fits {
            all.push(Mismatch { what, mend: mend.map(str::to_owned) });
        }
    };
    let text = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| config[key].as_i64().unwrap_or_default();
    let set = |key: &str| config[key].as_bool().unwrap_or_default();
    let present = |key: &str| !matches!(&config[key], Value::Null) && config[key] != json!([]);
    for (key, value, mend) in
        [("retention", "limits", None), ("storage", "file", None), ("discard", "new", Some("--discard=new"))]
    {
        must(text(key) == value, format!("{key} is {:?} and must be {value:?}", text(key)), mend);
    }
    for (key, mend) in [
        ("max_age", "--max-age=0s"),
        ("max_msgs", "--max-msgs=-1"),
        ("max_msgs_per_subject", "--max-msgs-per-subject=-1"),
        ("max_msg_size", "--max-msg-size=-1"),
    ] {
        must(number(key) <= 0, format!("{key} is {} and must be without limit", number(key)), Some(mend));
    }
    let is_store = wanted.kind == Kind::Store;
    for (key, mend) in [
        ("no_ack", Some("--ack")),
        ("sealed", None),
        ("deny_purge", None),
        ("allow_msg_ttl", None),
        ("allow_msg_counter", None),
        ("allow_msg_schedules", None),
    ] {
        must(!set(key), format!("{key} is on and must be off"), mend);
    }
    must(
        is_store || !set("allow_rollup_hdrs"),
        "allow_rollup_hdrs is on and must be off".to_owned(),
        Some("--no-allow-rollup"),
    );
    must(is_store || set("deny_delete"), "deny_delete is off and must be on".to_owned(), Some("--deny-delete"));
    must(
        !is_store || set("allow_rollup_hdrs"),
        "allow_rollup_hdrs is off and must be on".to_owned(),
        Some("--allow-rollup"),
    );
    must(!is_store || set("allow_direct"), "allow_direct is off and must be on".to_owned(), Some("--allow-direct"));
    must(
        text("persist_mode") != "async",
        "persist_mode is \"async\": it acknowledges before it writes".to_owned(),
        None,
    );
    for key in ["mirror", "sources", "subject_transform"] {
        must(!present(key), format!("{key} is set and must not be"), None);
    }
    must(number("first_seq") <= 1, format!("first_seq is {} and must be 1", number("first_seq")), None);
    let subjects = config["subjects"] == json!(wanted.subjects);
    let mend = format!("--subjects={}", wanted.subjects.join(","));
    must(subjects, format!("subjects are {} and must be {}", config["subjects"], json!(wanted.subjects)), Some(&mend));
    if let Some(replicas) = options.replicas {
        let found = number("num_replicas");
        let mend = format!("--replicas={replicas}");
        must(
            found == i64::from(replicas),
            format!("num_replicas is {found}, the configuration says {replicas}"),
            Some(&mend),
        );
    }
    let limit = if is_store { options.store_max_bytes } else { options.max_bytes };
    if let Some(limit) = limit {
        let found = number("max_bytes");
        let mend = format!("--max-bytes={limit}");
        must(
            u64::try_from(found) == Ok(limit.get()),
            format!("max_bytes is {found}, the configuration says {limit}"),
            Some(&mend),
        );
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(kind: Kind) -> Wanted {
        Wanted { kind, name: "SEGUE_a".to_owned(), subjects: vec!["segue.log.a".to_owned()] }
    }

    #[test]
    fn what_this_adapter_makes_passes_its_own_check() {
        for kind in [Kind::Log, Kind::Store] {
            let options = NatsOptions { replicas: Some(3), ..NatsOptions::default() };
            assert_eq!(check(&new(&wanted(kind), &options), &wanted(kind), &options), Ok(()));
        }
    }

    /// The server's tests show the same on real streams; here every setting is tried, those too that a server refuses to make.
    #[test]
    fn each_setting_that_loses_records_is_named() {
        let changes = [
            ("retention", json!("workqueue")),
            ("storage", json!("memory")),
            ("discard", json!("old")),
            ("max_age", json!(60_000_000_000u64)),
            ("max_msgs", json!(10)),
            ("max_msgs_per_subject", json!(1)),
            ("max_msg_size", json!(100)),
            ("no_ack", json!(true)),
            ("sealed", json!(true)),
            ("deny_purge", json!(true)),
            ("deny_delete", json!(false)),
            ("allow_rollup_hdrs", json!(true)),
            ("allow_msg_ttl", json!(true)),
            ("allow_msg_counter", json!(true)),
            ("allow_msg_schedules", json!(true)),
            ("persist_mode", json!("async")),
            ("mirror", json!({ "name": "other" })),
            ("sources", json!([{ "name": "other" }])),
            ("subject_transform", json!({ "src": ">", "dest": "a.>" })),
            ("first_seq", json!(100)),
            ("subjects", json!(["segue.log.a", "other"])),
            ("num_replicas", json!(1)),
            ("max_bytes", json!(-1)),
        ];
        let options =
            NatsOptions { replicas: Some(3), max_bytes: std::num::NonZeroU64::new(1_000), ..NatsOptions::default() };
        for (key, value) in changes {
            let mut config = new(&wanted(Kind::Log), &options);
            config[key] = value;
            let problems = check(&config, &wanted(Kind::Log), &options).expect_err(key);
            assert!(problems.contains(key), "{key}: {problems}");
            assert!(problems.contains("nats stream"), "{key}: {problems}");
        }
    }
}
