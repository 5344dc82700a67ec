//! A line for each cell that was played, in a file: a table that was stopped goes on where it was.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::harness::Migration;

/// What is kept of a cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its name.
    pub cell: String,
    /// How the migration ended.
    pub outcome: String,
    /// The causes of all counted fences.
    pub fences: Vec<String>,
    /// What the migrator said about the end.
    pub error: Option<String>,
    /// Whether the fault fell into its phase.
    pub proven: bool,
    /// What shows that, or denies it.
    pub proof: String,
    /// What the oracle found, and whatever else was wrong.
    pub wrong: Vec<String>,
    /// How long it took once everything was started.
    pub ms: u64,
}

impl Line {
    /// A cell that was not played yet.
    #[must_use]
    pub fn of(cell: &impl fmt::Display) -> Line {
        Line {
            cell: cell.to_string(),
            outcome: "none".to_owned(),
            fences: Vec::new(),
            error: None,
            proven: false,
            proof: String::new(),
            wrong: Vec::new(),
            ms: 0,
        }
    }

    pub(super) fn take(
        &mut self,
        ended: Migration,
        proof: Result<String, String>,
        fences: Vec<String>,
        wrong: Vec<String>,
    ) {
        self.outcome = ended.outcome.unwrap_or_else(|| "none".to_owned());
        self.error = ended.error.map(|error| error.as_str().map_or_else(|| error.to_string(), str::to_owned));
        self.fences = fences;
        self.proven = proof.is_ok();
        self.proof = proof.unwrap_or_else(|denied| denied);
        self.wrong = wrong;
    }

    /// Whether the fault happened in its phase and cost nothing.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.proven && self.wrong.is_empty()
    }
}

/// The file. Of a cell that was played again the last line counts.
pub struct Record {
    file: Option<File>,
    lines: BTreeMap<String, Line>,
}

impl Record {
    /// Reads what is there; without a path nothing is kept. A last line that was cut off counts as never written.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(path: Option<&Path>) -> io::Result<Record> {
        let Some(path) = path else { return Ok(Record { file: None, lines: BTreeMap::new() }) };
        let text = if path.exists() { std::fs::read_to_string(path)? } else { String::new() };
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let lines = lines.map(|line| (line.cell.clone(), line)).collect();
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        Ok(Record { file: Some(file), lines })
    }

    /// What came of a cell, if it was played.
    #[must_use]
    pub fn of(&self, cell: &impl fmt::Display) -> Option<&Line> {
        self.lines.get(&cell.to_string())
    }

    /// Writes one more.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn add(&mut self, line: Line) -> io::Result<()> {
        let text = serde_json::to_string(&line).map_err(io::Error::other)?;
        if let Some(file) = &mut self.file {
            file.write_all(format!("{text}\n").as_bytes())?;
        }
        self.lines.insert(line.cell.clone(), line);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cells::table;

    #[test]
    fn a_cell_that_was_played_again_counts_as_it_ended_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cells.jsonl");
        let cell = table()[0];
        let mut record = Record::open(Some(&path)).expect("a new file");
        record.add(Line { wrong: vec!["lost".to_owned()], ..Line::of(&cell) }).expect("it is written");
        record.add(Line { proven: true, ..Line::of(&cell) }).expect("it is written");
        record.file.as_mut().expect("it has one").write_all(b"{\"cell\": \"li").expect("it is written");
        let record = Record::open(Some(&path)).expect("the file is there");
        assert!(record.of(&cell).is_some_and(Line::is_clean));
        assert_eq!(record.lines.len(), 1);
    }
}
