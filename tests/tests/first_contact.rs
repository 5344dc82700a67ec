//! What a folder holds before a sidecar has ever loaded it: adopted by an empty log, and never replaced unasked by a known one.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use broker_adapter::ids::ShardId;
use broker_adapter::memory::{Faults, MemoryBroker};
use broker_adapter::shell::{Shell, TaskSet, real};
use migrator::machine::Ending;
use migrator::{MigrationView, Migrator, MigratorHandle, NewMigration};
use segue_tests::harness::{HANG_LIMIT, Port, call, free_port, wait_for};
use serde_json::json;
use sidecar::catch_up::fold_at_tail;
use sidecar::checkpoint::import::set_aside;
use sidecar::checkpoint::load::Reader;
use sidecar::command::{Begin, BeginFailure};
use sidecar::runner::{DataParent, ProcessRunner, Runner};
use sidecar::{Config, ServiceConfig, Sidecar};

use crate::beginning::{exported, opened, tell};

struct Node {
    listen: Port,
    sidecar: Sidecar,
    shell: Shell,
    _admin: Port,
    _tasks: TaskSet,
}

impl Node {
    async fn start(broker: &Arc<MemoryBroker>, name: &str, folder: &Path, replace_state: bool) -> Node {
        let (shell, tasks) = real::process();
        let (listen, admin) = (free_port(), free_port());
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/sqlite/counter.py");
        let config: Config = serde_json::from_value(json!({
            "node": name, "broker": "memory:", "admin": admin.address(), "data": folder.with_extension("data"),
            "service": [{
                "name": "counter", "listen": listen.address(), "create": name == "edge-a", "replace_state": replace_state,
                "run": ["python3", program, "{address}", folder], "ready": "/ready",
                "state": { "kind": "directory", "path": folder },
            }],
        }))
        .expect("a good configuration");
        let (processes, data) =
            (shell.clone(), DataParent { folder: folder.with_extension("data"), prefix: "t".into() });
        let runner = move |service: &ServiceConfig| -> Arc<dyn Runner> {
            Arc::new(ProcessRunner::new(Vec::new(), service.run.clone(), data.clone(), processes.clone()))
        };
        let sidecar = Sidecar::start(config, broker.connect(name), runner, &shell).await.expect("it starts");
        Node { listen, sidecar, shell, _admin: admin, _tasks: tasks }
    }

    async fn ready(self) -> Node {
        wait_for(&self.shell, "the sidecar", || async { self.sidecar.admin.conditions().0.then_some(()) }).await;
        self
    }

    async fn count(&self, method: &str) -> String {
        let asked = call(&self.shell, &self.listen.address(), (method, "/count"), "x", HANG_LIMIT).await;
        asked.expect("the ingress answers").text().trim().to_owned()
    }
}

async fn migrate(migrator: &MigratorHandle, shell: &Shell) -> MigrationView {
    let id = wait_for(shell, "the order to be accepted", || async {
        let (service, to) = ("counter".parse().expect("a name"), "edge-b".parse().expect("a name"));
        migrator.create(NewMigration::new(service, to)).await.ok()
    });
    let ended = migrator.wait_end(id.await).await;
    ended.expect("the migrator runs").expect("the migration is known")
}

fn broker(shell: &Shell) -> Arc<MemoryBroker> {
    MemoryBroker::new(1, shell.clone(), Faults::calm())
}

/// Leaves a folder in which so many requests were counted, as an earlier life of the service would.
async fn counted(folder: &Path, requests: u32) {
    let (shell, _tasks) = real::process();
    fs::create_dir_all(folder).expect("the folder can be made");
    let node = Node::start(&broker(&shell), "edge-a", folder, false).await.ready().await;
    for number in 1..=requests {
        assert_eq!(node.count("POST").await, number.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_is_adopted_and_another_one_replaced_only_when_asked() {
    let (parent, (shell, _tasks)) = (tempfile::tempdir().expect("a folder"), real::process());
    let (a, b) = (parent.path().join("a"), parent.path().join("b"));
    counted(&a, 3).await;
    counted(&b, 1).await;
    let before = fs::read(b.join("counter.db")).expect("a database");
    let broker = broker(&shell);
    let owner = Node::start(&broker, "edge-a", &a, false).await.ready().await;
    assert_eq!(owner.count("POST").await, "4", "what the folder held is checkpoint 0");
    let migrator = Migrator::start(migrator::Config::new("memory:"), broker.connect("migrator"), shell.clone()).await;
    let migrator = migrator.expect("it starts");
    let target = Node::start(&broker, "edge-b", &b, false).await;
    let ended = migrate(&migrator, &shell).await;
    assert_eq!(ended.outcome, Some(Ending::RolledBack), "{ended:?}");
    assert!(format!("{:?}", ended.error).contains("--replace-state"), "{ended:?}");
    assert_eq!(fs::read(b.join("counter.db")).expect("a database"), before, "nothing happened to it");
    drop(target);
    let target = Node::start(&broker, "edge-b", &b, true).await;
    let ended = wait_for(&shell, "the move", || async {
        let ended = migrate(&migrator, &shell).await;
        (ended.outcome == Some(Ending::Completed)).then_some(ended)
    });
    ended.await;
    assert_eq!(target.count("POST").await, "5");
    let names = fs::read_dir(parent.path()).expect("a folder").map(|entry| entry.expect("a file").file_name());
    let copies: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("b.replaced-")).collect();
    assert_eq!(copies.len(), 1, "{copies:?}");
    let copy = fs::read(parent.path().join(&copies[0])).expect("a file");
    assert!(copy.windows(before.len()).any(|window| window == before), "the copy holds the file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_begins_with_an_import_loses_what_it_holds_only_when_asked() {
    let (parent, (shell, _tasks)) = (tempfile::tempdir().expect("a folder"), real::process());
    let (a, b) = (parent.path().join("a"), parent.path().join("b"));
    counted(&a, 3).await;
    counted(&b, 1).await;
    let counter = ShardId::whole("counter".parse().expect("a name"));
    let archive = {
        let broker = broker(&shell);
        let _owner = Node::start(&broker, "edge-a", &a, false).await.ready().await;
        let broker = broker.connect("operator");
        let (fold, _) = fold_at_tail(&broker, &counter, &shell).await.expect("the log can be read");
        let newest = fold.checkpoints().newest().expect("checkpoint 0 counts").clone();
        exported(&broker, &shell, (&counter, newest.position, newest.manifest)).await
    };
    let before = fs::read(b.join("counter.db")).expect("a database");
    let broker = broker(&shell);
    let node = Node::start(&broker, "edge-b", &b, false).await;
    let broker = broker.connect("operator");
    let reader = Reader { store: broker.store(), shell: shell.clone() };
    let aside = set_aside(&reader, opened(archive, &shell).await, &counter, true).await;
    let (_, import) = aside.expect("the store takes it");
    let begin = |replace_state| Begin { shard: counter.clone(), import, replace_state, answer_to: String::new() };
    let refused = tell(&broker, &shell, "edge-b", begin(false), HANG_LIMIT).await.expect("it answers").result;
    assert!(matches!(&refused, Err(BeginFailure::Origin(told)) if told.contains("unknown origin")), "{refused:?}");
    assert_eq!(fs::read(b.join("counter.db")).expect("a database"), before, "nothing happened to it");
    let begun = tell(&broker, &shell, "edge-b", begin(true), HANG_LIMIT).await.expect("it answers").result;
    assert!(begun.is_ok(), "{begun:?}");
    let node = node.ready().await;
    assert_eq!(node.count("POST").await, "4", "it goes on with what was imported");
    let names = fs::read_dir(parent.path()).expect("a folder").map(|entry| entry.expect("a file").file_name());
    let copies: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("b.replaced-")).collect();
    assert_eq!(copies.len(), 1, "{copies:?}");
}
