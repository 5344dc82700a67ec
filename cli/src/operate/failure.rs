//! Why an operator's command did not succeed: words for people, one exit code per cause for programs.

use serde_json::Value;

use crate::config::ConfigError;
use crate::rest::{Answer, RestError};

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// The migrator does not answer.
    #[error("{0}\n  is the migrator running there? --migrator URL names another one; `segue doctor` looks further")]
    Rest(#[from] RestError),
    /// It said no.
    #[error("{}", refusal(.0))]
    Refused(Box<Problem>),
    /// It said something else.
    #[error("the migrator's answer is not understood ({0}): are both of the same version?")]
    Strange(String),
    /// The migration ended otherwise.
    #[error("migration {id} ended as {outcome}: {reason}")]
    Ended {
        /// Which one.
        id: String,
        /// How.
        outcome: String,
        /// Why.
        reason: String,
    },
    /// Somebody does not want to look on.
    #[error(
        "stopped watching; migration {id} goes on: `segue migration watch {id}` looks again, `segue migration cancel {id}` ends it"
    )]
    StoppedWatching {
        /// Which one.
        id: String,
    },
    /// Reading ended as asked.
    #[error("stopped by Ctrl-C")]
    Interrupted,
    /// A check found something.
    #[error("{0}")]
    Unsound(String),
    /// The broker cannot be used.
    #[error("{0}")]
    Broker(String),
    /// There is no such thing.
    #[error("{0}")]
    Missing(String),
    /// A file cannot be read or written.
    #[error("{what} {path}: {reason}")]
    File {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: String,
        /// Why not.
        reason: std::io::Error,
    },
    /// The configuration that names the broker is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A token that cannot be sent.
    #[error("the token in {0} is not one line of visible characters")]
    BadToken(String),
}

/// An answer that is an error: RFC 9457.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// Its members.
    pub members: Value,
}

impl OperateError {
    /// The answer as what it says is wrong.
    #[must_use]
    pub fn of_answer(answer: &Answer) -> OperateError {
        OperateError::Refused(Box::new(Problem { status: answer.status, members: answer.json() }))
    }

    /// See [`super::args::EXIT_CODES`].
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            OperateError::Rest(RestError::BadUrl(_) | RestError::Tls(_))
            | OperateError::BadToken(_)
            | OperateError::Config(_) => 2,
            OperateError::Rest(_) | OperateError::Broker(_) => 4,
            OperateError::Refused(problem) => match problem.status {
                400 | 415 => 2,
                401 | 403 => 5,
                404 if problem.members["code"].as_str().is_some_and(|code| code.starts_with("unknown-")) => 6,
                409 | 413 | 422 | 429 | 503 => 3,
                _ => 1,
            },
            OperateError::Missing(_) => 6,
            OperateError::Ended { outcome, .. } if outcome == "diverged" => 8,
            OperateError::Ended { .. } => 7,
            OperateError::Unsound(_) => 9,
            OperateError::StoppedWatching { .. } | OperateError::Interrupted => 130,
            OperateError::Strange(_) | OperateError::File { .. } => 1,
        }
    }
}

fn refusal(problem: &Problem) -> String {
    let word = |key: &str| problem.members[key].as_str().unwrap_or_default();
    let (title, detail, hint) = (word("title"), word("detail"), word("hint"));
    let mut text = format!("refused ({}", problem.status);
    if !word("code").is_empty() {
        text += &format!(", {}", word("code"));
    }
    text += &format!("): {}", if detail.is_empty() { title } else { detail });
    let checks = problem.members["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
    for check in checks.iter().filter(|check| check["ok"] == false) {
        text += &format!("\n  ✗ {}", check["detail"].as_str().or(check["title"].as_str()).unwrap_or_default());
        // The answer's own hint may be the check's.
        if let Some(more) = check["hint"].as_str().filter(|more| *more != hint) {
            text += &format!("\n    → {more}");
        }
    }
    if !hint.is_empty() {
        text += &format!("\n  → {hint}");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(status: u16, members: Value) -> OperateError {
        OperateError::Refused(Box::new(Problem { status, members }))
    }

    #[test]
    fn a_refusal_tells_what_was_wrong_and_what_to_do() {
        let error = refused(
            409,
            json!({"code": "node-silent", "title": "Node silent", "detail": "the node edge-b has not been heard for 5 s",
                   "hint": "look at its sidecar", "checks": [
                       {"code": "node-alive", "ok": false, "detail": "edge-b is silent", "hint": "start it"},
                       {"code": "node-known", "ok": true, "detail": "edge-b is known"}]}),
        );
        let told = error.to_string();
        assert_eq!(
            told,
            "refused (409, node-silent): the node edge-b has not been heard for 5 s\n  ✗ edge-b is silent\n    → start it\n  \
             → look at its sidecar"
        );
        assert_eq!(error.exit_code(), 3);
    }

    #[test]
    fn each_cause_has_its_exit_code() {
        let code = |status, code: &str| refused(status, json!({"code": code})).exit_code();
        assert_eq!(code(404, "unknown-node"), 6);
        assert_eq!(code(404, "no-such-path"), 1, "that is an older migrator, not a missing node");
        assert_eq!((code(401, "no-token"), code(403, "viewer"), code(400, "bad-json")), (5, 5, 2));
        let ended = |outcome: &str| OperateError::Ended {
            id: String::new(),
            outcome: outcome.to_owned(),
            reason: String::new(),
        };
        assert_eq!((ended("rolled-back").exit_code(), ended("diverged").exit_code()), (7, 8));
    }
}
