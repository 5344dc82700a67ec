//! Makes an instance that holds a state, and finds the ways to it by which it is known to be that one.
//!
//! Of an attached service a connection is opened before the load and asked after it: if it still answers, all in between was
//! one process. Only a service that echoes its token may close it.

use std::path::PathBuf;
use std::time::Duration;

use broker_adapter::shell::Shell;

use super::super::contract::{StateConfig, Then};
use super::super::{Connection, Reading, ServiceError, wait_ready};
use super::{LoadBody, SavedState, folder, http, kind, program, save};
use crate::config::ServiceConfig;
use crate::runner::{Instance, Place, Runner};

/// An instance whose state is known, and the ways to it.
pub struct Running {
    /// The instance.
    pub instance: Box<dyn Instance>,
    /// Over which requests are delivered.
    pub connection: Connection,
    /// Over which reads are asked.
    pub reading: Reading,
}

impl Running {
    /// Asks it for its state.
    ///
    /// # Errors
    /// As [`save`].
    pub async fn save(&mut self, config: &ServiceConfig, shell: &Shell) -> Result<SavedState, ServiceError> {
        save(config, &self.instance.place(), &mut self.connection, shell).await
    }
}

/// An instance with the state that it has by itself.
///
/// # Errors
/// It cannot be started or does not become ready.
pub async fn begin_empty(runner: &dyn Runner, config: &ServiceConfig, shell: &Shell) -> Result<Running, ServiceError> {
    let mut instance = started(runner.start().await)?;
    wait_ready(instance.as_mut(), &config.ready, config.start_timeout(), shell).await?;
    let known = known_connection(&instance.place(), config, shell).await?;
    connected(instance, None, known, config, shell).await
}

/// An instance with this state, ready; its connections belong to `lasting`, what is done until then to `shell`.
///
/// # Errors
/// It cannot be started, loaded, or kept apart from others.
pub async fn load(
    runner: &dyn Runner,
    config: &ServiceConfig,
    body: LoadBody,
    shell: &Shell,
    lasting: &Shell,
) -> Result<Running, ServiceError> {
    let kind = kind(config)?;
    let limit = config.start_timeout() + state_time(body.length);
    if kind.needs_restart() {
        let mut instance = started(runner.prepare().await)?;
        let place = instance.place();
        match kind {
            StateConfig::Directory { path, .. } => {
                folder::load(body, PathBuf::from(place.fill(path)), limit, shell).await?;
            }
            StateConfig::Command { load, .. } => program::load(body, &place, load, limit, shell).await?,
            StateConfig::Http { .. } => {}
        }
        instance.run().await.map_err(|error| no_instance(&error.to_string()))?;
        wait_ready(instance.as_mut(), &config.ready, config.start_timeout(), shell).await?;
        return connected(instance, None, None, config, lasting).await;
    }
    let mut instance = started(runner.start().await)?;
    let place = instance.place();
    wait_ready(instance.as_mut(), &config.ready, config.start_timeout(), shell).await?;
    let known = known_connection(&place, config, lasting).await?;
    let token = match kind {
        StateConfig::Http { path } => {
            let token = shell.random().to_string();
            http::put(body, &place.address, path, &token, limit, shell).await?.then_some(token)
        }
        StateConfig::Command { load, then: Then::Nothing, .. } => {
            program::load(body, &place, load, limit, shell).await?;
            None
        }
        _ => None,
    };
    wait_ready(instance.as_mut(), &config.ready, config.start_timeout(), shell).await?;
    connected(instance, token, known, config, lasting).await
}

/// A large state may take a while even at 20 MB/s.
fn state_time(bytes: u64) -> Duration {
    Duration::from_millis(bytes / 20_000)
}

fn started<E: std::error::Error>(instance: Result<Box<dyn Instance>, E>) -> Result<Box<dyn Instance>, ServiceError> {
    instance.map_err(|error| no_instance(&error.to_string()))
}

fn no_instance(reason: &str) -> ServiceError {
    ServiceError::Connect { address: "a new instance".to_owned(), reason: reason.to_owned() }
}

/// A connection to an attached service that was accepted before now.
async fn known_connection(
    place: &Place,
    config: &ServiceConfig,
    shell: &Shell,
) -> Result<Option<Connection>, ServiceError> {
    if !place.attached {
        return Ok(None);
    }
    let mut known = Connection::open(&place.address, shell).await?;
    known.probe(&config.ready, config.start_timeout()).await?;
    Ok(Some(known))
}

/// Opens what is needed to an instance that was just loaded; `known` was open before.
async fn connected(
    instance: Box<dyn Instance>,
    token: Option<String>,
    known: Option<Connection>,
    config: &ServiceConfig,
    lasting: &Shell,
) -> Result<Running, ServiceError> {
    let (address, limit) = (instance.address().to_owned(), config.start_timeout());
    match known.filter(|_| token.is_none()) {
        None => {
            let mut connection = Connection::expecting(&address, token.clone(), lasting).await?;
            if token.is_some() {
                connection.probe(&config.ready, limit).await?;
            }
            let reading = Reading::open(&address, token, lasting);
            Ok(Running { instance, connection, reading })
        }
        Some(mut connection) => {
            let mut reads = Connection::open(&address, lasting).await?;
            reads.probe(&config.ready, limit).await?;
            connection.probe(&config.ready, limit).await?;
            let reading = Reading::held(&address, reads, lasting);
            Ok(Running { instance, connection, reading })
        }
    }
}
