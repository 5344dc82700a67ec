//! A service's own hash of its state, where its saves are not canonical: a page that answers it, or a program that prints it.
//!
//! Asked while nothing is delivered. What it says is text that is equal if and only if the states are; it is not interpreted.

use std::process::Stdio;
use std::time::Duration;

use broker_adapter::ids::Hash;
use broker_adapter::shell::Shell;
use tokio::io::AsyncReadExt;

use super::{Limits, Reader, ServiceError, broken, plain_get, refused, timed_out};
use crate::config::StateHashConfig;
use crate::runner::Place;

/// The longest hash: more is not what was meant.
const HASH_TEXT_MAX_BYTES: usize = 4_096;

/// Asks the instance at this place for it.
///
/// # Errors
/// What was tried, and what came instead.
pub async fn state_hash(
    config: &StateHashConfig,
    (place, reader): (&Place, &Reader),
    limit: Duration,
    shell: &Shell,
) -> Result<Hash, ServiceError> {
    let (asked, text) = match config {
        StateHashConfig::Http(path) => {
            let asked = format!("GET {path}");
            let limits = Limits { time: limit, reply_bytes: HASH_TEXT_MAX_BYTES as u64 };
            let question = plain_get(path);
            // It may stand behind the reads of clients.
            let answer = shell.within(limit, reader.ask(&question, &[], limits)).await;
            let reply = answer.unwrap_or_else(|| Err(timed_out(&asked, limit)))?;
            if !(200..300).contains(&reply.status) {
                return Err(refused(&asked, &reply));
            }
            (asked, reply.body.to_vec())
        }
        StateHashConfig::Command(words) => {
            let asked = words.iter().map(|word| place.fill(word)).collect::<Vec<_>>().join(" ");
            let ran = shell.within(limit, print(place, words)).await.ok_or_else(|| timed_out(&asked, limit))?;
            let text = ran.map_err(|reason| broken(&asked, &reason))?;
            (asked, text)
        }
    };
    match text.trim_ascii() {
        [] => Err(broken(&asked, "an empty text is no hash of a state")),
        hash => Ok(Hash::of(hash)),
    }
}

async fn print(place: &Place, words: &[String]) -> Result<Vec<u8>, String> {
    let mut command = place.command(words).ok_or("the command is empty")?;
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
    let printed = child.stdout.take().ok_or("its output cannot be read")?;
    let mut text = Vec::new();
    let most = HASH_TEXT_MAX_BYTES as u64 + 1;
    printed.take(most).read_to_end(&mut text).await.map_err(|error| error.to_string())?;
    if text.len() > HASH_TEXT_MAX_BYTES {
        return Err(format!("it prints more than {HASH_TEXT_MAX_BYTES} bytes"));
    }
    let status = child.wait().await.map_err(|error| error.to_string())?;
    if status.success() { Ok(text) } else { Err(format!("it ended with {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Reading;

    async fn run(words: &[&str]) -> Result<Hash, ServiceError> {
        let (shell, _tasks) = broker_adapter::shell::real::process();
        let config = StateHashConfig::Command(words.iter().map(|word| (*word).to_owned()).collect());
        let reading = Reading::open("127.0.0.1:9", None, &shell);
        let asked = (&Place::at("127.0.0.1:9"), reading.reader());
        state_hash(&config, asked, Duration::from_secs(5), &shell).await
    }

    #[tokio::test]
    async fn a_command_prints_the_hash_and_knows_the_address() {
        assert_eq!(run(&["echo", " {address} "]).await, Ok(Hash::of(b"127.0.0.1:9")));
    }

    #[tokio::test]
    async fn a_command_that_fails_prints_nothing_or_too_much_is_named() {
        for words in [&["false"][..], &["true"], &["no-such-program-anywhere"], &["head", "-c", "5000", "/dev/zero"]] {
            let error = run(words).await.unwrap_err().to_string();
            assert!(error.contains(words[0]), "{error}");
        }
    }
}
