//! A migration as one file, to be looked at anywhere and later: what REST tells of it, once.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::events::EventView;
use crate::plan::Plan;
use crate::series::SeriesView;
use crate::view::{Hashes, MigrationView};

/// The form of the file.
pub const FORMAT: &str = "segue-recording/1";

/// One migration, whole.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Recording {
    /// `segue-recording/1`.
    pub format: &'static str,
    /// Of the program.
    pub version: &'static str,
    /// Wall milliseconds.
    pub exported_ms: u64,
    /// As REST shows it.
    pub migration: MigrationView,
    /// What was expected.
    pub plan: Option<Plan>,
    /// The limits that held for it.
    #[schema(value_type = Object)]
    pub config: Value,
    /// What happened to it.
    pub events: Vec<EventView>,
    /// How lag and rates ran.
    pub series: SeriesView,
    /// What was compared.
    pub hashes: Option<Hashes>,
    /// Each attempt's end by the log: which fence, where, and who owns since.
    #[schema(value_type = Vec<Object>)]
    pub decisions: Vec<Value>,
}
