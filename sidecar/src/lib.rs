//! The sidecar: ingress, applier, service contract, checkpoints, runners, node agent.
//!
//! ```text
//!   ingress/   where inputs enter          replica/     what applies them, as owner or standby
//!   service/   the contract with the service   runner/  who starts it
//!   checkpoint/ saving and loading         node, admin  mail, announcements, health
//! ```
//! [`run`] is a whole sidecar process; [`Sidecar::start`] is the same inside another program, such as the simulation.

pub mod admin;
pub mod body;
pub mod catch_up;
pub mod checkpoint;
pub mod command;
pub mod config;
pub mod difference;
pub mod ingress;
mod load;
pub mod metrics;
pub mod node;
mod problem;
pub mod replica;
pub mod room;
pub mod runner;
pub mod service;
pub mod shard;
pub mod trace;

use std::collections::BTreeMap;
use std::sync::Arc;

use broker_adapter::ids::{Incarnation, Replica, ShardId};
use broker_adapter::shell::Shell;
use broker_adapter::stores::OpenError;
use broker_adapter::{Broker, BrokerOptions, ConnectError};
use prometheus::Registry;
use tokio::sync::{mpsc, watch};

pub use config::{Config, ServiceConfig};

use admin::Admin;
use command::NodeLoad;
use config::path::Hidden;
use ingress::reads::Reads;
use ingress::session;
use metrics::Metrics;
use node::{NodeAgent, ShardParts};
use runner::{AttachRunner, DataParent, ProcessRunner, Runner};
use shard::{Context, INBOX_INPUTS, Replies, TailView, Views};

/// Why a sidecar ended or did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The broker.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The checkpoint store.
    #[error(transparent)]
    Checkpoints(#[from] OpenError),
    /// A port is taken.
    #[error("cannot listen on {address} ({what}): {reason}")]
    Listen {
        /// `HOST:PORT`.
        address: String,
        /// Which setting.
        what: String,
        /// What the operating system says.
        reason: String,
    },
    /// It must not go on.
    #[error("the sidecar stopped: {0}")]
    Stopped(String),
}

/// A running sidecar.
pub struct Sidecar {
    /// This run of this node.
    pub me: Replica,
    /// What the admin port shows.
    pub admin: Admin,
    /// The reason that ends it; nothing else does.
    pub fatal: mpsc::Receiver<String>,
    /// How busy the machine is, if somebody looks.
    pub load: watch::Sender<Option<NodeLoad>>,
}

/// A sidecar process: connects, serves, and returns only with the reason why it must not go on.
///
/// # Errors
/// [`RunError`] says what to do.
pub async fn run(config: Config, shell: Shell) -> Result<(), RunError> {
    let (segue, nats, kafka) = (config.segue.clone(), config.nats.clone(), config.kafka.clone());
    let options = BrokerOptions { segue, nats, kafka };
    let broker = broker_adapter::connect_with(&config.broker, &options, &shell).await?;
    let broker = config.checkpoints.open(broker, &shell).await?;
    let runner = runners(&config, &shell);
    let admin_listener = listen(&shell, &config.admin, "admin").await?;
    let mut sidecar = Sidecar::start(config, broker, runner, &shell).await?;
    load::watch(sidecar.load.clone(), &shell);
    let router = sidecar.admin.clone().router();
    shell.spawn(admin::serve(router, admin_listener, shell.clone()));
    let reason = sidecar.fatal.recv().await.unwrap_or_else(|| "its tasks ended".to_owned());
    Err(RunError::Stopped(reason))
}

/// Who starts each service: this process, or somebody else.
fn runners(config: &Config, shell: &Shell) -> impl Fn(&ServiceConfig) -> Arc<dyn Runner> + use<> {
    let (launcher, shell, node) = (config.launcher.clone(), shell.clone(), config.node.clone());
    let folder = config.data.clone().unwrap_or_else(std::env::temp_dir);
    move |service| match &service.attach {
        Some(attach) => Arc::new(AttachRunner::new(launcher.clone(), attach.address())),
        None => {
            let data = DataParent { folder: folder.clone(), prefix: format!("segue-{node}-{}", service.name) };
            Arc::new(ProcessRunner::new(launcher.clone(), service.run.clone(), data, shell.clone()))
        }
    }
}

async fn listen(
    shell: &Shell,
    address: &str,
    what: &str,
) -> Result<Box<dyn broker_adapter::shell::Listener>, RunError> {
    shell.listen(address).await.map_err(|error| RunError::Listen {
        address: address.to_owned(),
        what: what.to_owned(),
        reason: error.to_string(),
    })
}

impl Sidecar {
    /// Starts every shard's ingress and replica, and the node agent.
    ///
    /// # Errors
    /// A log cannot be opened, or a port is taken.
    pub async fn start(
        config: Config,
        broker: Arc<dyn Broker>,
        runner: impl Fn(&ServiceConfig) -> Arc<dyn Runner>,
        shell: &Shell,
    ) -> Result<Sidecar, RunError> {
        let me = Replica { node: config.node.clone(), incarnation: Incarnation(shell.random()) };
        let registry = Registry::new();
        let (fatal, ended) = mpsc::channel(1);
        let (rules, traceparent) = (config.rules, config.traceparent);
        let (mut shards, mut rooms) = (BTreeMap::new(), BTreeMap::new());
        for service in &config.services {
            let shard = ShardId::whole(service.name.clone());
            let copies = config.data.clone().unwrap_or_default();
            let metrics = Metrics::new(&registry, &shard.to_string());
            let config = Arc::new(ServiceConfig { copies, ..service.clone() });
            let log = broker.log(&shard.log_name()).await?;
            let context = Context {
                room: room::watch(log.clone(), config.clone(), metrics.clone(), shell),
                me: me.clone(),
                hidden: Hidden::of(&config),
                config,
                shell: shell.clone(),
                log,
                store: broker.store(),
                mailbox: broker.mailbox(),
                runner: runner(service),
                metrics,
                fatal: fatal.clone(),
                rules,
                traceparent,
                shard: shard.clone(),
            };
            let parts = start_shard(&context, broker.as_ref()).await?;
            rooms.insert(shard.clone(), context.room.clone());
            shards.insert(shard, parts);
        }
        let views = shards.iter().map(|(shard, parts): (&ShardId, &ShardParts)| (shard.clone(), parts.views.clone()));
        let admin = Admin { me: me.clone(), shards: views.collect(), registry, broker: broker.url(), rooms };
        let (load, busy) = watch::channel(None);
        let agent = NodeAgent {
            me: me.clone(),
            class: config.class.clone(),
            admin: config.admin.clone(),
            started_ms: shell.wall_ms(),
            shards,
            load: busy,
            mailbox: broker.mailbox(),
            shell: shell.clone(),
        };
        agent.start();
        Ok(Sidecar { me, admin, fatal: ended, load })
    }
}

async fn start_shard(context: &Context, broker: &dyn Broker) -> Result<ShardParts, RunError> {
    let listener = listen(&context.shell, &context.config.listen, "listen of the service").await?;
    let address = listener.address();
    let (tail_sender, tail) = watch::channel(TailView::default());
    let (reply_sender, reply_inbox) = mpsc::channel(INBOX_INPUTS);
    let replies = Replies { me: context.me.clone(), local: reply_sender.clone(), mailbox: context.mailbox.clone() };
    let (replica, replica_view) = replica::start(context, tail.clone(), replies);
    let views = Views { tail, replica: replica_view };
    let reads_context = Context { log: broker.log(&context.shard.log_name()).await?, ..context.clone() };
    let reads = Reads::start(&reads_context, views.clone());
    let (submission_sender, submissions) = mpsc::channel(context.config.parking_limit_requests.max(1));
    let (question_sender, questions) = mpsc::channel(ingress::fetch::QUESTIONS_MAX);
    let channels =
        session::Channels { submissions, replies: reply_inbox, questions, replica: replica.clone(), tail: tail_sender };
    let ingress_context = Context { log: broker.log(&context.shard.log_name()).await?, ..context.clone() };
    context.shell.spawn(session::run(ingress_context.clone(), channels));
    let server = ingress::http::Parts {
        context: ingress_context,
        submissions: submission_sender,
        reads: reads.clone(),
        questions: question_sender,
        views: views.clone(),
    };
    context.shell.spawn(ingress::http::serve(server, listener));
    tracing::info!(shard = %context.shard, node = %context.me, listen = %address, "sidecar");
    let runs_replica = context.config.runs_replica();
    let proof = context.config.proof;
    let metrics = context.metrics.clone();
    Ok(ShardParts { replica, replies: reply_sender, reads, views, listen: address, runs_replica, proof, metrics })
}
