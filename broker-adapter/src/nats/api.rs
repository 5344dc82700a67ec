//! Questions to JetStream as its JSON form has them: one request, one answer, a typed refusal.
//!
//! Our own small part of the interface, so that what a server says is read as it says it: every setting of a stream is seen, known
//! to a client library or not. All of these may be asked twice.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};

use crate::shell::Shell;

use super::link::Line;

/// How long a question waits for a connection.
const CONNECTION_WAIT: Duration = Duration::from_secs(1);
/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// While a cluster elects a leader, whoever was asked may stay silent: what may be asked beside itself is, this often.
const BESIDE_AFTER: Duration = Duration::from_millis(300);
/// How long a question is asked again: the election of a leader takes 4 to 9 s in a cluster.
const QUESTION_LIMIT: Duration = Duration::from_secs(10);
const RETRY_WAIT: Duration = Duration::from_millis(50);

/// Error codes of JetStream, `err_code` in its answers.
pub const STREAM_NOT_FOUND: u64 = 10059;
pub const STREAM_NAME_IN_USE: u64 = 10058;
pub const NO_MESSAGE_FOUND: u64 = 10037;
const JETSTREAM_OFF: u64 = 10076;
const JETSTREAM_OFF_FOR_ACCOUNT: u64 = 10039;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// Nobody answered.
    Unreachable(String),
    /// JetStream says no.
    Refused { code: u64, description: String },
}

impl ApiError {
    /// In words.
    pub fn reason(&self) -> String {
        match self {
            ApiError::Unreachable(reason) => reason.clone(),
            ApiError::Refused { code: JETSTREAM_OFF | JETSTREAM_OFF_FOR_ACCOUNT, description } => {
                format!("{description}: JetStream is not enabled for this server or account")
            }
            ApiError::Refused { code, description } => format!("{description} (JetStream error {code})"),
        }
    }

    pub fn is(&self, wanted: u64) -> bool {
        matches!(self, ApiError::Refused { code, .. } if *code == wanted)
    }

    /// Whether the same question may find an answer later: temporary ones of a cluster are refusals of codes 503 and 408.
    fn passes(&self) -> bool {
        matches!(self, ApiError::Unreachable(_))
    }
}

/// What a stream's leader says of it.
#[derive(Clone, Debug)]
pub struct StreamInfo {
    pub first: u64,
    pub last: u64,
    pub bytes: u64,
    pub replicas: u64,
    /// Names this stream among all that had its name.
    pub created: String,
    pub config: Value,
}

/// Asks once.
pub async fn ask(line: &Line, shell: &Shell, call: &str, body: &Value) -> Result<Value, ApiError> {
    ask_beside(line, shell, (call, ANSWER_LIMIT), body).await
}

/// What a stream is like: a leader that was elected meanwhile is heard at once, not when the limit of a question to the last one ends.
pub async fn ask_info(line: &Line, shell: &Shell, stream: &str) -> Result<Value, ApiError> {
    ask_beside(line, shell, (&format!("STREAM.INFO.{stream}"), BESIDE_AFTER), &Value::Null).await
}

/// Asks, and again each time nobody answered for so long; the first answer counts.
async fn ask_beside(
    line: &Line,
    shell: &Shell,
    (call, again_after): (&str, Duration),
    body: &Value,
) -> Result<Value, ApiError> {
    line.connected(shell, CONNECTION_WAIT).await.map_err(ApiError::Unreachable)?;
    let payload = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let mut changes = line.changes();
    let breaks = changes.borrow().breaks;
    let asked = async {
        let mut questions = FuturesUnordered::new();
        loop {
            questions.push(line.client.request(format!("$JS.API.{call}"), payload.clone()));
            if let Some(Some(answer)) = shell.within(again_after, questions.next()).await {
                return answer;
            }
        }
    };
    let answer = tokio::select! {
        biased;
        answer = shell.within(ANSWER_LIMIT, asked) => answer,
        _ = changes.wait_for(|health| health.breaks != breaks) => {
            return Err(ApiError::Unreachable("the connection broke".to_owned()));
        }
    };
    let silent = || ApiError::Unreachable(format!("JetStream did not answer within {ANSWER_LIMIT:?}"));
    let message = answer.ok_or_else(silent)?.map_err(|error| ApiError::Unreachable(error.to_string()))?;
    let value: Value = serde_json::from_slice(&message.payload)
        .map_err(|error| ApiError::Unreachable(format!("JetStream's answer cannot be read: {error}")))?;
    let Some(error) = value.get("error") else { return Ok(value) };
    let description = error["description"].as_str().unwrap_or("no reason given").to_owned();
    // Until a cluster has its leaders, it answers 503.
    if error["code"].as_u64() == Some(503) && error["err_code"].as_u64() != Some(JETSTREAM_OFF) {
        return Err(ApiError::Unreachable(description));
    }
    Err(ApiError::Refused { code: error["err_code"].as_u64().unwrap_or_default(), description })
}

/// Asks until there is an answer, for a while.
pub async fn ask_patiently(line: &Line, shell: &Shell, call: &str, body: &Value) -> Result<Value, ApiError> {
    patiently(shell, || ask(line, shell, call, body)).await
}

async fn patiently<F: Future<Output = Result<Value, ApiError>>>(
    shell: &Shell,
    ask: impl Fn() -> F,
) -> Result<Value, ApiError> {
    let until = shell.now() + QUESTION_LIMIT;
    loop {
        match ask().await {
            Err(error) if error.passes() && shell.now() + RETRY_WAIT < until => shell.sleep(RETRY_WAIT).await,
            result => return result,
        }
    }
}

/// A stream, as its leader knows it.
pub async fn stream_info(line: &Line, shell: &Shell, stream: &str) -> Result<StreamInfo, ApiError> {
    read_info(&patiently(shell, || ask_info(line, shell, stream)).await?)
}

/// Makes a stream; the one that is there if it is the same.
pub async fn create_stream(line: &Line, shell: &Shell, config: &Value) -> Result<StreamInfo, ApiError> {
    let stream = config["name"].as_str().unwrap_or_default();
    read_info(&ask_patiently(line, shell, &format!("STREAM.CREATE.{stream}"), config).await?)
}

/// Forgets what stands before a sequence number.
pub async fn purge_before(line: &Line, shell: &Shell, stream: &str, before: u64) -> Result<(), ApiError> {
    ask_patiently(line, shell, &format!("STREAM.PURGE.{stream}"), &json!({ "seq": before })).await.map(drop)
}

/// Forgets what stands under a subject.
pub async fn purge_subject(line: &Line, shell: &Shell, stream: &str, subject: &str) -> Result<(), ApiError> {
    ask_patiently(line, shell, &format!("STREAM.PURGE.{stream}"), &json!({ "filter": subject })).await.map(drop)
}

pub fn read_info(answer: &Value) -> Result<StreamInfo, ApiError> {
    let state = &answer["state"];
    let number = |value: &Value, what: &str| {
        value.as_u64().ok_or_else(|| ApiError::Unreachable(format!("JetStream's answer has no {what}")))
    };
    let last = number(&state["last_seq"], "last_seq")?;
    let first = number(&state["first_seq"], "first_seq")?;
    Ok(StreamInfo {
        // A stream that never held anything begins at 0 here.
        first: if state["messages"].as_u64() == Some(0) { last + 1 } else { first },
        last,
        bytes: number(&state["bytes"], "bytes")?,
        replicas: number(&answer["config"]["num_replicas"], "num_replicas")?,
        created: answer["created"].as_str().unwrap_or_default().to_owned(),
        config: answer["config"].clone(),
    })
}
