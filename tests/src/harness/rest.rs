//! The migrator's REST API as the tests use it.

use std::time::Duration;

use broker_adapter::shell::Shell;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, HANG_LIMIT, call, wait_for};

/// A client of one migrator.
#[derive(Clone)]
pub struct Rest {
    shell: Shell,
    address: String,
}

/// A migration as `GET /v1/migrations/{id}` shows it.
#[derive(Clone, Debug, Deserialize)]
pub struct Migration {
    /// Its name.
    pub id: String,
    /// What moves.
    pub service: String,
    /// Which part of it.
    pub shard: String,
    /// `live`.
    pub strategy: String,
    /// The source.
    pub from: String,
    /// The target.
    pub to: String,
    /// The present or last phase.
    pub phase: String,
    /// When it was accepted, in wall milliseconds.
    pub accepted_ms: u64,
    /// How it ended; `None` while it runs.
    pub outcome: Option<String>,
    /// `state`, `replies only` or `unproven`, once verified.
    pub proof: Option<String>,
    /// Where source and target differ.
    #[serde(default)]
    pub divergence: Option<Value>,
    /// From acceptance to end.
    pub total_ms: Option<f64>,
    /// How long each phase took.
    pub phases: Vec<PhaseTime>,
    /// What went wrong, for people.
    pub error: Option<Value>,
}

/// One phase of a migration.
#[derive(Clone, Debug, Deserialize)]
pub struct PhaseTime {
    /// The phase.
    pub name: String,
    /// How long it took, if it has ended.
    pub ms: Option<u64>,
}

impl Rest {
    pub(super) fn new(shell: Shell, address: String) -> Rest {
        Rest { shell, address }
    }

    /// Where the API is, as `HOST:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// One call.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn call(&self, method: &str, path: &str, body: String) -> Answer {
        let answer = call(&self.shell, &self.address, (method, path), body, HANG_LIMIT).await;
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Asks for a migration, whatever the answer.
    pub async fn ask_migration(&self, service: &str, to: &str) -> Answer {
        self.call("POST", "/v1/migrations", json!({ "service": service, "to": to }).to_string()).await
    }

    /// Starts a migration; its id.
    ///
    /// # Panics
    /// If it is not accepted.
    pub async fn migrate(&self, service: &str, to: &str) -> String {
        self.order(&json!({ "service": service, "to": to })).await
    }

    /// Starts a migration with more than service and target; its id.
    ///
    /// # Panics
    /// If it is not accepted.
    pub async fn order(&self, order: &Value) -> String {
        let answer = self.call("POST", "/v1/migrations", order.to_string()).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        let location = answer.header("location").to_owned();
        let id = location.strip_prefix("/v1/migrations/");
        id.unwrap_or_else(|| panic!("the Location {location:?} is not a migration's")).to_owned()
    }

    /// How a migration stands.
    ///
    /// # Panics
    /// If it is not known, or its JSON has another form.
    pub async fn migration(&self, id: &str) -> Migration {
        let answer = self.call("GET", &format!("/v1/migrations/{id}"), String::new()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
    }

    /// The same; nothing if there is no answer within `limit`, as when the migrator is dead or stopped.
    pub async fn told(&self, id: &str, limit: Duration) -> Option<Migration> {
        let path = format!("/v1/migrations/{id}");
        let answer = call(&self.shell, &self.address, ("GET", &path), "", limit).await.ok()?;
        serde_json::from_slice(&answer.body).ok()
    }

    /// Asks for the end of a migration.
    pub async fn cancel(&self, id: &str) -> Answer {
        self.call("POST", &format!("/v1/migrations/{id}/cancel"), String::new()).await
    }

    /// Waits for a migration's end.
    pub async fn ended(&self, id: &str) -> Migration {
        let what = format!("the end of migration {id}");
        wait_for(&self.shell, &what, || async {
            let migration = self.told(id, HANG_LIMIT).await?;
            migration.outcome.is_some().then_some(migration)
        })
        .await
    }
}
