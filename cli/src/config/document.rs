//! A TOML document with values laid over it, in which every value still knows where it was said.
//!
//! The spans of the file's values are places in its text; those of the n-th override lie behind the text's end, so an
//! error's span alone tells who said what is wrong.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

use super::{ConfigError, Override};

/// The file's tables, and what was laid over them.
pub struct Document<'i> {
    name: &'i str,
    text: &'i str,
    tables: Spanned<DeTable<'i>>,
    overrides: Vec<&'i Override>,
}

impl<'i> Document<'i> {
    /// Reads the file's text.
    ///
    /// # Errors
    /// If it is no TOML.
    pub fn parse(name: &'i str, text: &'i str) -> Result<Document<'i>, ConfigError> {
        match DeTable::parse(text) {
            Ok(tables) => Ok(Document { name, text, tables, overrides: Vec::new() }),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                Err(in_file(name, text, at, String::new(), error.message()))
            }
        }
    }

    /// Lays a value over what is there.
    ///
    /// # Errors
    /// If its key goes through something that has no parts.
    pub fn set(&mut self, overriding: &'i Override) -> Result<(), ConfigError> {
        let place = self.place(self.overrides.len());
        self.overrides.push(overriding);
        let value = match DeValue::parse(&overriding.value) {
            Ok(value) => at_place(value, &place),
            Err(_) => Spanned::new(place.clone(), DeValue::String(Cow::Borrowed(&overriding.value))),
        };
        put_in_table(self.tables.get_mut(), &overriding.path, value, &place).map_err(|reason| ConfigError::InOverride {
            said_by: overriding.said_by.clone(),
            key: overriding.path.join("."),
            reason,
        })
    }

    /// The configuration.
    ///
    /// # Errors
    /// Names the file's line and key, or the override, that is wrong.
    pub fn into_config<T: DeserializeOwned>(self) -> Result<T, ConfigError> {
        let Document { name, text, tables, overrides } = self;
        T::deserialize(Deserializer::from(tables.clone())).map_err(|error| {
            let span = error.span().unwrap_or_default();
            if span.start > text.len() {
                let overriding = overrides[span.start - text.len() - 1];
                return ConfigError::InOverride {
                    said_by: overriding.said_by.clone(),
                    key: overriding.path.join("."),
                    reason: one_line(error.message()),
                };
            }
            let key = path_at(tables.get_ref(), &span).unwrap_or_default().join(".");
            let whole = span.start == 0 && (span.end == text.len() || span.is_empty());
            if error.message().starts_with("missing field") && whole {
                let where_to = name.to_owned();
                return ConfigError::Missing { reason: one_line(error.message()), where_to };
            }
            in_file(name, text, span.start, key, error.message())
        })
    }

    fn place(&self, number: usize) -> Range<usize> {
        let start = self.text.len() + 1 + number;
        start..start + 1
    }
}

fn in_file(name: &str, text: &str, at: usize, key: String, reason: &str) -> ConfigError {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    ConfigError::InFile {
        path: name.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        key,
        reason: one_line(reason),
    }
}

fn one_line(message: &str) -> String {
    message.trim().replace('\n', "; ")
}

/// Puts a value and all inside it at one place.
fn at_place<'i>(value: Spanned<DeValue<'i>>, place: &Range<usize>) -> Spanned<DeValue<'i>> {
    let value = match value.into_inner() {
        DeValue::Array(array) => {
            DeValue::Array(array.into_iter().map(|value| at_place(value, place)).collect::<DeArray<'i>>())
        }
        DeValue::Table(table) => {
            let mut moved = DeTable::new();
            for (key, value) in table {
                moved.insert(Spanned::new(place.clone(), key.into_inner()), at_place(value, place));
            }
            DeValue::Table(moved)
        }
        other => other,
    };
    Spanned::new(place.clone(), value)
}

fn put_in_table<'i>(
    table: &mut DeTable<'i>,
    path: &'i [String],
    value: Spanned<DeValue<'i>>,
    place: &Range<usize>,
) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else {
        return Err("the key is empty".to_owned());
    };
    if rest.is_empty() {
        // The key moves too: if it is unknown, whoever said it last is to be told.
        table.remove(first.as_str());
        table.insert(Spanned::new(place.clone(), Cow::Borrowed(first.as_str())), value);
        return Ok(());
    }
    let is_list = rest[0].parse::<usize>().is_ok();
    let inner = table.entry(Spanned::new(place.clone(), Cow::Borrowed(first.as_str()))).or_insert_with(|| {
        let empty = if is_list { DeValue::Array(DeArray::new()) } else { DeValue::Table(DeTable::new()) };
        Spanned::new(place.clone(), empty)
    });
    put_in_value(inner, first, rest, value, place)
}

fn put_in_value<'i>(
    inner: &mut Spanned<DeValue<'i>>,
    name: &str,
    path: &'i [String],
    value: Spanned<DeValue<'i>>,
    place: &Range<usize>,
) -> Result<(), String> {
    match inner.get_mut() {
        DeValue::Table(table) => put_in_table(table, path, value, place),
        DeValue::Array(array) => {
            let length = array.len();
            let index = path[0].parse::<usize>().ok().filter(|index| *index <= length).ok_or_else(|| {
                format!("{name} is a list of {length}: go on with a number from 0 to {length}, not {:?}", path[0])
            })?;
            if index == length {
                array.push(Spanned::new(place.clone(), DeValue::Table(DeTable::new())));
            }
            if path.len() == 1 {
                array.as_mut()[index] = value;
                return Ok(());
            }
            put_in_value(&mut array.as_mut()[index], &path[0], &path[1..], value, place)
        }
        other => Err(format!("{name} is a {} and has no parts", other.type_str())),
    }
}

/// The deepest key whose name or value stands at this place.
fn path_at(table: &DeTable<'_>, span: &Range<usize>) -> Option<Vec<String>> {
    table.iter().find_map(|(key, value)| {
        let deeper = path_in(value, span);
        let here = key.span() == *span || value.span() == *span;
        let found = deeper.or_else(|| here.then(Vec::new))?;
        Some([vec![key.get_ref().to_string()], found].concat())
    })
}

fn path_in(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<Vec<String>> {
    match value.get_ref() {
        DeValue::Table(table) => path_at(table, span),
        DeValue::Array(array) => array.iter().enumerate().find_map(|(index, value)| {
            let found = path_in(value, span).or_else(|| (value.span() == *span).then(Vec::new))?;
            Some([vec![index.to_string()], found].concat())
        }),
        _ => None,
    }
}
