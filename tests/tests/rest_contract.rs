//! REST against its own contract: schemathesis draws requests from `/openapi.json`, good ones and bad ones, and every answer must
//! be one that the contract tells; none may be a 5xx of ours.
//!
//! `tests/run` installs it; by hand: `pip install schemathesis`, and put it on `PATH`.

use std::collections::BTreeMap;
use std::fs;

use segue_tests::harness::{Process, SERVICE, Setup};

use crate::{RATE_PER_S, ends_clean};

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,unsupported_method";
/// Enough for each operation's own cases; the rest of the time goes into drawn ones.
const BUDGET_S: &str = "30";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_one_that_the_contract_tells() {
    let cluster = Setup::two_nodes().start().await;
    let recorder = cluster.recorder().await;
    let load = cluster.load(&["edge-a"], RATE_PER_S);
    load.acknowledges(50).await;
    let id = cluster.rest.migrate(SERVICE, "edge-b").await;
    assert_eq!(cluster.rest.ended(&id).await.outcome.as_deref(), Some("completed"));

    // What is really there, so that not every answer is a 404.
    let folder = cluster.folder().join("schemathesis");
    fs::create_dir(&folder).expect("the test folder can be written");
    let known = format!(
        "[parameters]\n\"path.id\" = {id:?}\n\"path.name\" = [{SERVICE:?}, \"edge-a\"]\n\"path.service\" = {SERVICE:?}\n\
         \"path.shard\" = \"0\"\n\"path.checkpoint\" = \"newest\"\n"
    );
    fs::write(folder.join("schemathesis.toml"), known).expect("the test folder can be written");
    let url = format!("http://{}/openapi.json", cluster.rest.address());
    // It keeps notes in its working directory. A stream of events has no end that could be judged.
    let line = format!(
        "cd '{}' && exec schemathesis run {url} --checks {CHECKS} --exclude-path-regex 'events$' --max-time {BUDGET_S} \
         --max-examples 20 --seed 1 --no-color",
        folder.display()
    );
    let arguments = ["-c".to_owned(), line].to_vec();
    let mut run = Process::start(cluster.folder(), "schemathesis", "sh".into(), arguments, BTreeMap::new());
    let ended = run.ended(&cluster.shell).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(ended.log.contains("passed"), "it asked nothing: {}", ended.log);
    // Whatever was asked for: nothing is lost by it.
    ends_clean(&cluster, &recorder, load).await;
}
