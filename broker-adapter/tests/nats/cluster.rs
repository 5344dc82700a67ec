//! Three servers, three replicas: the leader of a log dies in mid-stream.

use std::sync::Arc;
use std::time::Duration;

use broker_adapter::follow::Follower;
use broker_adapter::ids::Position;
use broker_adapter::log::MessageLog;
use broker_adapter::nats::NatsOptions;
use broker_adapter::nats::options::Durability;
use broker_adapter::record::Record;
use broker_adapter::shell::{Shell, real};
use broker_adapter::{BrokerOptions, connect_with};
use serde_json::Value;

use super::server::{Port, Server, Setup, free_port};
use super::settings::api;
use crate::support::{mark, number};

const RECORDS: u64 = 3_000;
const STREAM: &str = "SEGUE_a_2E0";
const HANG_LIMIT: Duration = Duration::from_secs(120);

struct Cluster {
    servers: Vec<Server>,
    /// Nobody may take the port of one that is dead for a while.
    _ports: Vec<Port>,
    _folder: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Cluster {
        let folder = tempfile::tempdir().expect("a folder");
        let ports: Vec<_> = (0..3).map(|_| free_port()).collect();
        let all: Vec<u16> = ports.iter().map(|port| port.number).collect();
        let setup = |own| Setup { cluster: Some(("segue".to_owned(), own, all.clone())), ..Setup::default() };
        let servers =
            all.iter().map(|own| Server::start_with(&folder.path().join(own.to_string()), setup(*own))).collect();
        Cluster { servers, _ports: ports, _folder: folder }
    }

    fn url(&self) -> String {
        let hosts: Vec<String> =
            self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port.number)).collect();
        format!("nats://{}", hosts.join(","))
    }

    fn options(&self) -> BrokerOptions {
        let monitoring = |server: &Server| format!("http://127.0.0.1:{}", server.monitoring.number);
        let nats = NatsOptions {
            replicas: Some(3),
            durability: Durability::QuorumFsync,
            monitoring_url: self.servers.iter().map(monitoring).collect(),
            ..NatsOptions::default()
        };
        BrokerOptions { nats, ..BrokerOptions::default() }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_a_leader_in_a_cluster_of_three_costs_no_record() {
    let (shell, _process) = real::process();
    shell.within(HANG_LIMIT, leader_dies(&shell)).await.expect("it ends");
}

async fn leader_dies(shell: &Shell) {
    let mut cluster = Cluster::start();
    let broker = loop {
        // The servers choose a leader among themselves first.
        match connect_with(&cluster.url(), &cluster.options(), shell).await {
            Ok(broker) => break broker,
            Err(error) => tracing::debug!(%error, "not yet"),
        }
    };
    let log = broker.log("a.0").await.expect("it opens");
    let usage = log.usage().await.expect("usage is known");
    assert!(usage.durability.contains("quorum of 3") && usage.durability.contains("verified"), "{}", usage.durability);
    let (appender, world) = (log.clone(), shell.clone());
    let appending = tokio::spawn(async move { append_all(&appender, &world).await });
    let follower = tokio::spawn(follow(log.clone(), shell.clone()));
    shell.sleep(Duration::from_millis(300)).await;

    let admin = async_nats::connect(cluster.url().split(',').map(str::to_owned).collect::<Vec<_>>())
        .await
        .expect("it connects");
    let info = api(&admin, &format!("STREAM.INFO.{STREAM}"), Value::Null).await;
    let leader = info["cluster"]["leader"].as_str().expect("a leader").to_owned();
    let at =
        cluster.servers.iter().position(|server| leader == format!("n{}", server.port.number)).expect("one of ours");
    cluster.servers[at].kill();
    let failed = appending.await.expect("it does not panic");
    assert!(failed > 0, "the death of the leader was felt");
    let tail = log.tail().await.expect("the tail is known");
    assert!(tail.0 > RECORDS, "a mark of its own tells the tail: {tail}");
    cluster.servers[at].start_again();
    follower.await.expect("everything was there, in order");
}

async fn append_all(log: &Arc<dyn MessageLog>, shell: &Shell) -> u64 {
    let mut failed = 0;
    for at in 1..=RECORDS {
        while let Err(error) = log.append(vec![mark(at)]).await {
            assert!(error.is_retryable(), "{error}");
            failed += 1;
            shell.sleep(Duration::from_millis(20)).await;
        }
    }
    failed
}

/// Reads beside the appender, over the change of leaders.
async fn follow(log: Arc<dyn MessageLog>, shell: Shell) {
    let mut follower = Follower::new(log, shell, Position::ZERO, 0);
    let mut seen = 0;
    while seen < RECORDS {
        let entry = follower.next().await.expect("nothing stops it");
        if matches!(&entry.record, Record::Mark(mark) if mark.id.0 > u128::from(u64::MAX)) {
            continue;
        }
        let number = number(&entry);
        assert!(number <= seen + 1, "{number} came behind {seen}");
        seen = seen.max(number);
    }
}
