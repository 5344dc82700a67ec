//! What a client of `segue://` and `segues://` may be told beside the URL: the table `[segue]` of a configuration.
//!
//! Secrets stand in files alone, so that a configuration can be shown.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The table `[segue]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SegueOptions {
    /// A file whose first line is the token that the broker wants.
    pub token_file: Option<PathBuf>,
    /// A PEM file of who may sign the certificate of a broker at `segues://`; those that the system trusts if not said.
    pub ca: Option<PathBuf>,
}
