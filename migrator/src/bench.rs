//! A whole world for tests: a memory broker, sidecars that only answer commands, and migrators that can be killed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::broker::Broker;
use broker_adapter::fold::{Fold, Verdict};
use broker_adapter::ids::{Epoch, Hash, Incarnation, Position, Replica, ShardId};
use broker_adapter::memory::{Faults, MemoryBroker};
use broker_adapter::record::{Cause, Fence, Record};
use broker_adapter::shell::sim::SimWorld;
use broker_adapter::shell::{Shell, TaskSet};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use sidecar::command::{
    ANNOUNCE_ADDRESS, Announcement, Command, FailureCode, NodeMail, Outcome, ReplicaState, ShardStatus, Step, StepDone,
    StepFailure, StepStatus, decode, encode, node_address,
};

use crate::config::{Config, Deadlines};
use crate::driver::Migrator;
use crate::handle::{MigratorHandle, NewMigration};
use crate::hold::Hold;
use crate::journal::JOURNAL_LOG;
use crate::view::MigrationView;

/// How a sidecar of these tests differs from one that does everything at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Good,
    /// Never answers this step.
    SilentAt(&'static str),
    /// Answers this step with a failure.
    FailsAt(&'static str, FailureCode),
}

pub struct Bench {
    pub world: Arc<SimWorld>,
    pub broker: Arc<MemoryBroker>,
    pub shell: Shell,
    pub told: Arc<Mutex<Vec<(String, Command)>>>,
    pub sidecars: Vec<TaskSet>,
    pub _tasks: TaskSet,
}

pub fn shard() -> ShardId {
    ShardId::whole("board".parse().unwrap())
}

pub fn replica(node: &str, run: u128) -> Replica {
    Replica { node: node.parse().unwrap(), incarnation: Incarnation::from_bits(run) }
}

pub fn status() -> ShardStatus {
    ShardStatus {
        shard: shard(),
        epoch: Epoch(1),
        owner: Some(replica("a", 1)),
        tail: Position(1),
        runs_replica: true,
        replica: ReplicaState::Following,
        applied: Position(1),
        checkpoint: None,
        messages_counted: 0,
        listen: "127.0.0.1:1".to_owned(),
        trouble: None,
        proof: Some("state".to_owned()),
        traffic: Vec::new(),
    }
}

fn done(step: &Step) -> StepDone {
    match step {
        Step::PrepareTarget { .. } => StepDone::Prepared { warm: None, differs: false },
        Step::Pause { save: false, .. } => StepDone::Paused { position: Position(1) },
        Step::Checkpoint { .. } | Step::Pause { .. } => StepDone::Checkpoint {
            position: Position(1),
            manifest: Hash::of(b"m"),
            state_bytes: 1,
            stored_bytes: 1,
            reused_bytes: 0,
        },
        Step::Verify { .. } => StepDone::Agreed {
            position: Position(1),
            hash: Hash::default(),
            state: Some(Hash::default()),
            replies_compared: 1,
        },
        _ => StepDone::Plain,
    }
}

impl Bench {
    pub async fn new(seed: u64, faults: Faults) -> Bench {
        let world = SimWorld::new(seed);
        let (shell, tasks) = world.process();
        let broker = MemoryBroker::new(seed, shell.clone(), faults);
        let told = Arc::default();
        let bench = Bench { world, broker, shell, told, sidecars: Vec::new(), _tasks: tasks };
        bench.fence(1, replica("a", 1), Cause::First).await;
        bench
    }

    pub async fn fence(&self, epoch: u64, owner: Replica, cause: Cause) {
        let link = self.broker.connect("test");
        let fence = Fence { epoch: Epoch(epoch), owner, cause, migration: None, retires: None };
        while self.fold().epoch().0 < epoch {
            if let Ok(log) = link.log(&shard().log_name()).await {
                let _ = log.append(vec![Record::Fence(fence.clone())]).await;
            }
            self.shell.sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn fold(&self) -> Fold {
        let mut fold = Fold::new();
        if self.broker.logs().contains(&shard().log_name()) {
            self.broker.dump(&shard().log_name()).iter().for_each(|entry| drop(fold.observe(entry)));
        }
        fold
    }

    pub fn sidecar(&mut self, me: Replica, manner: Manner) -> usize {
        self.sidecar_of(me, vec![status()], manner)
    }

    pub fn sidecar_of(&mut self, me: Replica, shards: Vec<ShardStatus>, manner: Manner) -> usize {
        let (shell, tasks) = self.world.process();
        let link = self.broker.connect(me.node.as_str());
        start_sidecar(&shell, link, Announced { me, shards }, manner, self.told.clone());
        self.sidecars.push(tasks);
        self.sidecars.len() - 1
    }

    pub fn good_pair(&mut self) {
        self.sidecar(replica("a", 1), Manner::Good);
        self.sidecar(replica("b", 2), Manner::Good);
    }

    /// A migrator's process; dropping the set kills it.
    pub async fn migrator(&self, name: &str) -> (MigratorHandle, TaskSet) {
        self.migrator_with(name, None).await
    }

    pub async fn migrator_with(&self, name: &str, hold: Option<Hold>) -> (MigratorHandle, TaskSet) {
        let (shell, tasks) = self.world.process();
        let deadlines = Deadlines { prepare_ms: 5_000, replay_ms: 5_000, handover_ms: 5_000, ..Deadlines::default() };
        let config = Config { name: name.parse().unwrap(), deadlines, hold, ..Config::new("memory:") };
        let handle = Migrator::start(config, self.broker.connect(name), shell).await.unwrap();
        // Until the nodes were heard.
        self.shell.sleep(Duration::from_millis(1_500)).await;
        (handle, tasks)
    }

    /// The journal as any reader judges it: how many entries count, and how many do not.
    pub fn journal_verdicts(&self) -> (usize, usize) {
        let mut fold = Fold::new();
        let verdicts: Vec<Verdict> = self.broker.dump(JOURNAL_LOG).iter().map(|entry| fold.observe(entry)).collect();
        let count = |wanted: fn(&Verdict) -> bool| verdicts.iter().filter(|verdict| wanted(verdict)).count();
        (count(|verdict| *verdict == Verdict::Noted), count(|verdict| matches!(verdict, Verdict::Void(_))))
    }
}

/// What a sidecar of these tests tells of itself.
pub struct Announced {
    pub me: Replica,
    pub shards: Vec<ShardStatus>,
}

pub fn start_sidecar(
    shell: &Shell,
    link: Arc<dyn Broker>,
    announced: Announced,
    manner: Manner,
    told: Arc<Mutex<Vec<(String, Command)>>>,
) {
    let Announced { me, shards } = announced;
    let announcement = Announcement {
        from: me.clone(),
        class: "edge".to_owned(),
        arch: "x86_64".to_owned(),
        started_ms: shell.wall_ms(),
        admin: String::new(),
        shards,
        leaving: false,
        load: None,
    };
    let (mailbox, announcer) = (link.mailbox(), shell.clone());
    shell.spawn(async move {
        loop {
            mailbox.send(ANNOUNCE_ADDRESS, encode(&announcement));
            announcer.sleep(Duration::from_millis(500)).await;
        }
    });
    let mut mail = link.mailbox().subscribe(&node_address(&me.node));
    shell.spawn(async move {
        while let Some(bytes) = mail.next().await {
            let Some(NodeMail::Command(command)) = decode(&bytes) else { continue };
            told.lock().unwrap().push((me.node.to_string(), command.clone()));
            obey(&link, &me, manner, command).await;
        }
    });
}

async fn obey(link: &Arc<dyn Broker>, me: &Replica, manner: Manner, command: Command) {
    let step = command.step.name();
    let status = match manner {
        Manner::SilentAt(silent) if silent == step => return,
        Manner::FailsAt(fails, code) if fails == step => StepStatus::Failed(StepFailure::new(code, "it was planned")),
        _ if command.to != *me => StepStatus::Failed(StepFailure::new(FailureCode::WrongIncarnation, "")),
        _ => StepStatus::Done(done(&command.step)),
    };
    if let (Step::Handover { cause, .. }, StepStatus::Done(_)) = (&command.step, &status) {
        let migration = Some(command.migration);
        let fence = Fence { epoch: command.epoch, owner: me.clone(), cause: *cause, migration, retires: None };
        let Ok(log) = link.log(&command.shard.log_name()).await else { return };
        let _ = log.append(vec![Record::Fence(fence)]).await;
    }
    let Command { migration, attempt, .. } = command;
    let outcome = Outcome { migration, attempt, step: step.to_owned(), from: me.clone(), status };
    link.mailbox().send(&command.answer_to, encode(&outcome));
}

pub fn to(node: &str) -> NewMigration {
    let (service, to) = ("board".parse().unwrap(), node.parse().unwrap());
    NewMigration::new(service, to)
}

pub async fn moved(handle: &MigratorHandle, node: &str) -> MigrationView {
    let id = handle.create(to(node)).await.unwrap();
    handle.wait_end(id).await.unwrap().unwrap()
}

pub struct Answer {
    pub status: u16,
    pub kind: String,
    pub location: String,
    pub request_id: String,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

pub async fn call(shell: &Shell, address: &str, line: (&str, &str), body: &str) -> std::io::Result<Answer> {
    call_with(shell, address, line, &[], body).await
}

pub async fn call_with(
    shell: &Shell,
    address: &str,
    line: (&str, &str),
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<Answer> {
    let (head, content) = call_raw(shell, address, line, headers, Bytes::from(body.to_owned())).await?;
    let header = |name: &str| head.headers.get(name).map_or(String::new(), |value| value.to_str().unwrap().to_owned());
    let (status, kind, location) = (head.status.as_u16(), header("content-type"), header("location"));
    let text = String::from_utf8(content.expect("the answer is whole").to_vec()).unwrap();
    Ok(Answer { status, kind, location, request_id: header("x-request-id"), text })
}

/// An answer's head, and its content unless it broke off.
pub type Raw = (hyper::http::response::Parts, Result<Bytes, hyper::Error>);

pub async fn call_raw(
    shell: &Shell,
    address: &str,
    line: (&str, &str),
    headers: &[(&str, &str)],
    body: Bytes,
) -> std::io::Result<Raw> {
    let stream = shell.connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    shell.spawn(async move { drop(connection.await) });
    let mut request = hyper::Request::builder().method(line.0).uri(line.1).header("host", "migrator");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body)).unwrap();
    let (head, content) = sender.send_request(request).await.unwrap().into_parts();
    Ok((head, content.collect().await.map(|content| content.to_bytes())))
}
