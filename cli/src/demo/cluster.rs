//! Starts the demo's broker, migrator and sidecars in order, and waits until each can be used.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use broker_adapter::Broker;
use broker_adapter::shell::Shell;

use super::broker::{self, Server};
use super::layout::{Layout, NODE_A, NODE_B, Node, SERVICE};
use super::processes::{ProcessError, Processes};
use crate::rest::{Rest, RestError};

/// Until a process must be ready: generous, because machines are slow when they are new.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Until one answer must be there.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Why the demo could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A process could not be started, or ended.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A process is not ready.
    #[error("{what} is not ready after {READY_LIMIT:?} ({last}): read its log, {log}", log = log.display())]
    NotReady {
        /// What was waited for.
        what: String,
        /// The last answer.
        last: String,
        /// Where to read on.
        log: PathBuf,
    },
    /// An address of ours is wrong.
    #[error(transparent)]
    Rest(#[from] RestError),
}

/// Starts everything; `processes` has what was started even if this fails.
///
/// # Errors
/// Which process is not there, and which log to read.
pub async fn start(
    layout: &Layout,
    server: &Server,
    processes: &mut Processes,
    shell: &Shell,
) -> Result<(Arc<dyn Broker>, Rest), StartError> {
    match server {
        Server::Embedded => processes.start("broker", "broker", layout)?,
        Server::Running => {}
        Server::Kafka { libs } => {
            let command = broker::kafka(libs, layout.folder(), &layout.broker, &layout.controller);
            processes.start_other("broker", command, layout)?;
        }
        Server::Nats { program } => {
            let command = broker::nats(program, layout.folder(), &layout.broker, &layout.controller);
            processes.start_other("broker", command, layout)?;
        }
    }
    let url = layout.broker_url();
    let mut broker = None;
    let look = async || match broker_adapter::connect(&url, shell).await {
        Ok(connected) => {
            broker = Some(connected);
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    };
    wait_until("the broker", layout.log("broker"), processes, shell, look).await?;
    processes.start("migrator", "migrator", layout)?;
    let migrator = Rest::new(&format!("http://{}", layout.migrator), shell.clone(), ANSWER_LIMIT)?;
    for node in &layout.nodes {
        processes.start(node.name, "sidecar", layout)?;
        wait_until_ready(node, layout, processes, shell).await?;
    }
    let look = async || knows_both(&migrator).await;
    wait_until("the migrator with both nodes", layout.log("migrator"), processes, shell, look).await?;
    let broker = broker.ok_or_else(|| StartError::NotReady {
        what: "the broker".to_owned(),
        last: "no connection".to_owned(),
        log: layout.log("broker"),
    })?;
    Ok((broker, migrator))
}

async fn wait_until_ready(
    node: &Node,
    layout: &Layout,
    processes: &mut Processes,
    shell: &Shell,
) -> Result<(), StartError> {
    let rest = Rest::new(&format!("http://{}", node.admin), shell.clone(), ANSWER_LIMIT)?;
    let look = async || {
        let answer = rest.get("/readyz?verbose").await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(String::from_utf8_lossy(&answer.body).into_owned()) }
    };
    wait_until(&format!("the sidecar {}", node.name), layout.log(node.name), processes, shell, look).await
}

/// Both nodes announced themselves, and the service with them.
async fn knows_both(migrator: &Rest) -> Result<(), String> {
    let answer = migrator.get("/v1/services").await.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&answer.body);
    match [SERVICE, NODE_A, NODE_B].iter().find(|name| !text.contains(&format!("\"{name}\""))) {
        Some(missing) => Err(format!("{missing} is missing in /v1/services: {text}")),
        None => Ok(()),
    }
}

async fn wait_until(
    what: &str,
    log: PathBuf,
    processes: &mut Processes,
    shell: &Shell,
    mut look: impl AsyncFnMut() -> Result<(), String>,
) -> Result<(), StartError> {
    let limit = shell.now() + READY_LIMIT;
    loop {
        let last = match look().await {
            Ok(()) => return Ok(()),
            Err(reason) => reason,
        };
        processes.check()?;
        if shell.now() > limit {
            return Err(StartError::NotReady { what: what.to_owned(), last, log });
        }
        shell.sleep(LOOK_EVERY).await;
    }
}
