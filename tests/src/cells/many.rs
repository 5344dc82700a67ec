//! Plays many cells, some at a time: most of a cell is waiting.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};

use super::play::play;
use super::{Cell, Line, Record};

/// What is to be played.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The cells.
    pub cells: Vec<Cell>,
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
pub fn soak(asked: &Asked, record: &mut Record, mut goes_on: impl FnMut(&Line) -> bool) -> io::Result<Vec<Line>> {
    let open = asked.cells.iter().filter(|cell| !record.of(cell).is_some_and(Line::is_clean));
    let open: Vec<Cell> = open.copied().collect();
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
                    if lines.send(play(&cell, logs)).is_err() {
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
