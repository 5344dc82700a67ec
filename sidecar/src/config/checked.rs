//! Checks while a configuration is read, so that whoever reads it from a file can name line and key.
//!
//! A check of one value is a `deserialize_with`; one that looks at several keys of a table is a [`Checked`] of the table. Both fail
//! inside the deserializer of what is wrong, whose place the error gets.

use std::fmt;
use std::marker::PhantomData;

use broker_adapter::settings::Settings;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, MapAccess, Visitor};

use super::BODY_LIMIT_MAX_BYTES;

/// A table whose keys must fit together.
pub(super) trait Checked: DeserializeOwned {
    /// What it is, for people.
    const WHAT: &'static str;

    /// Says which keys do not fit, and what to do.
    fn check(&self) -> Result<(), String>;
}

/// A list of such tables.
pub(super) fn list<'de, D: Deserializer<'de>, T: Checked>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let tables = Vec::<Table<T>>::deserialize(deserializer)?;
    Ok(tables.into_iter().map(|table| table.0).collect())
}

struct Table<T>(T);

impl<'de, T: Checked> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TableVisitor(PhantomData)).map(Table)
    }
}

struct TableVisitor<T>(PhantomData<T>);

impl<'de, T: Checked> Visitor<'de> for TableVisitor<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(T::WHAT)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        let table = T::deserialize(MapAccessDeserializer::new(map))?;
        table.check().map_err(A::Error::custom)?;
        Ok(table)
    }
}

/// A limit that holds nothing at 0.
pub(super) fn at_least_one<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default + PartialEq,
{
    let limit = T::deserialize(deserializer)?;
    if limit == T::default() { Err(D::Error::custom("it must be at least 1: with 0 nothing works")) } else { Ok(limit) }
}

/// A body is held in memory whole.
pub(super) fn body_limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let limit = u64::deserialize(deserializer)?;
    if (1..=BODY_LIMIT_MAX_BYTES).contains(&limit) {
        return Ok(limit);
    }
    Err(D::Error::custom(format!(
        "{limit} bytes cannot hold: a body is held in memory whole, so choose 1 to {BODY_LIMIT_MAX_BYTES}"
    )))
}

/// Parameters of a shard with which it can work.
pub(super) fn settings<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Settings>, D::Error> {
    let settings = Settings::deserialize(deserializer)?;
    let limits = [
        ("keys_remembered", settings.keys_remembered, 2),
        ("replies_kept", settings.replies_kept, 2),
        ("replies_kept_bytes", settings.replies_kept_bytes, 1),
        ("reply_limit_bytes", settings.reply_limit_bytes, 1),
        ("pin_limit_records", settings.pin_limit_records, 1),
        ("digest_every_records", settings.digest_every_records, 1),
        ("digest_every_ms", settings.digest_every_ms, 1),
        ("failover_after_ms", settings.failover_after_ms, 1),
    ];
    match limits.into_iter().find(|(_, value, least)| value < least) {
        Some((key, value, least)) => {
            Err(D::Error::custom(format!("{key} = {value} cannot hold: it must be at least {least}")))
        }
        None if settings.reply_limit_bytes > settings.replies_kept_bytes => Err(D::Error::custom(format!(
            "replies_kept_bytes = {} cannot hold: it must be at least reply_limit_bytes = {}, or such a reply could not be kept",
            settings.replies_kept_bytes, settings.reply_limit_bytes
        ))),
        None => Ok(Some(settings)),
    }
}
