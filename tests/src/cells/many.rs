//! Plays many cells, some at a time: most of a cell is waiting.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};

use super::{Line, Record};

/// A cell of some table; its name is its place.
pub trait Playable: fmt::Display + Clone + Send + Sync {
    /// Plays it; `logs` gets what all processes wrote if something was wrong.
    fn play(&self, logs: Option<&Path>) -> Line;
}

/// What is to be played.
#[derive(Clone, Debug, Default)]
pub struct Asked<C> {
    /// The cells.
    pub cells: Vec<C>,
    /// How many at a time.
    pub at_a_time: usize,
    /// Where the logs of wrong cells go.
    pub logs: Option<PathBuf>,
}

/// Plays the cells that the record does not have as clean, and gives a line for each that was played.
/// No new one begins once `goes_on` says no.
///
/// # Errors
/// The record cannot be written.
pub fn soak<C: Playable>(
    asked: &Asked<C>,
    record: &mut Record,
    mut goes_on: impl FnMut(&Line) -> bool,
) -> io::Result<Vec<Line>> {
    let open = asked.cells.iter().filter(|cell| !record.of(*cell).is_some_and(Line::is_clean));
    let open: Vec<C> = open.cloned().collect();
    let cells = Mutex::new(open.into_iter());
    let stopped = AtomicBool::new(false);
    let (lines, played) = mpsc::channel();
    let mut all = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..asked.at_a_time.max(1) {
            let (cells, stopped, lines, logs) = (&cells, &stopped, lines.clone(), asked.logs.as_deref());
            scope.spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    let next = cells.lock().expect("taking a cell does not panic").next();
                    let Some(cell) = next else { return };
                    if lines.send(cell.play(logs)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(lines);
        for line in played {
            if !goes_on(&line) {
                stopped.store(true, Ordering::Relaxed);
            }
            record.add(line.clone())?;
            all.push(line);
        }
        Ok(all)
    })
}
