//! Archives: what is written is read again, what is cut off, changed or too large is told, and an import makes no claim of its own.

use broker_adapter::ids::{Hash, Position, ShardId};
use broker_adapter::memory::MemoryBroker;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

use super::super::archive::{Archive, ArchiveError, Export, MAGIC};
use super::super::import::{ImportError, Imported, forget, restore, set_aside};
use super::super::known::suspect_name;
use super::super::save::Saved;
use super::super::{Form, Manifest};
use super::{Bench, state_of};
use crate::command::encode;

const LIMIT: u64 = 1 << 30;

impl Bench {
    async fn exported(&self, saved: &Saved) -> Vec<u8> {
        let export =
            Export::open(self.reader(), &self.shard, saved.position, saved.manifest).await.expect("it is whole");
        let length = export.length();
        let (to, mut pieces) = mpsc::channel(2);
        self.shell.spawn(export.send(to));
        let mut archive = Vec::new();
        while let Some(piece) = pieces.recv().await {
            archive.extend_from_slice(&piece.expect("the store is whole"));
        }
        assert_eq!(archive.len() as u64, length);
        archive
    }

    async fn open(&self, archive: &[u8], limit: u64) -> Result<Archive, ArchiveError> {
        // Cut anywhere, as a connection would.
        let pieces: Vec<Bytes> = archive.chunks(300_007).map(Bytes::copy_from_slice).collect();
        Archive::open(stream::iter(pieces).map(Ok).boxed(), limit, &self.shell).await
    }

    async fn read(&self, archive: &[u8], limit: u64) -> Result<u64, ArchiveError> {
        let mut archive = self.open(archive, limit).await?;
        let mut chunks = 0;
        while archive.next().await?.is_some() {
            chunks += 1;
        }
        Ok(chunks)
    }

    async fn restored(&self, archive: &[u8], write: bool) -> Result<Imported, ImportError> {
        restore(&self.reader(), self.open(archive, LIMIT).await?, write).await
    }

    async fn saved(&self, pieces: usize) -> (Saved, Manifest) {
        let saved = self.save(state_of(pieces, 0..0), &[]).await.expect("it is saved");
        let manifest = self.reader().manifest(&self.shard, saved.position, saved.manifest).await.expect("it is there");
        (saved, manifest)
    }
}

fn bench() -> (Bench, std::sync::Arc<MemoryBroker>) {
    Bench::new()
}

#[tokio::test(start_paused = true)]
async fn an_archive_holds_a_checkpoint_whole_and_its_end_is_the_hash_of_the_rest() {
    let (bench, _broker) = bench();
    let (saved, manifest) = bench.saved(5).await;
    let archive = bench.exported(&saved).await;
    assert_eq!(bench.read(&archive, LIMIT).await, Ok(manifest.chunks().count() as u64));
    let opened = bench.open(&archive, LIMIT).await.expect("it is one");
    assert_eq!((opened.hash(), opened.manifest()), (saved.manifest, &manifest));
    let (rest, hash) = archive.split_at(archive.len() - 32);
    assert!(rest.starts_with(MAGIC) && Hash::of(rest).0[..] == *hash);
}

#[tokio::test(start_paused = true)]
async fn wherever_an_archive_is_cut_off_that_is_told() {
    let (bench, _broker) = bench();
    let (saved, _) = bench.saved(2).await;
    let archive = bench.exported(&saved).await;
    for end in [0, 1, MAGIC.len() - 1] {
        assert!(matches!(bench.read(&archive[..end], LIMIT).await, Err(ArchiveError::NotOne(_))), "{end}");
    }
    let ends =
        [MAGIC.len(), MAGIC.len() + 3, MAGIC.len() + 40, archive.len() / 2, archive.len() - 33, archive.len() - 1];
    for end in ends {
        let error = bench.read(&archive[..end], LIMIT).await.expect_err("it is cut off");
        assert!(matches!(&error, ArchiveError::Truncated { bytes, .. } if *bytes == end as u64), "{end}: {error}");
    }
    let longer = [&archive[..], b"x"].concat();
    assert!(matches!(bench.read(&longer, LIMIT).await, Err(ArchiveError::Damaged(_))));
}

#[tokio::test(start_paused = true)]
async fn whatever_byte_of_an_archive_changes_that_is_told() {
    let (bench, _broker) = bench();
    let (saved, _) = bench.saved(1).await;
    let archive = bench.exported(&saved).await;
    let head = 0..600.min(archive.len());
    let steps = (0..archive.len()).step_by(archive.len() / 50);
    for at in head.chain(steps).chain(archive.len() - 40..archive.len()) {
        let mut changed = archive.clone();
        changed[at] ^= 1;
        assert!(bench.read(&changed, LIMIT).await.is_err(), "byte {at} was changed");
    }
}

#[tokio::test(start_paused = true)]
async fn an_archive_that_says_to_hold_more_than_is_allowed_is_refused_at_its_manifest() {
    let (bench, _broker) = bench();
    let (saved, manifest) = bench.saved(3).await;
    let archive = bench.exported(&saved).await;
    let declared: u64 = manifest.chunks().map(|chunk| u64::from(chunk.length)).sum();
    assert!(bench.read(&archive, declared).await.is_ok());
    let refused = bench.open(&archive, declared - 1).await.map(|_| ()).expect_err("it is above");
    assert!(matches!(&refused, ArchiveError::TooLarge { bytes, .. } if *bytes == declared), "{refused}");
    // A small chunk, named again and again: far more than it has when it is unpacked.
    let mut bomb = manifest;
    let mut chunk = bomb.state[0].clone();
    chunk.form = Form::Zstd { stored: 100 };
    bomb.state = vec![chunk; 4_000];
    let content = encode(&bomb);
    let mut small = BytesMut::from(MAGIC);
    small.put_u32(u32::try_from(content.len()).expect("small"));
    small.extend_from_slice(&content);
    let refused = bench.open(&small, LIMIT).await.map(|_| ()).expect_err("it is a bomb");
    assert!(matches!(&refused, ArchiveError::TooLarge { .. }), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_archive_or_of_another_version_is_told() {
    let (bench, _broker) = bench();
    for (text, told) in
        [("segue-checkpoint/2\nmore", "take the segue that wrote it"), ("{}", "does not begin"), ("", "empty")]
    {
        let error = bench.read(text.as_bytes(), LIMIT).await.expect_err("it is none").to_string();
        assert!(error.contains(told), "{error}");
    }
    let endless = [MAGIC, &u32::MAX.to_be_bytes()[..]].concat();
    let error = bench.read(&endless, LIMIT).await.expect_err("no manifest is so large");
    assert!(matches!(error, ArchiveError::Damaged(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_restore_puts_back_what_is_lost_and_nothing_else() {
    let (bench, broker) = bench();
    let (saved, manifest) = bench.saved(6).await;
    let archive = bench.exported(&saved).await;
    let before = bench.names("").await;
    let (bad, gone) = (manifest.state[1].name(&bench.shard), manifest.state[2].name(&bench.shard));
    assert!(broker.damage_object(&bad));
    bench.store.inner.delete(gone.clone()).await.expect("it deletes");
    assert!(bench.load(&saved).await.is_err(), "it is damaged");
    let looked = bench.restored(&archive, false).await.expect("it is whole");
    assert_eq!((looked.chunks, looked.missing), (manifest.chunks().count() as u64, 2));
    assert!(bench.load(&saved).await.is_err(), "looking changes nothing");
    assert!(bench.names("suspect/").await.contains(&suspect_name(&bench.shard, &bad)));
    assert_eq!(bench.restored(&archive, true).await.expect("it is whole").missing, 2);
    assert_eq!(bench.load(&saved).await, Ok(6 << 20));
    let mut after = bench.names("").await;
    after.retain(|name| !name.starts_with("suspect/"));
    assert_eq!(after, before, "nothing else is put");
    assert_eq!(bench.restored(&archive, true).await.expect("it is whole").missing, 0);
    let manifests = bench.names("manifest/").await;
    bench.store.inner.delete(manifests[0].clone()).await.expect("it deletes");
    assert_eq!(bench.restored(&archive, true).await.expect("it is whole").missing, 1);
    assert_eq!(bench.load(&saved).await, Ok(6 << 20));
}

#[tokio::test(start_paused = true)]
async fn of_an_archive_that_is_cut_off_only_what_is_right_is_put_back() {
    let (bench, _broker) = bench();
    let (saved, manifest) = bench.saved(6).await;
    let archive = bench.exported(&saved).await;
    let before = bench.names("").await;
    let last = manifest.state.last().expect("it has chunks").name(&bench.shard);
    for name in [manifest.state[0].name(&bench.shard), last.clone()] {
        bench.store.inner.delete(name).await.expect("it deletes");
    }
    let error = bench.restored(&archive[..archive.len() - 1_000], true).await.expect_err("it is cut off");
    assert!(matches!(error, ImportError::Archive(ArchiveError::Truncated { .. })), "{error}");
    assert!(bench.names("").await.iter().all(|name| before.contains(name)));
    assert_eq!(bench.restored(&archive, true).await.expect("it is whole").missing, 1, "the first one was put back");
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_set_aside_is_the_states_alone_and_leaves_nothing_when_it_is_forgotten_or_cut_off() {
    let (bench, _broker) = bench();
    let (saved, manifest) = bench.saved(4).await;
    let archive = bench.exported(&saved).await;
    let before = bench.names("").await;
    let other = ShardId::whole("other".parse().expect("a good name"));
    let reader = bench.reader();
    let cut = bench.open(&archive[..archive.len() - 1], LIMIT).await.expect("it begins well");
    set_aside(&reader, cut, &other, true).await.map(|_| ()).expect_err("it is cut off");
    assert_eq!(bench.names("").await, before);
    let looked = set_aside(&reader, bench.open(&archive, LIMIT).await.expect("it is one"), &other, false).await;
    let looked = looked.expect("it is whole");
    assert_eq!(bench.names("").await, before, "looking changes nothing");
    let (imported, hash) = set_aside(&reader, bench.open(&archive, LIMIT).await.expect("it is one"), &other, true)
        .await
        .expect("it is whole");
    assert_eq!((imported, hash), looked, "the same archive is the same import");
    assert_eq!(bench.names("manifest/other.0").await, Vec::<String>::new(), "nobody takes it for a checkpoint");
    let aside = reader.set_aside(&other, hash).await.expect("it is there");
    assert_eq!((aside.position, aside.state_bytes()), (Position::ZERO, manifest.state_bytes()));
    assert!(aside.fold.is_empty() && aside.replies.is_empty());
    let hashes = |manifest: &Manifest| manifest.state.iter().map(|chunk| chunk.hash).collect::<Vec<_>>();
    assert_eq!(hashes(&aside), hashes(&manifest));
    let (sender, mut pieces) = mpsc::channel(64);
    let pace = super::Pace::up_to(&bench.shell, None);
    let streamed = reader.stream_state(&aside, hash, sender, pace, |_| {});
    let read = async { while pieces.recv().await.is_some() {} };
    futures_util::future::join(streamed, read).await.0.expect("each chunk is there under its new name");
    forget(&reader, &other, hash).await;
    assert_eq!(bench.names("").await, before);
}
