//! The migrator: a pure machine of phases, a journal, a driver, a directory of nodes, REST.
//!
//! It orders and never decides: who owns a shard is read from that shard's log. It can be killed anywhere; the next one
//! replays the journal, looks at the logs for the truth, and goes on.

#[cfg(test)]
mod bench;
pub mod book;
pub mod browse;
pub mod config;
pub mod directory;
pub mod driver;
pub mod events;
mod folds;
pub mod handle;
pub mod hold;
pub mod journal;
pub mod machine;
pub mod plan;
mod rates;
pub mod recording;
mod refused;
pub mod rest;
mod run;
pub mod series;
mod trace;
pub mod view;

pub use config::Config;
pub use driver::{Migrator, StartError};
pub use handle::{CancelError, CreateError, DivergenceError, MigratorHandle, NewMigration, Stopped};
pub use run::{RunError, run};
pub use view::MigrationView;
