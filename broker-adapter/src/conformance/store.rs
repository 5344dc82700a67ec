//! The contract of [`CheckpointStore`](crate::store::CheckpointStore).

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::join_all;

use super::{Case, Fixture};
use crate::store::{OBJECT_LIMIT_BYTES, StoreError};

pub const CASES: &[Case] = &[
    ("get gives exactly what was put", |f| exactly_what_was_put(f).boxed()),
    ("putting the same again changes nothing", |f| the_same_again(f).boxed()),
    ("a missing object is refused by name", |f| a_missing_object(f).boxed()),
    ("list gives the names with a prefix in order", |f| list_in_order(f).boxed()),
    ("delete removes and may run twice", |f| delete_twice(f).boxed()),
    ("no name leads out of the store", |f| bad_names(f).boxed()),
    ("an object above the limit is refused", |f| above_the_limit(f).boxed()),
    ("many puts at a time all arrive", |f| many_at_a_time(f).boxed()),
];

fn pattern(bytes: usize) -> Bytes {
    (0..bytes).map(|at| u8::try_from(at % 253).expect("below 256")).collect::<Vec<u8>>().into()
}

async fn exactly_what_was_put(fixture: Fixture) {
    let store = fixture.broker.store();
    for bytes in [0, 1, 4_096, 1 << 20, OBJECT_LIMIT_BYTES] {
        let name = format!("chunk/{bytes}");
        store.put(name.clone(), pattern(bytes)).await.expect("the put succeeds");
        assert!(store.get(name).await.expect("it is there") == pattern(bytes), "an object of {bytes} bytes");
    }
}

async fn the_same_again(fixture: Fixture) {
    let store = fixture.broker.store();
    for _ in 0..2 {
        store.put("chunk/a".to_owned(), pattern(100)).await.expect("the put succeeds");
    }
    assert_eq!(store.get("chunk/a".to_owned()).await, Ok(pattern(100)));
    assert_eq!(store.list(String::new()).await, Ok(vec!["chunk/a".to_owned()]));
}

async fn a_missing_object(fixture: Fixture) {
    let missing = fixture.broker.store().get("chunk/none".to_owned()).await;
    assert_eq!(missing, Err(StoreError::Missing("chunk/none".to_owned())));
}

async fn list_in_order(fixture: Fixture) {
    let store = fixture.broker.store();
    for name in ["manifest/b.0/2-f", "chunk/b", "manifest/b.0/10-f", "chunk/a", "chunk", "manifest/a.0/1-f"] {
        store.put(name.to_owned(), pattern(10)).await.expect("the put succeeds");
    }
    assert_eq!(store.list("manifest/b.0/1".to_owned()).await, Ok(vec!["manifest/b.0/10-f".to_owned()]));
    assert_eq!(store.list("chunk/".to_owned()).await, Ok(vec!["chunk/a".to_owned(), "chunk/b".to_owned()]));
    assert_eq!(store.list("nothing".to_owned()).await, Ok(Vec::new()));
    let all = store.list(String::new()).await.expect("it can be listed");
    assert_eq!(all.len(), 6);
    assert!(all.is_sorted());
}

async fn delete_twice(fixture: Fixture) {
    let store = fixture.broker.store();
    store.put("chunk/a".to_owned(), pattern(10)).await.expect("the put succeeds");
    for _ in 0..2 {
        assert_eq!(store.delete("chunk/a".to_owned()).await, Ok(()));
    }
    assert_eq!(store.get("chunk/a".to_owned()).await, Err(StoreError::Missing("chunk/a".to_owned())));
}

async fn bad_names(fixture: Fixture) {
    let store = fixture.broker.store();
    for name in ["", "/a", "a/", "a//b", "..", "../a", "a/../../b", "a/./b", "a b", "a~", "a\0", "ä"] {
        let refused = StoreError::BadName(name.to_owned());
        assert_eq!(store.put(name.to_owned(), pattern(1)).await, Err(refused.clone()), "put {name:?}");
        assert_eq!(store.get(name.to_owned()).await, Err(refused.clone()), "get {name:?}");
        assert_eq!(store.delete(name.to_owned()).await, Err(refused), "delete {name:?}");
    }
}

async fn above_the_limit(fixture: Fixture) {
    let bytes = OBJECT_LIMIT_BYTES + 1;
    let refused = fixture.broker.store().put("chunk/large".to_owned(), pattern(bytes)).await;
    assert_eq!(refused, Err(StoreError::TooLarge(bytes as u64)));
}

async fn many_at_a_time(fixture: Fixture) {
    let store = fixture.broker.store();
    let puts = (0..40).map(|at| store.put(format!("chunk/{at:02}"), pattern(10_000 + at)));
    for put in join_all(puts).await {
        put.expect("the put succeeds");
    }
    for at in 0..40 {
        assert_eq!(store.get(format!("chunk/{at:02}")).await, Ok(pattern(10_000 + at)));
    }
}
