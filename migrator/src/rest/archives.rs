//! `…/checkpoints/{checkpoint}/export` and `…/checkpoints/import`: a checkpoint as one file, out and in, streamed.
//!
//! The form is `sidecar::checkpoint::archive`'s. What an import may do is decided by the log at its tail: one that keeps this very
//! checkpoint gets back what its store has lost of it; one that has no checkpoint yet may begin with the state, on a node that is told
//! to; anything else is refused, because a state that no record of the log made would be taken for what the log says.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use broker_adapter::fold::{Fold, KeptCheckpoint};
use broker_adapter::ids::{Hash, NodeName, Position, ServiceName, ShardId};
use broker_adapter::shell::Shell;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use sidecar::checkpoint::CheckpointError;
use sidecar::checkpoint::archive::{Archive, ArchiveError, Export, Pieces};
use sidecar::checkpoint::import::{Imported, forget, restore, set_aside};
use sidecar::checkpoint::load::Reader;
use sidecar::command::{Begin, Begun, NodeMail, decode, encode, node_address};
use tokio::sync::{Mutex, Semaphore, mpsc};
use utoipa::{IntoParams, ToSchema};

use super::extract::{Named, Params};
use super::shards::{OfShard, browser, known};
use super::{Api, Problem, problem};
use crate::browse::{BrowseError, Browser};
use crate::view::ServiceView;

/// How many archives are written or read at once; each holds some chunks in memory.
const TRANSFERS_MAX: usize = 4;
/// How many chunks of an archive may wait for a client that takes them slowly.
const PIECES_MAX: usize = 2;
/// How long the next piece of an archive may take to come.
const PIECE_LIMIT: Duration = Duration::from_secs(30);
/// How much of an archive that is refused is read on, and how long, so that its sender comes to read why.
const REST_MAX_BYTES: usize = 256 << 20;
const REST_LIMIT: Duration = Duration::from_secs(10);
/// How often a node is told to begin: mail may be lost.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How long a node may take to begin with a small state; a larger one gets more time.
const BEGIN_LIMIT: Duration = Duration::from_secs(60);
/// At which rate it must go at least.
const BEGIN_BYTES_PER_MS: u64 = 10_000;

/// What all exports and imports share.
#[derive(Clone)]
pub struct Archives {
    places: Arc<Semaphore>,
    limit_bytes: u64,
}

impl Archives {
    /// States may have so many bytes.
    pub fn up_to(limit_bytes: u64) -> Archives {
        Archives { places: Arc::new(Semaphore::new(TRANSFERS_MAX)), limit_bytes }
    }
}

/// A checkpoint as one file: see the README, Checkpoints as files.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "it only stands in the contract")]
pub struct CheckpointArchive(Vec<u8>);

/// A kept checkpoint as one file: manifest and chunks, each checked on its way. It holds the service's state, so only operators get it.
#[utoipa::path(get, path = "/v1/services/{name}/checkpoints/{checkpoint}/export", tag = "services",
    params(("name" = String, Path, description = "the service"),
        ("checkpoint" = String, Path, description = "its position, its hash, or `newest`"), OfShard),
    responses((status = 200, body = CheckpointArchive, content_type = "application/octet-stream",
        headers(("Content-Disposition" = String, description = "a name for the file")))))]
pub async fn export(
    State(api): State<Api>,
    Named((name, checkpoint)): Named<(String, String)>,
    Params(of): Params<OfShard>,
) -> Result<Response, Problem> {
    let view = known(&api, &name, of.shard.as_deref()).await?;
    let shard = view.id();
    let Ok(place) = api.archives.places.clone().try_acquire_owned() else {
        return Err(problem::too_many_transfers(TRANSFERS_MAX));
    };
    let fold = browser(&api, &view).at_tail().await?;
    let kept = fold.checkpoints().kept();
    let found = chosen(kept, &checkpoint).ok_or_else(|| problem::unknown_checkpoint(&checkpoint, &shard, kept))?;
    let export = Export::open(reader(&api), &shard, found.position, found.manifest).await.map_err(unreadable)?;
    let file = format!("{}-{}-{}.segue", shard.service, shard.shard, found.position);
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, export.length().to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{file}\"")),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    let (to, pieces) = mpsc::channel(PIECES_MAX);
    api.shell.spawn(async move {
        export.send(to).await;
        drop(place);
    });
    let pieces = stream::unfold(pieces, |mut pieces| async move { Some((pieces.recv().await?, pieces)) });
    Ok((headers, Body::from_stream(pieces)).into_response())
}

fn chosen<'a>(kept: &'a [KeptCheckpoint], asked: &str) -> Option<&'a KeptCheckpoint> {
    let named = |kept: &&KeptCheckpoint| asked == kept.position.to_string() || asked == kept.manifest.to_string();
    if asked == "newest" { kept.last() } else { kept.iter().find(named) }
}

fn unreadable(error: CheckpointError) -> Problem {
    match error {
        CheckpointError::Damaged { .. } => problem::damaged_checkpoint(&error.to_string()),
        error => problem::state_lost(&error.to_string()),
    }
}

fn reader(api: &Api) -> Reader {
    Reader { store: api.handle.broker.store(), shell: api.shell.clone() }
}

/// What is meant by it.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Importing {
    /// `0` if not given.
    shard: Option<String>,
    /// `true`: reads and checks the whole archive, and tells what would be done.
    validate_only: Option<bool>,
    /// The archive's own service, if it is another one than that which begins with its state.
    #[param(value_type = Option<String>)]
    from: Option<ServiceName>,
    /// Where a service that has not begun is to begin; needed if several nodes can run it.
    #[param(value_type = Option<String>)]
    node: Option<NodeName>,
    /// `true`: what the service holds there already may be replaced, after a copy was kept.
    replace_state: Option<bool>,
}

/// What an import does.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = ImportAction)]
pub enum Action {
    /// The log keeps this checkpoint: what its store has lost of it is put back.
    Restore,
    /// The log had no checkpoint: the service begins with the state.
    Begin,
}

/// What was imported, or would be.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Import)]
pub struct ImportView {
    /// The service.
    service: String,
    /// The part of it.
    shard: String,
    /// What it does.
    action: Action,
    /// Whether it was only checked.
    validate_only: bool,
    /// The service of which the archive is.
    from: String,
    /// After which record of its own log.
    #[schema(value_type = u64)]
    position: Position,
    /// Its manifest's hash.
    hash: String,
    /// The state's size.
    state_bytes: u64,
    /// The archive's size.
    archive_bytes: u64,
    /// Parts of the archive that are used.
    chunks: u64,
    /// Parts that the store did not have whole: put now, or to be put.
    missing: u64,
    /// Where the service begins.
    #[schema(value_type = Option<String>)]
    node: Option<NodeName>,
    /// Checkpoint 0 of the service that has begun.
    checkpoint: Option<String>,
    /// The same in words.
    sentence: String,
}

/// Imports a checkpoint that was exported: puts back what the store has lost of a checkpoint that the log keeps, or begins a service that
/// has none. The same archive again changes nothing more.
#[utoipa::path(post, path = "/v1/services/{name}/checkpoints/import", tag = "services",
    params(("name" = String, Path, description = "the service"), Importing),
    request_body(content = CheckpointArchive, content_type = "application/octet-stream"),
    responses((status = 200, body = ImportView)))]
pub async fn import(
    State(api): State<Api>,
    Named(name): Named<String>,
    Params(meaning): Params<Importing>,
    request: Request,
) -> Result<Response, Problem> {
    let body = Arc::new(Mutex::new(request.into_body().into_data_stream()));
    let result = import_from(&api, &name, meaning, pieces(body.clone(), api.shell.clone())).await;
    if result.is_err() {
        // Who still sends would not read why it was refused.
        let _ = api.shell.within(REST_LIMIT, rest(body)).await;
    }
    result.map(|view| Json(view).into_response())
}

type Upload = Arc<Mutex<BodyDataStream>>;

fn pieces(body: Upload, shell: Shell) -> Pieces {
    let next = |(body, shell): (Upload, Shell)| async move {
        let next = shell.within(PIECE_LIMIT, async { body.lock().await.next().await }).await;
        let piece = match next {
            None => Err(ArchiveError::TooSlow(PIECE_LIMIT.as_secs())),
            Some(None) => return None,
            Some(Some(piece)) => piece.map_err(|error| ArchiveError::Unreadable(error.to_string())),
        };
        Some((piece, (body, shell)))
    };
    stream::unfold((body, shell), next).boxed()
}

async fn rest(body: Upload) {
    let mut left = REST_MAX_BYTES;
    while let Some(Ok(piece)) = body.lock().await.next().await
        && left > 0
    {
        left = left.saturating_sub(piece.len());
    }
}

async fn import_from(api: &Api, name: &str, meaning: Importing, pieces: Pieces) -> Result<ImportView, Problem> {
    let view = known(api, name, meaning.shard.as_deref()).await?;
    let shard = view.id();
    let Ok(_place) = api.archives.places.clone().try_acquire_owned() else {
        return Err(problem::too_many_transfers(TRANSFERS_MAX));
    };
    // Nothing, if the log can be read only with what the archive may bring back.
    let browser = browser(api, &view);
    let fold = match browser.at_tail().await {
        Ok(fold) => Some(fold),
        Err(BrowseError::NoCheckpoint { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let node = match &fold {
        Some(fold) if fold.checkpoints().newest().is_none() => Some(node(&view, fold, meaning.node.as_ref())?),
        _ => None,
    };
    let begins = node.is_some();
    let archive = Archive::open(pieces, api.archives.limit_bytes, &api.shell).await;
    let archive = archive.map_err(|error| problem::archive(&error))?;
    let manifest = archive.manifest();
    let wanted = ShardId { service: meaning.from.clone().unwrap_or(shard.service.clone()), ..shard.clone() };
    if manifest.shard != wanted {
        return Err(problem::wrong_service(&manifest.shard, &wanted));
    }
    let mut view = ImportView {
        service: shard.service.to_string(),
        shard: shard.shard.to_string(),
        action: if begins { Action::Begin } else { Action::Restore },
        validate_only: meaning.validate_only == Some(true),
        from: manifest.shard.service.to_string(),
        position: manifest.position,
        hash: archive.hash().to_string(),
        state_bytes: manifest.state_bytes(),
        archive_bytes: 0,
        chunks: 0,
        missing: 0,
        node,
        checkpoint: None,
        sentence: String::new(),
    };
    if begins {
        begin(api, &shard, archive, meaning.replace_state == Some(true), &mut view).await?;
    } else {
        put_back(api, archive, (&browser, fold), &mut view).await?;
    }
    view.sentence = sentence(&view);
    Ok(view)
}

impl ImportView {
    fn count(&mut self, imported: Imported) {
        (self.archive_bytes, self.chunks, self.missing) = (imported.archive_bytes, imported.chunks, imported.missing);
    }
}

/// The log itself says that it keeps this checkpoint, by a hash that stands for all of it. Where the log was trimmed and no checkpoint in
/// the store leads to the rest of it, it is read on from the archive's own fold: as anybody does with what lies in the store, and believed
/// for the same reason, that the log behind it names this very checkpoint.
async fn put_back(
    api: &Api,
    mut archive: Archive,
    (browser, fold): (&Browser, Option<Fold>),
    view: &mut ImportView,
) -> Result<(), Problem> {
    let shard = &browser.shard;
    let (position, hash) = (archive.manifest().position, archive.hash());
    let foreign = |kept: &[KeptCheckpoint]| problem::foreign_checkpoint((shard, position, hash), kept);
    if archive.manifest().shard != *shard {
        return Err(foreign(fold.as_ref().map_or(&[], |fold| fold.checkpoints().kept())));
    }
    let fold = match fold {
        Some(fold) => fold,
        None => {
            let from = archive.fold().await.map_err(|error| problem::archive(&error))?;
            browser.at_tail_from(from).await.map_err(|error| {
                tracing::info!(%shard, %error, "the log does not go on where an imported checkpoint ends");
                foreign(&[])
            })?
        }
    };
    let kept = fold.checkpoints().kept();
    if !kept.iter().any(|kept| (kept.position, kept.manifest) == (position, hash)) {
        return Err(foreign(kept));
    }
    view.count(restore(&reader(api), archive, !view.validate_only).await.map_err(problem::importing)?);
    Ok(())
}

async fn begin(
    api: &Api,
    shard: &ShardId,
    archive: Archive,
    replace_state: bool,
    view: &mut ImportView,
) -> Result<(), Problem> {
    let reader = reader(api);
    let aside = set_aside(&reader, archive, shard, !view.validate_only).await;
    let (imported, import) = aside.map_err(problem::importing)?;
    view.count(imported);
    let Some(node) = view.node.clone().filter(|_| !view.validate_only) else { return Ok(()) };
    let answer_to = format!("import/{}", api.shell.random());
    let order = Begin { shard: shard.clone(), import, replace_state, answer_to };
    let limit = BEGIN_LIMIT + Duration::from_millis(view.state_bytes / BEGIN_BYTES_PER_MS);
    let Some(begun) = api.shell.within(limit, tell(api, &node, order)).await else {
        // It may be at it: what was put stays for it, and for the next try.
        return Err(problem::unanswered(shard, node.as_str(), limit));
    };
    match begun.result {
        Ok(checkpoint) => {
            view.checkpoint = Some(checkpoint.to_string());
            Ok(())
        }
        Err(failure) => {
            forget(&reader, shard, import).await;
            Err(problem::begin_failed(shard, node.as_str(), &failure))
        }
    }
}

/// Tells the node again and again; its first answer.
async fn tell(api: &Api, node: &NodeName, order: Begin) -> Begun {
    let mailbox = api.handle.broker.mailbox();
    let mut answers = mailbox.subscribe(&order.answer_to);
    let import: Hash = order.import;
    loop {
        mailbox.send(&node_address(node), encode(&NodeMail::Begin(order.clone())));
        let heard = async {
            loop {
                match answers.next().await.map(|mail| decode::<Begun>(&mail)) {
                    Some(Some(begun)) if begun.import == import => return begun,
                    Some(_) => {}
                    // The broker is away; it comes back.
                    None => std::future::pending().await,
                }
            }
        };
        if let Some(begun) = api.shell.within(TELL_EVERY, heard).await {
            return begun;
        }
    }
}

/// Where it begins: at the owner, if an earlier try made one; else where it is said; else at the only node that can.
fn node(view: &ServiceView, fold: &Fold, asked: Option<&NodeName>) -> Result<NodeName, Problem> {
    let shard = view.id();
    let able: Vec<_> = view.replicas.iter().filter(|replica| replica.runs_replica).collect();
    let owner = fold.owner().map(|owner| &owner.node);
    if let Some(asked) = owner.or(asked) {
        let names: BTreeSet<String> = able.iter().map(|replica| replica.node.to_string()).collect();
        let names: Vec<String> = names.into_iter().collect();
        let Some(found) = able.iter().find(|replica| replica.node == *asked) else {
            return Err(problem::unknown_node(asked.as_str(), &names));
        };
        return if found.silent { Err(problem::owner_silent(asked.as_str())) } else { Ok(asked.clone()) };
    }
    let alive: Vec<&NodeName> = able.iter().filter(|replica| !replica.silent).map(|replica| &replica.node).collect();
    match alive[..] {
        [] => Err(problem::no_node(&shard)),
        [only] => Ok(only.clone()),
        _ => {
            let names: Vec<String> = alive.iter().map(ToString::to_string).collect();
            Err(problem::node_needed(&shard, &names))
        }
    }
}

fn sentence(view: &ImportView) -> String {
    let ImportView { service, shard, position, missing, chunks, from, .. } = view;
    let node = view.node.as_ref().map_or("-", NodeName::as_str);
    match (view.action, view.validate_only, missing) {
        (Action::Restore, _, 0) => {
            format!("checkpoint {position} of {service}/{shard} is whole in the store: nothing was missing")
        }
        (Action::Restore, true, _) => {
            format!(
                "checkpoint {position} of {service}/{shard} would be mended: the store lacks {missing} of its parts"
            )
        }
        (Action::Restore, false, _) => {
            format!("checkpoint {position} of {service}/{shard} is whole again: {missing} parts were put back")
        }
        (Action::Begin, true, _) => {
            format!(
                "{service}/{shard} would begin on {node} with the state of {from} after {position} ({chunks} chunks)"
            )
        }
        (Action::Begin, false, _) => {
            format!("{service}/{shard} has begun on {node} with the state of {from} after {position}")
        }
    }
}
