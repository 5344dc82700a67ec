//! Where checkpoints are, as configurations say it: `broker`, `file:///PATH` or `s3://BUCKET/PREFIX`.
//!
//! Checked when it is read, so that a configuration's error names line and key. A text that may hold credentials is never repeated.

use std::fmt;
use std::path::{Component, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::embedded::objects::check_name;

/// What S3 allows as a bucket's name.
const BUCKET_NAME_BYTES: std::ops::RangeInclusive<usize> = 3..=63;
/// The longest prefix: S3's keys may have 1,024 bytes, and the names of objects have up to 512.
const PREFIX_LIMIT_BYTES: usize = 500;

/// Where the checkpoints of a service are; the same on every node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CheckpointsAt {
    /// Where the broker keeps them.
    #[default]
    Broker,
    /// In a folder that every node reaches under the same or another path.
    Folder(PathBuf),
    /// In a bucket of S3, or of a server that speaks its protocol.
    Bucket {
        /// Its name.
        bucket: String,
        /// What all names begin with; empty if all of the bucket is ours.
        prefix: String,
    },
}

/// What is wrong with such a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// Nobody knows this scheme.
    #[error("{0:?} is no place for checkpoints: use \"broker\", \"file:///PATH\" or \"s3://BUCKET/PREFIX\"")]
    UnknownScheme(String),
    /// The folder is not told so that all understand it.
    #[error("{0:?} is no folder: write \"file://\" and an absolute path without \"..\", as in \"file:///srv/segue\"")]
    BadFolder(String),
    /// No such bucket or prefix is possible.
    #[error(
        "this is no bucket: write \"s3://BUCKET\" or \"s3://BUCKET/PREFIX\" (a-z, 0-9, '-', '.', in the prefix also A-Z, '_', '/'); \
         credentials and endpoint come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL, never from here"
    )]
    BadBucket,
    /// This program cannot.
    #[error("s3:// needs the feature \"s3\", which this program was built without: cargo build --features s3")]
    NotBuiltIn,
}

impl FromStr for CheckpointsAt {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<CheckpointsAt, PlaceError> {
        if text == "broker" {
            return Ok(CheckpointsAt::Broker);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            // An absolute path is what people forget the scheme of; other texts could be anything.
            let known = if text.starts_with(['/', '.']) || !text.contains([':', '@']) { text } else { "…" };
            return Err(PlaceError::UnknownScheme(known.to_owned()));
        };
        match scheme {
            "file" => folder(rest).ok_or_else(|| PlaceError::BadFolder(text.to_owned())),
            "s3" => {
                let place = bucket(rest).ok_or(PlaceError::BadBucket)?;
                if cfg!(feature = "s3") { Ok(place) } else { Err(PlaceError::NotBuiltIn) }
            }
            other => Err(PlaceError::UnknownScheme(format!("{other}://"))),
        }
    }
}

fn folder(path: &str) -> Option<CheckpointsAt> {
    let path = PathBuf::from(path);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    (path.is_absolute() && plain && path.file_name().is_some()).then_some(CheckpointsAt::Folder(path))
}

fn bucket(text: &str) -> Option<CheckpointsAt> {
    let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
    let prefix = prefix.trim_end_matches('/');
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    let good_bucket = BUCKET_NAME_BYTES.contains(&bucket.len())
        && bucket.bytes().all(allowed)
        && bucket.starts_with(|first: char| first.is_ascii_alphanumeric());
    let good_prefix = prefix.is_empty() || (prefix.len() <= PREFIX_LIMIT_BYTES && check_name(prefix).is_ok());
    let place = CheckpointsAt::Bucket { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
    (good_bucket && good_prefix).then_some(place)
}

impl fmt::Display for CheckpointsAt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointsAt::Broker => formatter.write_str("broker"),
            CheckpointsAt::Folder(path) => write!(formatter, "file://{}", path.display()),
            CheckpointsAt::Bucket { bucket, prefix } if prefix.is_empty() => write!(formatter, "s3://{bucket}"),
            CheckpointsAt::Bucket { bucket, prefix } => write!(formatter, "s3://{bucket}/{prefix}"),
        }
    }
}

impl TryFrom<String> for CheckpointsAt {
    type Error = PlaceError;

    fn try_from(text: String) -> Result<CheckpointsAt, PlaceError> {
        text.parse()
    }
}

impl From<CheckpointsAt> for String {
    fn from(place: CheckpointsAt) -> String {
        place.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        for text in ["broker", "file:///srv/segue", "file:///a b/c"] {
            assert_eq!(text.parse::<CheckpointsAt>().map(|place| place.to_string()), Ok(text.to_owned()));
        }
        let read = "s3://a-bucket/some/Prefix_1/".parse::<CheckpointsAt>();
        let bucket = CheckpointsAt::Bucket { bucket: "a-bucket".into(), prefix: "some/Prefix_1".into() };
        assert_eq!(read, if cfg!(feature = "s3") { Ok(bucket) } else { Err(PlaceError::NotBuiltIn) });
    }

    #[test]
    fn a_place_that_cannot_be_is_refused_with_advice() {
        for (text, words) in [
            ("", "is no place"),
            ("/srv/segue", "\"/srv/segue\" is no place"),
            ("ftp://host/x", "\"ftp://\" is no place"),
            ("file://srv/segue", "absolute path"),
            ("file://./x", "absolute path"),
            ("file:///", "absolute path"),
            ("file:///a/../b", "absolute path"),
            ("s3://", "no bucket"),
            ("s3://UPPER", "no bucket"),
            ("s3://bucket/../x", "no bucket"),
            ("s3://bucket//x", "no bucket"),
        ] {
            let said = text.parse::<CheckpointsAt>().expect_err("no such place").to_string();
            assert!(said.contains(words), "{text:?}: {said}");
        }
    }

    #[test]
    fn credentials_in_a_place_are_refused_and_not_repeated() {
        for text in ["s3://KEY:hidden@bucket/x", "https://KEY:hidden@host/bucket", "KEY:hidden@bucket"] {
            let said = text.parse::<CheckpointsAt>().expect_err("no credentials there").to_string();
            assert!(!said.contains("hidden"), "{said}");
        }
    }

    #[test]
    fn s3_without_its_feature_is_refused_by_the_features_name() {
        assert!(PlaceError::NotBuiltIn.to_string().contains("feature \"s3\""));
    }
}
