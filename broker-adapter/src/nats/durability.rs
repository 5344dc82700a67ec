//! What an acknowledgement means on this server: demanded by the operator, verified as far as the servers tell.
//!
//! Replicas are read from the stream. Whether a server syncs before it acknowledges (`sync_interval: always`) only its monitoring port
//! tells (`/jsz`, `config.sync_always`); without that, fsync is as the operator declares it, and the sentence says so. What was
//! demanded and is known not to hold is refused: Jepsen found acknowledged records lost on clusters that synced lazily.

use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::broker::ConnectError;
use crate::shell::Shell;

use super::link::Link;
use super::options::Durability;

/// Fewer replicas have no quorum that survives the loss of one.
const QUORUM_REPLICAS: u64 = 3;
/// One monitoring port's answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
const ANSWER_LIMIT_BYTES: u64 = 1 << 20;

/// What the servers say of fsync.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fsync {
    /// So many servers were asked, and all of them sync before they acknowledge.
    Always(u64),
    /// This one does not.
    Lazy(String),
    /// Nobody was asked, or not everybody.
    Declared,
}

/// What an acknowledgement means, in one sentence, if that is as much as is demanded.
pub async fn verify(link: &Link, stream: &str, replicas: u64) -> Result<String, ConnectError> {
    let demanded = link.options().durability;
    let fsync =
        fsync(&link.options().monitoring_url, replicas, link.shell()).await.map_err(|reason| link.refused(reason))?;
    judge(demanded, replicas, &fsync)
        .map_err(|problems| ConnectError::Settings { what: format!("the stream {stream}"), problems })
}

fn judge(demanded: Durability, replicas: u64, fsync: &Fsync) -> Result<String, String> {
    let asked = format!("durability = {:?} is demanded", demanded.name());
    if demanded == Durability::QuorumFsync && replicas < QUORUM_REPLICAS {
        return Err(format!(
            "{asked}, but the stream has {replicas} replica(s) and needs {QUORUM_REPLICAS}: nats stream edit --replicas={QUORUM_REPLICAS}"
        ));
    }
    if let (Durability::Fsync | Durability::QuorumFsync, Fsync::Lazy(server)) = (demanded, fsync) {
        return Err(format!(
            "{asked}, but {server} acknowledges before it syncs: set jetstream {{ sync_interval: always }} there and restart it"
        ));
    }
    let place = match replicas {
        0 | 1 => "on one NATS server".to_owned(),
        replicas => format!("on a quorum of {replicas} NATS servers"),
    };
    Ok(match (fsync, demanded) {
        (Fsync::Always(servers), _) => {
            format!("{place}, fsynced before the acknowledgement (verified with {servers} server(s))")
        }
        (Fsync::Lazy(_), _) => format!(
            "{place}, written but not fsynced (its sync_interval is not always): survives the end of the server, not its power cut"
        ),
        (Fsync::Declared, Durability::Node) => {
            format!("{place}, written; fsynced only if its sync_interval is always (set monitoring_url to verify)")
        }
        (Fsync::Declared, _) => {
            format!(
                "{place}, fsynced before the acknowledgement as declared (set monitoring_url of every server to verify)"
            )
        }
    })
}

/// Asks the monitoring ports.
async fn fsync(urls: &[String], replicas: u64, shell: &Shell) -> Result<Fsync, String> {
    let mut servers = std::collections::BTreeSet::new();
    for url in urls {
        let answer = shell.within(ANSWER_LIMIT, jsz(url, shell)).await;
        let told = answer
            .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| format!("monitoring_url {url} does not answer /jsz: {error}"))?;
        if told["config"]["sync_always"].as_bool() != Some(true) {
            return Ok(Fsync::Lazy(url.clone()));
        }
        servers.insert(told["server_id"].as_str().unwrap_or_default().to_owned());
    }
    let asked = servers.len() as u64;
    Ok(if asked > 0 && asked >= replicas { Fsync::Always(asked) } else { Fsync::Declared })
}

/// One GET by hand: HTTP/1.0, so that the answer ends with the connection.
async fn jsz(url: &str, shell: &Shell) -> io::Result<Value> {
    let address = url.strip_prefix("http://").unwrap_or(url);
    let mut stream = shell.connect(address).await?;
    stream.write_all(format!("GET /jsz?config=true HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_LIMIT_BYTES).read_to_end(&mut answer).await?;
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n").map(|at| &answer[at + 4..]);
    serde_json::from_slice(body.unwrap_or_default()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_demanded_and_known_not_to_hold_is_refused() {
        let lazy = Fsync::Lazy("http://one:8222".to_owned());
        for (demanded, replicas, fsync, word) in [
            (Durability::QuorumFsync, 1, &Fsync::Always(1), "--replicas=3"),
            (Durability::QuorumFsync, 3, &lazy, "sync_interval"),
            (Durability::Fsync, 1, &lazy, "http://one:8222"),
        ] {
            let refused = judge(demanded, replicas, fsync).expect_err(word);
            assert!(refused.contains(word) && refused.contains(demanded.name()), "{refused}");
        }
    }

    #[test]
    fn the_sentence_says_what_was_verified_and_what_only_declared() {
        assert!(judge(Durability::Fsync, 1, &Fsync::Always(1)).unwrap().contains("verified"));
        assert!(judge(Durability::QuorumFsync, 3, &Fsync::Declared).unwrap().contains("as declared"));
        assert!(judge(Durability::Node, 1, &Fsync::Lazy("x".to_owned())).unwrap().contains("not fsynced"));
        assert!(judge(Durability::Node, 3, &Fsync::Declared).unwrap().contains("quorum of 3"));
    }
}
