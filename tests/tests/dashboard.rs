//! The page against a real migrator, in a real browser: the same tests that play against its made-up world, under load.
//!
//! `tests/run` installs Chromium and prepares the page's folder, which `SEGUE_WEB` names; by hand: `tests/tools/page.sh target`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use segue_tests::harness::{Process, Setup, binary};

use crate::{RATE_PER_S, ends_clean};

/// Playwright's own limits end each test far earlier.
const LIMIT: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_moves_watches_undoes_and_survives_the_migrator_in_a_browser() {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("../target"), PathBuf::from);
    let web = std::env::var_os("SEGUE_WEB").map_or_else(|| target.join("page/dashboard/web"), PathBuf::from);
    assert!(web.join("node_modules").is_dir(), "{} is not prepared: tests/tools/page.sh does it", web.display());
    let cluster = Setup::two_nodes().start().await;
    let recorder = cluster.recorder().await;
    let load = cluster.load(&["edge-a", "edge-b"], RATE_PER_S);
    load.acknowledges(50).await;

    let pid = cluster.folder().join("migrator.pid");
    fs::write(&pid, cluster.migrator.pid().as_raw_nonzero().to_string()).expect("the test folder can be written");
    let config = cluster.folder().join("migrator.toml");
    let log = cluster.folder().join("migrator-again.log");
    let (pid, config, log) = (pid.display(), config.display(), log.display());
    let segue = binary("segue");
    let again = format!("'{}' migrator --config '{config}' >> '{log}' 2>&1 & echo $! > '{pid}'", segue.display());
    let environment = BTreeMap::from([
        ("BASE_URL".to_owned(), format!("http://{}", cluster.rest.address())),
        ("UNDER_LOAD".to_owned(), "yes".to_owned()),
        ("MIGRATOR_STOP".to_owned(), format!("kill -9 $(cat '{pid}')")),
        ("MIGRATOR_START".to_owned(), again),
        ("SEGUE_ARTEFACTS".to_owned(), target.join("dashboard-real").display().to_string()),
    ]);
    let line = format!("cd '{}' && exec npx playwright test", web.display());
    let mut run = Process::start(cluster.folder(), "playwright", "sh".into(), vec!["-c".to_owned(), line], environment);
    let ended = run.ended_within(LIMIT, &cluster.shell).await;
    // Whichever runs now.
    let _ = std::process::Command::new("sh").args(["-c", &format!("kill -9 $(cat '{pid}')")]).status();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    ends_clean(&cluster, &recorder, load).await;
}
