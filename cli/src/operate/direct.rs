//! What is asked of the broker itself: whether a log and its checkpoints are sound, and what they hold. No migrator needs to
//! run. Nothing is written, but for an empty log where a broker makes one for a name that it does not know.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use broker_adapter::broker::{Broker, BrokerOptions};
use broker_adapter::fold::{Fold, KeptCheckpoint};
use broker_adapter::follow::Follower;
use broker_adapter::ids::{Position, ShardId};
use broker_adapter::record::{Body, Entry, Record};
use broker_adapter::shell::Shell;
use bytes::Bytes;
use migrator::config::HostConfig;
use serde_json::{Value, json};
use sidecar::catch_up::fold_at_tail;
use sidecar::checkpoint::archive::Export;
use sidecar::checkpoint::load::Reader;
use sidecar::checkpoint::pace::Pace;
use sidecar::checkpoint::{CheckpointError, Manifest};
use tokio::sync::mpsc;

use super::archives::{NewFile, told};
use super::args::{CheckpointCommand, DirectArguments, ExportArguments, LogCommand, ShardArguments};
use super::failure::OperateError;
use super::show::{Out, bytes, text};
use super::watch::nobody_reads;
use crate::serve::read;

/// How long one record, or the fold of a whole log, may take to come.
const READ_LIMIT: Duration = Duration::from_secs(30);
const FOLD_LIMIT: Duration = Duration::from_secs(600);
/// Pieces of a state on their way to the file.
const PIECES: usize = 16;

/// What is asked, and of whom.
struct Direct {
    broker: Arc<dyn Broker>,
    shard: ShardId,
    shell: Shell,
}

/// `segue checkpoint verify|export`.
///
/// # Errors
/// [`OperateError`].
pub async fn checkpoint(command: &CheckpointCommand, shell: &Shell, out: &mut Out) -> Result<(), OperateError> {
    match command {
        CheckpointCommand::Verify { shard, position, broker } => {
            Direct::open(broker, shard, shell).await?.verify_checkpoints(*position, out).await
        }
        CheckpointCommand::Export(arguments) => {
            Direct::open(&arguments.direct(), &arguments.shard, shell).await?.export(arguments, out).await
        }
        CheckpointCommand::Ls { .. } | CheckpointCommand::Create { .. } | CheckpointCommand::Import(_) => {
            unreachable!("the migrator is asked for these")
        }
    }
}

/// `segue log stats|verify`.
///
/// # Errors
/// [`OperateError`].
pub async fn log(command: &LogCommand, shell: &Shell, out: &mut Out) -> Result<(), OperateError> {
    match command {
        LogCommand::Stats { shard, broker } => Direct::open(broker, shard, shell).await?.stats(out).await,
        LogCommand::Verify { shard, broker } => Direct::open(broker, shard, shell).await?.verify_log(out).await,
        LogCommand::Tail { .. } => unreachable!("the migrator is asked for it"),
    }
}

/// What a log was found to hold.
#[derive(Default)]
struct Read {
    first: Position,
    tail: Position,
    kinds: BTreeMap<&'static str, u64>,
    body_bytes: u64,
    began_ms: Option<u64>,
    ended_ms: u64,
}

impl Read {
    fn add(&mut self, entry: &Entry) {
        *self.kinds.entry(entry.record.kind()).or_default() += 1;
        if let Record::Message(message) = &entry.record {
            self.body_bytes += match &message.request.body {
                Body::Inline(content) => content.len() as u64,
                Body::Stored { length, .. } => *length,
            };
        }
        self.began_ms.get_or_insert(entry.appended_ms);
        self.ended_ms = entry.appended_ms;
    }
}

impl Direct {
    async fn open(arguments: &DirectArguments, shard: &ShardArguments, shell: &Shell) -> Result<Direct, OperateError> {
        let named = [("broker", &arguments.broker)];
        let config: migrator::Config = read("migrator", &arguments.config, &named)?;
        // Whoever may read the file of a migrator that hosts the broker is let in as it lets in others.
        let mut segue = config.segue;
        if let Some(host) = config.host.as_ref().filter(|_| config.broker.is_none()) {
            segue.token_file = segue.token_file.or_else(|| host.token_file.clone());
        }
        let hosted = config.host.as_ref().map(HostConfig::url);
        let Some(url) = config.broker.or(hosted) else {
            let told = "no broker is named: --broker URL does, or --config with the migrator's file";
            return Err(OperateError::Broker(told.to_owned()));
        };
        let wrong = |name: &str| OperateError::Missing(format!("{name:?} is no name of a service or shard"));
        let shard = ShardId {
            service: shard.service.parse().map_err(|_| wrong(&shard.service))?,
            shard: shard.shard.parse().map_err(|_| wrong(&shard.shard))?,
        };
        let options = BrokerOptions { segue, nats: config.nats, kafka: config.kafka };
        let connected = async {
            let broker = broker_adapter::connect_with(&url, &options, shell).await.map_err(broken)?;
            config.checkpoints.open(broker, shell).await.map_err(broken)
        };
        let late = || OperateError::Broker(format!("the broker at {url} does not answer within {READ_LIMIT:?}"));
        let broker = shell.within(READ_LIMIT, connected).await.ok_or_else(late)??;
        Ok(Direct { broker, shard, shell: shell.clone() })
    }

    /// Reads every record that is there; each is checked by the adapter and its position by the follower.
    async fn read(&self) -> Result<Read, OperateError> {
        let log = self.broker.log(&self.shard.log_name()).await.map_err(broken)?;
        let usage = log.usage().await.map_err(broken)?;
        if usage.tail == Position::ZERO {
            return Err(OperateError::Missing(format!(
                "the log of {} is empty: no service was begun under this name",
                self.shard
            )));
        }
        let mut read = Read { first: usage.first, tail: usage.tail, ..Read::default() };
        let mut follower = Follower::new(log, self.shell.clone(), Position(usage.first.0.saturating_sub(1)), 0);
        while follower.position() < usage.tail {
            let next = self.shell.within(READ_LIMIT, follower.next()).await;
            let at = follower.position();
            let late = || OperateError::Broker(format!("nothing comes behind position {at} of {}", self.shard));
            let entry = next.ok_or_else(late)?;
            read.add(&entry.map_err(|error| OperateError::Unsound(format!("the log of {}: {error}", self.shard)))?);
        }
        Ok(read)
    }

    async fn fold(&self) -> Result<Fold, OperateError> {
        let found = self.shell.within(FOLD_LIMIT, fold_at_tail(&self.broker, &self.shard, &self.shell)).await;
        let late = || OperateError::Broker(format!("the log of {} cannot be read within {FOLD_LIMIT:?}", self.shard));
        let (fold, _) = found.ok_or_else(late)?.map_err(|error| OperateError::Unsound(error.to_string()))?;
        Ok(fold)
    }

    async fn stats(&self, out: &mut Out) -> Result<(), OperateError> {
        let read = self.read().await?;
        let fold = self.fold().await?;
        let fence = |fence: &broker_adapter::fold::CountedFence| json!({"epoch": fence.epoch, "owner": fence.owner.node, "cause": fence.cause, "position": fence.position});
        let fences: Vec<Value> = fold.fences().map(fence).collect();
        let value = json!({
            "service": self.shard.service, "shard": self.shard.shard,
            "first": read.first, "tail": read.tail, "kinds": read.kinds, "body_bytes": read.body_bytes,
            "began_ms": read.began_ms, "ended_ms": read.ended_ms,
            "messages_counted": fold.count(), "epoch": fold.epoch(), "owner": fold.owner().map(|owner| &owner.node),
            "fences": fences,
            "checkpoints_kept": fold.checkpoints().kept().iter().map(|kept| kept.position).collect::<Vec<_>>(),
        });
        let lines = [
            ("service", self.shard.to_string()),
            ("records", format!("{} to {}", text(&value, "/first"), text(&value, "/tail"))),
            ("bodies", bytes(&value, "/body_bytes")),
            ("messages counted", text(&value, "/messages_counted")),
            ("owner", format!("{} since epoch {}", text(&value, "/owner"), text(&value, "/epoch"))),
            ("checkpoints kept at", text(&value, "/checkpoints_kept")),
        ];
        out.one(&value, &lines).map_err(nobody_reads)?;
        let rows = read.kinds.iter().map(|(kind, count)| vec![(*kind).to_owned(), count.to_string()]).collect();
        out.table(&["kind", "records"], rows).map_err(nobody_reads)?;
        let row = |fence: &Value| ["/epoch", "/owner", "/cause", "/position"].map(|part| text(fence, part)).to_vec();
        let rows = fences.iter().map(row).collect();
        out.table(&["epoch", "owner", "cause", "position"], rows).map_err(nobody_reads)
    }

    async fn verify_log(&self, out: &mut Out) -> Result<(), OperateError> {
        let read = self.read().await?;
        let fold = self.fold().await?;
        let records = read.kinds.values().sum::<u64>();
        let value = json!({
            "service": self.shard.service, "shard": self.shard.shard, "sound": true,
            "first": read.first, "tail": read.tail, "records": records, "folded_to": fold.position(),
        });
        let beginning = if read.first.0 <= 1 { "from the first record" } else { "from a checkpoint that counts" };
        let lines = [
            ("service", self.shard.to_string()),
            ("records", format!("{records}, from {} to {}: no gap, every checksum right", read.first, read.tail)),
            ("fold", format!("{beginning} to {}", fold.position())),
        ];
        out.one(&value, &lines).map_err(nobody_reads)
    }

    fn reader(&self) -> Reader {
        Reader { store: self.broker.store(), shell: self.shell.clone() }
    }

    /// Kept checkpoints, the newest last; only the one at `position` if one is named.
    async fn kept(&self, position: Option<u64>) -> Result<Vec<KeptCheckpoint>, OperateError> {
        let fold = self.fold().await?;
        let kept = fold.checkpoints().kept();
        let chosen: Vec<KeptCheckpoint> =
            kept.iter().filter(|kept| position.is_none_or(|asked| kept.position.0 == asked)).cloned().collect();
        if chosen.is_empty() {
            let known: Vec<String> = kept.iter().map(|kept| kept.position.to_string()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { format!("those at {}", known.join(", ")) };
            return Err(OperateError::Missing(format!("{} keeps no such checkpoint; kept are {known}", self.shard)));
        }
        Ok(chosen)
    }

    async fn verify_checkpoints(&self, position: Option<u64>, out: &mut Out) -> Result<(), OperateError> {
        let mut items = Vec::new();
        for kept in self.kept(position).await? {
            let found = self.whole(&kept).await;
            items.push(match found {
                Ok(manifest) => json!({"position": kept.position, "hash": kept.manifest.to_string(), "sound": true,
                    "state_bytes": manifest.state_bytes(), "chunks": manifest.chunks().count(), "error": null}),
                Err(error) => json!({"position": kept.position, "hash": kept.manifest.to_string(), "sound": false,
                    "state_bytes": null, "chunks": null, "error": error.to_string()}),
            });
        }
        let sound = |item: &Value| if item["sound"] == true { "sound".to_owned() } else { text(item, "/error") };
        out.list(
            &items,
            &[
                ("position", &|item| text(item, "/position")),
                ("state", &|item| bytes(item, "/state_bytes")),
                ("chunks", &|item| text(item, "/chunks")),
                ("found", &sound),
            ],
        )
        .map_err(nobody_reads)?;
        let wrong = items.iter().filter(|item| item["sound"] == false).count();
        if wrong == 0 {
            return Ok(());
        }
        Err(OperateError::Unsound(format!(
            "{wrong} of {} checkpoints cannot be read whole; `segue checkpoint create {}` takes a new one while the owner lives",
            items.len(),
            self.shard.service
        )))
    }

    /// Reads everything that a checkpoint names.
    async fn whole(&self, kept: &KeptCheckpoint) -> Result<Manifest, OperateError> {
        let reader = self.reader();
        let manifest = reader.manifest(&self.shard, kept.position, kept.manifest).await.map_err(unsound)?;
        reader.fold(&manifest, kept.manifest).await.map_err(unsound)?;
        reader.replies(&manifest, kept.manifest).await.map_err(unsound)?;
        self.state(&manifest, kept, |_| Ok(())).await?;
        Ok(manifest)
    }

    /// Gives the state's bytes in order to `take`.
    async fn state(
        &self,
        manifest: &Manifest,
        kept: &KeptCheckpoint,
        mut take: impl FnMut(Bytes) -> Result<(), OperateError>,
    ) -> Result<(), OperateError> {
        let (to, pieces) = mpsc::channel(PIECES);
        let reader = self.reader();
        let streamed = reader.stream_state(manifest, kept.manifest, to, Pace::up_to(&self.shell, None), |_| {});
        let taken = async move {
            // Ours, so that whoever sends notices that nobody takes more.
            let mut pieces = pieces;
            while let Some(piece) = pieces.recv().await {
                take(piece)?;
            }
            Ok(())
        };
        let (streamed, taken) = tokio::join!(streamed, taken);
        streamed.map_err(unsound)?;
        taken
    }

    async fn export(&self, arguments: &ExportArguments, out: &mut Out) -> Result<(), OperateError> {
        let kept = self.kept(arguments.position).await?.pop().expect("an empty list was an error");
        if arguments.state {
            return self.export_state(&kept, &arguments.to, out).await;
        }
        let export = Export::open(self.reader(), &self.shard, kept.position, kept.manifest).await.map_err(unsound)?;
        let mut file = NewFile::create(&arguments.to)?;
        let (to, pieces) = mpsc::channel::<Result<Bytes, CheckpointError>>(PIECES);
        let written = async move {
            // Ours, so that whoever sends notices that the file takes no more.
            let mut pieces = pieces;
            while let Some(piece) = pieces.recv().await {
                file.write(&piece.map_err(unsound)?)?;
            }
            file.finish()
        };
        let ((), written) = tokio::join!(export.send(to), written);
        told(&arguments.to, written?, &self.shell, out).await
    }

    async fn export_state(&self, kept: &KeptCheckpoint, to: &Path, out: &mut Out) -> Result<(), OperateError> {
        let manifest = self.reader().manifest(&self.shard, kept.position, kept.manifest).await.map_err(unsound)?;
        let mut file = NewFile::create(to)?;
        self.state(&manifest, kept, |piece| file.write(&piece)).await?;
        file.finish()?;
        let value = json!({
            "service": self.shard.service, "shard": self.shard.shard, "position": kept.position,
            "hash": kept.manifest.to_string(), "state_bytes": manifest.state_bytes(), "file": to.display().to_string(),
        });
        let lines = [
            ("service", self.shard.to_string()),
            ("position", text(&value, "/position")),
            ("state", bytes(&value, "/state_bytes")),
            ("file", text(&value, "/file")),
        ];
        out.one(&value, &lines).map_err(nobody_reads)
    }
}

fn broken(error: impl std::error::Error) -> OperateError {
    OperateError::Broker(error.to_string())
}

fn unsound(error: impl std::error::Error) -> OperateError {
    OperateError::Unsound(error.to_string())
}
