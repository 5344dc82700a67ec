//! How results are written: tables for people, JSON for programs; data to one place, messages to another.

use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{Table, presets};
use serde_json::Value;

use super::args::Form;

/// Where everything goes that a command says.
pub struct Out {
    /// Results.
    pub data: Box<dyn Write>,
    /// What is said beside them.
    pub notes: Box<dyn Write>,
    /// Whether notes may be written over: a terminal, and nobody asked for plain text.
    pub live: bool,
    /// The form of results.
    pub form: Form,
}

/// One column: its title and the text of a cell.
pub type Column<'a> = (&'static str, &'a dyn Fn(&Value) -> String);

impl Out {
    /// One line beside the results.
    ///
    /// # Errors
    /// If nobody reads.
    pub fn note(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.notes, "{line}")
    }

    /// A list: a table, one JSON array, or a line for each.
    ///
    /// # Errors
    /// If nobody reads.
    pub fn list(&mut self, items: &[Value], columns: &[Column<'_>]) -> io::Result<()> {
        match self.form {
            Form::Table => {
                let rows = items.iter().map(|item| columns.iter().map(|(_, cell)| cell(item)).collect()).collect();
                let titles: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
                self.table(&titles, rows)
            }
            Form::Json => writeln!(self.data, "{:#}", Value::Array(items.to_vec())),
            Form::Jsonl => items.iter().try_for_each(|item| writeln!(self.data, "{item}")),
        }
    }

    /// One thing: lines of names and values, or its JSON.
    ///
    /// # Errors
    /// If nobody reads.
    pub fn one(&mut self, item: &Value, lines: &[(&str, String)]) -> io::Result<()> {
        match self.form {
            Form::Table => {
                let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
                for (name, value) in lines.iter().filter(|(_, value)| !value.is_empty()) {
                    writeln!(self.data, "{name:<width$}  {value}")?;
                }
                Ok(())
            }
            Form::Json => writeln!(self.data, "{item:#}"),
            Form::Jsonl => writeln!(self.data, "{item}"),
        }
    }

    /// Rows below titles, if people read; nothing otherwise.
    ///
    /// # Errors
    /// If nobody reads.
    pub fn table(&mut self, titles: &[&str], rows: Vec<Vec<String>>) -> io::Result<()> {
        if self.form != Form::Table {
            return Ok(());
        }
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(titles.iter().map(|title| title.to_uppercase()));
        for row in rows {
            table.add_row(row);
        }
        let last = table.column_count();
        for column in table.column_iter_mut() {
            let right = if column.index + 1 == last { 0 } else { 2 };
            column.set_padding((0, right));
        }
        for line in table.to_string().lines() {
            writeln!(self.data, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A member as people read it: nothing is `-`.
#[must_use]
pub fn text(item: &Value, pointer: &str) -> String {
    match item.pointer(pointer) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) if parts.is_empty() => "-".to_owned(),
        Some(Value::Array(parts)) => parts.iter().map(|part| text(part, "")).collect::<Vec<_>>().join(", "),
        Some(other) => other.to_string(),
    }
}

/// A member that is milliseconds, as a duration.
#[must_use]
pub fn duration(item: &Value, pointer: &str) -> String {
    item.pointer(pointer).and_then(Value::as_f64).map_or("-".to_owned(), |ms| short(ms / 1e3))
}

/// A member that is a wall time, as the time since then.
#[must_use]
pub fn ago(item: &Value, pointer: &str, now_ms: u64) -> String {
    let Some(at_ms) = item.pointer(pointer).and_then(Value::as_u64) else { return "-".to_owned() };
    let s = Duration::from_millis(now_ms.saturating_sub(at_ms)).as_secs();
    match s {
        0..60 => format!("{s} s ago"),
        60..3_600 => format!("{} min ago", s / 60),
        3_600..86_400 => format!("{} h ago", s / 3_600),
        _ => format!("{} d ago", s / 86_400),
    }
}

/// Bytes in decimal units.
#[must_use]
pub fn bytes(item: &Value, pointer: &str) -> String {
    let Some(bytes) = item.pointer(pointer).and_then(Value::as_f64) else { return "-".to_owned() };
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1_000.0 && unit + 1 < units.len() {
        value /= 1_000.0;
        unit += 1;
    }
    if unit == 0 { format!("{value} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// Seconds with the unit that fits.
fn short(seconds: f64) -> String {
    if seconds < 1.0 {
        return format!("{} ms", (seconds * 1e4).round() / 10.0);
    }
    if seconds < 120.0 { format!("{seconds:.1} s") } else { format!("{:.0} min", seconds / 60.0) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_are_read_as_people_say_them() {
        let item = json!({"ms": 12.34, "s": 4_200, "min": 240_000, "at": 1_000, "bytes": 268_435_456, "few": 512, "a": ["x", "y"]});
        assert_eq!(["/ms", "/s", "/min", "/none"].map(|at| duration(&item, at)), ["12.3 ms", "4.2 s", "4 min", "-"]);
        assert_eq!((ago(&item, "/at", 63_000), ago(&item, "/at", 900)), ("1 min ago".to_owned(), "0 s ago".to_owned()));
        assert_eq!((bytes(&item, "/bytes"), bytes(&item, "/few")), ("268.4 MB".to_owned(), "512 B".to_owned()));
        assert_eq!((text(&item, "/a"), text(&item, "/b")), ("x, y".to_owned(), "-".to_owned()));
    }
}
