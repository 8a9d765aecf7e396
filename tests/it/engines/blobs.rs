//! The contract of every blob store, tested on a directory and on an S3 server.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use futures_util::{TryStreamExt, future};
use pm::{
    blobs::{Blob, BlobKey, Blobs, Engine, Error, RENEWED_AFTER},
    code::ErrorCode,
};

use crate::support::s3::S3Server;

#[tokio::test]
async fn a_directory_is_a_blob_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let blobs = connect(&Engine::Disk { directory: directory.path().to_owned() }).await;
    conforms(&blobs, directory.path()).await;
}

#[tokio::test]
async fn a_bucket_is_a_blob_store() {
    let server = S3Server::start().await;
    conforms(&connect(&server.engine("")).await, &server.directory()).await;
}

#[tokio::test]
async fn a_prefix_in_a_bucket_is_a_blob_store() {
    let server = S3Server::start().await;
    // Objects under another prefix must be invisible.
    connect(&server.engine("other")).await.put(Bytes::from("neighbour"), "png").await.expect("stored");
    conforms(&connect(&server.engine("shop/eu")).await, &server.directory().join("shop/eu")).await;
}

/// `directory` is where the engine stores its objects as files.
async fn conforms(blobs: &Blobs, directory: &Path) {
    blobs.check().await.expect("an empty store is ready");
    what_was_put_is_read_back(blobs).await;
    a_missing_blob_is_no_error(blobs).await;
    putting_again_writes_nothing(blobs, directory).await;
    an_old_blob_that_is_put_again_is_renewed(blobs, directory).await;
    a_blob_of_the_wrong_size_is_replaced(blobs, directory).await;
    parts_are_read_by_range(blobs).await;
    a_large_blob_is_streamed_in_pieces(blobs).await;
    many_may_put_the_same_bytes_at_once(blobs).await;
    an_unknown_extension_is_refused(blobs).await;
    a_deleted_blob_is_gone(blobs).await;
    an_original_has_a_blob_of_its_own(blobs, directory).await;
    every_blob_is_listed_and_nothing_else(blobs, directory).await;
    blobs.check().await.expect("a used store is ready");
}

async fn what_was_put_is_read_back(blobs: &Blobs) {
    for (bytes, extension) in [("image", "jpg"), ("image", "webp"), ("", "png")] {
        let key = put(blobs, bytes, extension).await;
        assert_eq!(key, BlobKey::for_bytes(bytes.as_bytes(), extension).expect("a known extension"));
        assert!(blobs.exists(&key).await.expect("an answer"));
        assert_eq!(read(blobs, &key).await, bytes);

        let blob = blobs.open(&key, None).await.expect("an answer").expect("it is there");
        assert_eq!((blob.size, blob.range.clone()), (bytes.len() as u64, 0..bytes.len() as u64));
        let age = SystemTime::now().duration_since(blob.modified).unwrap_or_default();
        assert!(age < Duration::from_secs(60), "stored {age:?} ago");
        assert_eq!(collect(blob).await, bytes);
    }
}

async fn a_missing_blob_is_no_error(blobs: &Blobs) {
    let key = BlobKey::for_bytes(b"never stored", "jpg").expect("a known extension");
    assert!(!blobs.exists(&key).await.expect("an answer"));
    assert_eq!(blobs.read(&key).await.expect("an answer"), None);
    assert!(blobs.open(&key, None).await.expect("an answer").is_none());
    assert!(blobs.open(&key, Some(0..5)).await.expect("an answer").is_none());
    blobs.delete(&key).await.expect("nothing to delete");
}

async fn putting_again_writes_nothing(blobs: &Blobs, directory: &Path) {
    let key = put(blobs, "twice", "png").await;
    set_age(directory, &key, Duration::from_secs(60));
    let before = modified(directory, &key);
    put(blobs, "twice", "png").await;
    assert_eq!(modified(directory, &key), before);
}

async fn an_old_blob_that_is_put_again_is_renewed(blobs: &Blobs, directory: &Path) {
    let key = put(blobs, "old", "png").await;
    set_age(directory, &key, RENEWED_AFTER + Duration::from_secs(60));
    let before = modified(directory, &key);
    put(blobs, "old", "png").await;
    assert!(modified(directory, &key) > before + RENEWED_AFTER);
    assert_eq!(read(blobs, &key).await, "old");
}

async fn a_blob_of_the_wrong_size_is_replaced(blobs: &Blobs, directory: &Path) {
    let key = put(blobs, "complete", "png").await;
    fs::write(directory.join(key.as_str()), "comp").expect("cut short");
    assert_eq!(put(blobs, "complete", "png").await, key);
    assert_eq!(read(blobs, &key).await, "complete");
}

async fn parts_are_read_by_range(blobs: &Blobs) {
    let key = put(blobs, "0123456789", "png").await;
    for (asked, given) in [(0..1, 0..1), (2..5, 2..5), (9..10, 9..10), (5..u64::MAX, 5..10), (0..11, 0..10)] {
        let blob = blobs.open(&key, Some(asked)).await.expect("an answer").expect("it is there");
        assert_eq!((blob.size, blob.range.clone()), (10, given.clone()));
        assert_eq!(collect(blob).await, "0123456789"[given.start as usize..given.end as usize]);
    }
    for outside in [10..11, 11..12, u64::MAX - 1..u64::MAX, 3..3] {
        let error = blobs.open(&key, Some(outside.clone())).await.expect_err("nothing is there");
        assert!(matches!(error, Error::OutOfRange { size: 10 }), "{outside:?}: {error:?}");
        assert_eq!((error.code(), error.is_transient()), (ErrorCode::RangeNotSatisfiable, false));
    }
}

async fn a_large_blob_is_streamed_in_pieces(blobs: &Blobs) {
    let bytes: Bytes = (0..5 * 1024 * 1024_u32).map(|place| (place % 251) as u8).collect();
    let key = blobs.put(bytes.clone(), "bmp").await.expect("stored");
    let blob = blobs.open(&key, None).await.expect("an answer").expect("it is there");
    let pieces: Vec<Bytes> = blob.stream.try_collect().await.expect("read to the end");
    assert!(pieces.len() > 1, "one piece of {} bytes", bytes.len());
    assert!(pieces.concat() == bytes, "other bytes were returned");
}

async fn many_may_put_the_same_bytes_at_once(blobs: &Blobs) {
    let puts = (0..16).map(|_| blobs.put(Bytes::from("popular"), "gif"));
    let keys = future::try_join_all(puts).await.expect("all are stored");
    assert!(keys.iter().all(|key| *key == keys[0]));
    assert_eq!(read(blobs, &keys[0]).await, "popular");
}

async fn an_unknown_extension_is_refused(blobs: &Blobs) {
    for extension in ["svg", "exe", "", "JPG", "../x"] {
        let error = blobs.put(Bytes::from("bytes"), extension).await.expect_err("no image");
        assert_eq!((error.code(), error.is_transient()), (ErrorCode::Internal, false));
    }
}

async fn a_deleted_blob_is_gone(blobs: &Blobs) {
    let key = put(blobs, "short-lived", "png").await;
    for _ in 0..2 {
        blobs.delete(&key).await.expect("deleted");
        assert!(!blobs.exists(&key).await.expect("an answer"));
    }
    assert_eq!(put(blobs, "short-lived", "png").await, key);
    assert_eq!(read(blobs, &key).await, "short-lived");
}

async fn an_original_has_a_blob_of_its_own(blobs: &Blobs, directory: &Path) {
    let rendition = put(blobs, "uploaded", "png").await;
    let original = blobs.put_original(Bytes::from("uploaded"), "png").await.expect("stored");
    assert_eq!(original, rendition.as_original());
    blobs.delete(&rendition).await.expect("deleted");
    assert_eq!(read(blobs, &original).await, "uploaded");
    assert!(blobs.prove(&original).await.expect("an answer"));
    fs::write(directory.join(original.as_str()), "changed").expect("written");
    assert!(!blobs.prove(&original).await.expect("an answer"));
    let listed: Vec<_> = blobs.list().try_collect().await.expect("a list");
    assert!(listed.iter().any(|found| found.key == original));
    blobs.delete(&original).await.expect("deleted");
    assert!(!blobs.exists(&original).await.expect("an answer"));
}

async fn every_blob_is_listed_and_nothing_else(blobs: &Blobs, directory: &Path) {
    fs::write(directory.join("notes.txt"), "not a blob").expect("written");
    let key = put(blobs, "listed", "png").await;
    fs::write(directory.join(format!("{key}#1")), "unfinished").expect("written");

    let listed: Vec<_> = blobs.list().try_collect().await.expect("a list");
    let found = listed.iter().find(|found| found.key == key).expect("it is listed");
    assert_eq!(found.size, 6);
    let mut keys: Vec<_> = listed.iter().map(|found| &found.key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), listed.len());
    for found in &listed {
        let bytes = blobs.read(&found.key).await.expect("an answer").expect("it is there");
        assert_eq!(BlobKey::for_bytes(&bytes, found.key.extension()).as_ref(), Some(&found.key));
    }
}

#[tokio::test]
async fn a_missing_bucket_is_not_ready() {
    let server = S3Server::start().await;
    let engine = Engine::S3 { bucket: "missing".to_owned(), prefix: String::new(), options: server.options() };
    let error = connect(&engine).await.check().await.expect_err("no bucket");
    assert_eq!((error.code(), error.is_transient()), (ErrorCode::StorageUnavailable, true));
}

#[tokio::test]
async fn wrong_credentials_are_not_ready_and_store_nothing() {
    let server = S3Server::start().await;
    let options = server.options().with("aws_secret_access_key", "guessed");
    let blobs = connect(&Engine::S3 { bucket: server.bucket().to_owned(), prefix: String::new(), options }).await;
    assert_eq!(blobs.check().await.expect_err("an invalid signature").code(), ErrorCode::StorageUnavailable);
    let error = blobs.put(Bytes::from("bytes"), "png").await.expect_err("an invalid signature");
    assert_eq!((error.code(), error.is_transient()), (ErrorCode::StorageUnavailable, true));
}

#[tokio::test]
async fn a_stopped_s3_server_is_unavailable() {
    let server = S3Server::start().await;
    let blobs = connect(&server.engine("")).await;
    let key = put(&blobs, "bytes", "png").await;
    drop(server);
    let error = blobs.read(&key).await.expect_err("no server answers");
    assert_eq!((error.code(), error.is_transient()), (ErrorCode::StorageUnavailable, true));
}

async fn connect(engine: &Engine) -> Blobs {
    Blobs::connect(engine).await.expect("a store")
}

async fn put(blobs: &Blobs, bytes: &'static str, extension: &str) -> BlobKey {
    blobs.put(Bytes::from(bytes), extension).await.expect("stored")
}

async fn read(blobs: &Blobs, key: &BlobKey) -> Bytes {
    blobs.read(key).await.expect("an answer").expect("it is there")
}

async fn collect(blob: Blob) -> BytesMut {
    blob.stream.try_collect().await.expect("read to the end")
}

fn modified(directory: &Path, key: &BlobKey) -> SystemTime {
    fs::metadata(directory.join(key.as_str())).and_then(|file| file.modified()).expect("the blob's file")
}

fn set_age(directory: &Path, key: &BlobKey, age: Duration) {
    let file = fs::File::options().write(true).open(directory.join(key.as_str())).expect("the blob's file");
    file.set_modified(SystemTime::now() - age).expect("a time");
}
