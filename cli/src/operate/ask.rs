//! Asks the migrator: paths in, JSON out, refusals as errors; all pages of a list.

use std::time::Duration;

use broker_adapter::shell::Shell;
use serde_json::Value;

use super::args::AskArguments;
use super::failure::OperateError;
use crate::rest::{Answer, Rest};

/// How long the migrator may take for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Items of one page, as many as a migrator gives at most.
const PAGE_SIZE: usize = 200;
/// The longest token that is sent.
const TOKEN_MAX_BYTES: usize = 4_096;

/// Whom we ask.
pub struct Asker {
    /// The migrator.
    pub rest: Rest,
    /// Time.
    pub shell: Shell,
    /// The URL, for people.
    pub url: String,
}

impl Asker {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// A URL or token that cannot be used.
    pub fn new(arguments: &AskArguments, shell: &Shell) -> Result<Asker, OperateError> {
        let ca = arguments.ca.as_deref();
        let rest = Rest::believing(ca, &arguments.migrator, shell.clone(), ANSWER_LIMIT)?;
        let rest = rest.with_token(token(arguments)?);
        let url = arguments.migrator.trim_end_matches('/').to_owned();
        Ok(Asker { rest, shell: shell.clone(), url })
    }

    /// What is at a path.
    ///
    /// # Errors
    /// What the migrator answered, if not 200.
    pub async fn get(&self, path: &str) -> Result<Value, OperateError> {
        read(&self.rest.get(path).await?)
    }

    /// Asks for a change; any 2xx is one.
    ///
    /// # Errors
    /// What the migrator answered otherwise.
    pub async fn post(&self, path: &str, content: &Value) -> Result<Answer, OperateError> {
        let answer = self.rest.post(path, content).await?;
        if (200..300).contains(&answer.status) { Ok(answer) } else { Err(OperateError::of_answer(&answer)) }
    }

    /// The first items of a list, over its pages.
    ///
    /// # Errors
    /// What the migrator answered, if not 200.
    pub async fn list(&self, path: &str, query: &[(&str, String)], limit: usize) -> Result<Vec<Value>, OperateError> {
        let mut items = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let size = ("page_size", (limit - items.len()).min(PAGE_SIZE).to_string());
            let page = token.take().map(|token| ("page_token", token));
            let query: Vec<_> = query.iter().cloned().chain([size]).chain(page).collect();
            let mut answer = self.get(&with_query(path, &query)).await?;
            let Value::Array(new) = answer["items"].take() else {
                return Err(OperateError::Strange(format!("{path} has no items")));
            };
            items.extend(new);
            items.truncate(limit);
            token = answer["next_page_token"].as_str().map(str::to_owned);
            if token.is_none() || items.len() == limit {
                return Ok(items);
            }
        }
    }
}

/// The answer's JSON, if it is a good one.
fn read(answer: &Answer) -> Result<Value, OperateError> {
    if answer.status != 200 {
        return Err(OperateError::of_answer(answer));
    }
    serde_json::from_slice(&answer.body).map_err(|error| OperateError::Strange(error.to_string()))
}

/// `PATH?name=value&…`, percent-encoded.
#[must_use]
pub fn with_query(path: &str, query: &[(&str, String)]) -> String {
    let mut text = path.to_owned();
    for (place, (name, value)) in query.iter().enumerate() {
        text.push(if place == 0 { '?' } else { '&' });
        text += &format!("{name}={}", encode(value));
    }
    text
}

/// A part of a path or query (RFC 3986, section 2.3: what needs no encoding).
#[must_use]
pub fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}

fn token(arguments: &AskArguments) -> Result<Option<String>, OperateError> {
    let (token, from) = match &arguments.token_file {
        Some(file) => {
            let path = file.display().to_string();
            let text = std::fs::read_to_string(file).map_err(|reason| OperateError::File {
                what: "cannot read the token in",
                path: path.clone(),
                reason,
            })?;
            (text, path)
        }
        None => match std::env::var("SEGUE_TOKEN") {
            Ok(text) => (text, "SEGUE_TOKEN".to_owned()),
            Err(_) => return Ok(None),
        },
    };
    let token = token.trim();
    let fits = (1..=TOKEN_MAX_BYTES).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(Some(token.to_owned())) } else { Err(OperateError::BadToken(from)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plain_is_encoded() {
        let query = [("page_size", "5".to_owned()), ("service", "a b&c=ü".to_owned())];
        assert_eq!(with_query("/v1/migrations", &query), "/v1/migrations?page_size=5&service=a%20b%26c%3D%C3%BC");
    }
}
