//! What a bucket's store makes of damage and of errors; on the crate's own store in memory, whose objects a test can reach.

use object_store::memory::InMemory;

use super::*;

fn store(prefix: &str) -> (BucketStore, Arc<InMemory>) {
    let inner = Arc::new(InMemory::new());
    (BucketStore::on(inner.clone(), prefix).unwrap(), inner)
}

#[tokio::test]
async fn a_damaged_object_is_refused_by_name() {
    let (store, inner) = store("some/prefix");
    store.put("chunk/a".to_owned(), vec![1; 1_000].into()).await.unwrap();
    let path = Path::parse("some/prefix/chunk/a").unwrap();
    let whole = inner.get(&path).await.unwrap().bytes().await.unwrap();
    let too_large = vec![1; OBJECT_LIMIT_BYTES + HASH_BYTES + 1];
    for damaged in [whole[..500].to_vec(), [&whole[..900], &[2; 132]].concat(), Vec::new(), too_large] {
        inner.put(&path, damaged.into()).await.unwrap();
        match store.get("chunk/a".to_owned()).await {
            Err(StoreError::Damaged { name, .. }) => assert_eq!(name, "chunk/a"),
            other => panic!("expected damage, got {other:?}"),
        }
    }
    store.put("chunk/a".to_owned(), vec![1; 1_000].into()).await.expect("putting it again heals it");
    assert_eq!(store.get("chunk/a".to_owned()).await, Ok(vec![1; 1_000].into()));
}

#[tokio::test]
async fn two_prefixes_of_one_bucket_do_not_see_each_other() {
    let (one, inner) = store("one");
    for other in ["one/deeper", "onesie", ""] {
        let other = BucketStore::on(inner.clone(), other).unwrap();
        other.put("chunk/b".to_owned(), Bytes::from_static(b"b")).await.unwrap();
    }
    one.put("chunk/a".to_owned(), Bytes::from_static(b"a")).await.unwrap();
    assert_eq!(one.list("chunk/".to_owned()).await, Ok(vec!["chunk/a".to_owned()]));
    assert!(matches!(one.get("chunk/b".to_owned()).await, Err(StoreError::Missing(_))));
}

fn answered(status: &str, body: &str) -> Error {
    let source =
        format!("Error performing PUT http://h/b/x in 1ms - Server returned non-2xx status code: {status}: {body}");
    Error::Generic { store: "S3", source: source.into() }
}

#[test]
fn what_a_server_answers_is_told_by_status_and_code_alone() {
    for body in
        ["<Error><Code>ExpiredToken</Code><Token-0>hidden</Token-0></Error>", "hidden", "{\"token\": \"hidden\"}"]
    {
        let told = failed("chunk/a", &answered("400 Bad Request", body)).to_string();
        assert!(told.contains("400 Bad Request") && !told.contains("hidden"), "{told}");
        assert_eq!(told.contains("ExpiredToken"), body.contains("ExpiredToken"), "{told}");
    }
    let source = "Error performing PUT http://h/b/x in 1ms - Server returned error response: <Error>hidden</Error>";
    let told = said(&Error::Generic { store: "S3", source: source.into() });
    assert!(told.contains("Error performing PUT") && !told.contains("hidden"), "{told}");
}

#[test]
fn a_full_store_and_a_missing_bucket_are_told_apart_from_a_missing_object() {
    let full = failed("chunk/a", &answered("507 Insufficient Storage", ""));
    assert!(matches!(full, StoreError::Full(_)), "{full}");
    let full = failed("chunk/a", &answered("400 Bad Request", "<Code>XMinioStorageFull</Code>"));
    assert!(matches!(full, StoreError::Full(_)), "{full}");
    let missing = |code: &str| Error::NotFound { path: "x".to_owned(), source: format!("<Code>{code}</Code>").into() };
    assert!(matches!(failed("chunk/a", &missing("NoSuchKey")), StoreError::Missing(name) if name == "chunk/a"));
    let gone = failed("chunk/a", &missing("NoSuchBucket"));
    assert!(matches!(&gone, StoreError::Unreachable(why) if why.contains("make the bucket first")), "{gone}");
}
