//! The memory broker's checkpoint store: objects by name, each with the hash of what was put.
//!
//! A damaged object is an error of `get`, never other bytes. Putting a name again replaces it.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::link::{Link, Toll};
use super::state::{Object, State};
use crate::store::{CheckpointStore, OBJECT_LIMIT_BYTES, StoreError};

pub(super) struct MemoryStore {
    pub link: Link,
}

const CALL: Toll = Toll {
    delay: |faults| faults.store_delay,
    failed_per_mille: |faults| faults.store_failed_per_mille,
    fault: "store_failed_per_mille",
};

impl CheckpointStore for MemoryStore {
    fn put(&self, name: String, bytes: Bytes) -> BoxFuture<'static, Result<(), StoreError>> {
        let link = self.link.clone();
        async move {
            check_name(&name)?;
            if bytes.len() > OBJECT_LIMIT_BYTES {
                return Err(StoreError::TooLarge(bytes.len() as u64));
            }
            let object = Object { hash: blake3::hash(&bytes), bytes };
            let is_done = link.throw(|dice| dice.strikes(500));
            match link.pass(&CALL, |state| put(state, &name, &object)).await {
                Ok(done) if !holds(&link, &name) => done,
                Ok(_) => std::future::pending().await,
                Err(reason) => {
                    // A put whose answer is lost may have been done. Not over a line that is cut off.
                    let mut state = link.broker.lock();
                    if is_done && !state.line(&link.line).is_cut {
                        // Nobody hears any more whether there was room.
                        let _ = put(&mut state, &name, &object);
                    }
                    Err(StoreError::Unreachable(reason))
                }
            }
        }
        .boxed()
    }

    fn get(&self, name: String) -> BoxFuture<'static, Result<Bytes, StoreError>> {
        let link = self.link.clone();
        async move {
            check_name(&name)?;
            let found = link.pass(&CALL, |state| {
                let line = state.line(&link.line);
                if line.gets_to_fail > 0 {
                    line.gets_to_fail -= 1;
                    state.count("fail_gets");
                    return Err(StoreError::Unreachable("the test lets it fail".to_owned()));
                }
                Ok(state.objects.get(&name).map(|found| (found.bytes.clone(), found.hash)))
            });
            match found.await.map_err(StoreError::Unreachable)?? {
                None => Err(StoreError::Missing(name)),
                Some((bytes, hash)) if blake3::hash(&bytes) == hash => Ok(bytes),
                Some(_) => {
                    Err(StoreError::Damaged { name, reason: "its hash is another one than at its put".to_owned() })
                }
            }
        }
        .boxed()
    }

    fn list(&self, prefix: String) -> BoxFuture<'static, Result<Vec<String>, StoreError>> {
        let link = self.link.clone();
        async move {
            let names = link.pass(&CALL, |state| {
                state.objects.keys().filter(|name| name.starts_with(&prefix)).cloned().collect::<Vec<_>>()
            });
            names.await.map_err(StoreError::Unreachable)
        }
        .boxed()
    }

    fn delete(&self, name: String) -> BoxFuture<'static, Result<(), StoreError>> {
        let link = self.link.clone();
        async move {
            check_name(&name)?;
            let deleted = link.pass(&CALL, |state| drop(state.objects.remove(&name)));
            deleted.await.map_err(StoreError::Unreachable)
        }
        .boxed()
    }
}

/// Whether nobody hears that this was put.
fn holds(link: &Link, name: &str) -> bool {
    let mut state = link.broker.lock();
    let Some((_, held)) =
        state.line(&link.line).held_puts.as_mut().filter(|(prefix, _)| name.starts_with(prefix.as_str()))
    else {
        return false;
    };
    *held += 1;
    state.count("hold_puts");
    true
}

fn put(state: &mut State, name: &str, object: &Object) -> Result<(), StoreError> {
    if state.store_is_full {
        state.count("fill_store");
        return Err(StoreError::Full("the test filled it".to_owned()));
    }
    state.objects_ever.insert(name.to_owned());
    state.objects.insert(name.to_owned(), Object { bytes: object.bytes.clone(), hash: object.hash });
    Ok(())
}

fn check_name(name: &str) -> Result<(), StoreError> {
    let fits = name.split('/').all(|segment| {
        !segment.is_empty()
            && segment != "."
            && segment != ".."
            && segment.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
    });
    if fits { Ok(()) } else { Err(StoreError::BadName(name.to_owned())) }
}
