//! A line for each seed that was played, in a file: a soak that was stopped goes on where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::sim::Report;

/// What is kept of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Which.
    pub seed: u64,
    /// Requests sent.
    pub messages: usize,
    /// Requests with a reply.
    pub acknowledged: usize,
    /// How each migration ended.
    pub migrations: Vec<String>,
    /// Faults that fired.
    pub fired: BTreeMap<String, u64>,
    /// What was wrong.
    pub wrong: Vec<String>,
}

impl From<&Report> for Line {
    fn from(report: &Report) -> Line {
        let findings = report.findings.iter().map(ToString::to_string);
        Line {
            seed: report.seed,
            messages: report.messages,
            acknowledged: report.acknowledged,
            migrations: report.migrations.clone(),
            fired: report.fired.clone(),
            wrong: findings.chain(report.broken.iter().cloned()).collect(),
        }
    }
}

/// The file.
pub struct Record {
    file: File,
    lines: Vec<Line>,
}

impl Record {
    /// Reads what is there. A last line that was cut off counts as never written.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(path: &Path) -> io::Result<Record> {
        let text = if path.exists() { std::fs::read_to_string(path)? } else { String::new() };
        let lines: Vec<Line> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        // Two soaks may have written at the same time: a seed is one run.
        let mut seeds = BTreeSet::new();
        let lines = lines.into_iter().filter(|line| seeds.insert(line.seed)).collect();
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        Ok(Record { file, lines })
    }

    /// The seeds that were played.
    #[must_use]
    pub fn seeds(&self) -> BTreeSet<u64> {
        self.lines.iter().map(|line| line.seed).collect()
    }

    /// All lines so far.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Writes one more.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn add(&mut self, line: Line) -> io::Result<()> {
        let text = serde_json::to_string(&line).map_err(io::Error::other)?;
        self.file.write_all(format!("{text}\n").as_bytes())?;
        self.lines.push(line);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seed: u64) -> Line {
        let (migrations, fired, wrong) = (vec!["completed".to_owned()], BTreeMap::new(), Vec::new());
        Line { seed, messages: 320, acknowledged: 300, migrations, fired, wrong }
    }

    #[test]
    fn a_record_goes_on_behind_a_line_that_was_cut_off() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("soak.jsonl");
        let mut record = Record::open(&path).expect("a new file");
        record.add(line(1)).expect("it is written");
        record.file.write_all(b"{\"seed\": 2, \"mess").expect("it is written");
        let mut record = Record::open(&path).expect("the file is there");
        assert_eq!(record.lines(), [line(1)]);
        record.add(line(2)).expect("it is written");
        assert_eq!(Record::open(&path).expect("the file is there").seeds(), BTreeSet::from([1, 2]));
    }
}
