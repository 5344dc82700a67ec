//! What operators look at by Prometheus: the dashboard and the alert rules name only what the processes really export.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use segue_tests::harness::{Cluster, HANG_LIMIT, SERVICE, Setup, call};
use serde_json::Value;

use crate::RATE_PER_S;

/// Every `segue_*` in a text.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    let words = text.split(|letter: char| !is_part(letter));
    words.filter(|word| word.starts_with("segue_")).map(str::to_owned).collect()
}

fn sample(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/grafana").join(name);
    fs::read_to_string(path).expect("the sample can be read")
}

async fn scraped(cluster: &Cluster, address: &str) -> String {
    let answer = call(&cluster.shell, address, ("GET", "/metrics"), "", HANG_LIMIT).await.expect("it answers");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dashboard_and_the_alerts_name_only_what_is_exported() {
    let cluster = Setup::two_nodes().start().await;
    let load = cluster.load(&["edge-a"], RATE_PER_S);
    load.acknowledges(50).await;
    let id = cluster.rest.migrate(SERVICE, "edge-b").await;
    assert_eq!(cluster.rest.ended(&id).await.outcome.as_deref(), Some("completed"));
    let mut exported = BTreeSet::new();
    for address in
        [cluster.rest.address().to_owned(), cluster.broker.admin(), cluster.admin("edge-a"), cluster.admin("edge-b")]
    {
        exported.extend(names(&scraped(&cluster, &address).await));
    }
    for file in ["segue.json", "alerts.yml"] {
        let named = names(&sample(file));
        assert!(named.len() > 5, "{file} names {named:?}");
        let unknown: Vec<_> = named.difference(&exported).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}; exported are {exported:?}");
    }
    drop(load);
}

#[test]
fn every_panel_has_its_own_place_and_says_what_it_shows() {
    let dashboard: Value = serde_json::from_str(&sample("segue.json")).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let mut places = BTreeSet::new();
    for panel in panels {
        let place = &panel["gridPos"];
        assert!(places.insert((place["y"].as_u64(), place["x"].as_u64())), "two panels at {place}");
        if panel["type"] != "row" {
            assert!(panel["description"].as_str().is_some_and(|words| !words.is_empty()), "{panel}");
        }
    }
}
