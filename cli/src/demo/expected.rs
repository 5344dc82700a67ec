//! The demo's input, and the board that it must give, computed straight from the file.
//!
//! Deliberately shares no code with the service: another CSV reader, sorted lists where the service counts, wide
//! arithmetic. What both agree on is only the JSON that `GET /board` shows.

use std::collections::BTreeMap;
use std::io::Read;

use serde_json::{Map, Value, json};

/// `cli/data/SOURCE.md` says where it comes from.
const FILE: &[u8] = include_bytes!("../../data/flights-2013-01.csv.gz");

/// How many flights the file holds.
pub const FLIGHTS: usize = 27_004;

/// The flights of the file, one line each, in its order.
///
/// # Errors
/// If the embedded file is damaged.
pub fn flights() -> Result<Vec<String>, std::io::Error> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(FILE).read_to_string(&mut text)?;
    Ok(text.lines().skip(1).map(str::to_owned).collect())
}

/// One column of a sheet of delays.
#[derive(Default)]
struct Column {
    cancelled: u64,
    /// Delay and line of everything that left.
    departed: Vec<(i64, String)>,
}

/// The board after the file was sent `rounds` times.
///
/// # Errors
/// If a line cannot be read.
pub fn board(lines: &[String], rounds: usize) -> Result<Value, csv::Error> {
    let (mut carriers, mut routes): (BTreeMap<String, Column>, BTreeMap<String, Column>) = Default::default();
    let text = lines.join("\n");
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    for (row, line) in reader.records().zip(lines) {
        let row = row?;
        let route = format!("{}-{}", &row[10], &row[11]);
        for column in [carriers.entry(row[7].to_owned()).or_default(), routes.entry(route).or_default()] {
            for _ in 0..rounds {
                match row[4].parse::<i64>() {
                    Ok(delay) => column.departed.push((delay, line.clone())),
                    Err(_) => column.cancelled += 1,
                }
            }
        }
    }
    Ok(json!({"flights": lines.len() * rounds, "carriers": shown(carriers), "routes": shown(routes)}))
}

fn shown(columns: BTreeMap<String, Column>) -> Map<String, Value> {
    columns.into_iter().map(|(name, column)| (name, column.figures())).collect()
}

impl Column {
    fn figures(mut self) -> Value {
        let sum: i128 = self.departed.iter().map(|(delay, _)| i128::from(*delay)).sum();
        let left = self.departed.len();
        let mean = if left == 0 { 0 } else { (sum * 1000).div_euclid(left as i128) };
        self.departed.sort();
        let at_rank = |percent: usize| self.departed.get((left * percent).div_ceil(100).max(1) - 1).map(|(d, _)| *d);
        let (p50, p95) = (at_rank(50), at_rank(95));
        self.departed.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let worst: Vec<&String> = self.departed.iter().take(10).map(|(_, line)| line).collect();
        json!({
            "flights": left as u64 + self.cancelled,
            "cancelled": self.cancelled,
            "delay_sum_min": i64::try_from(sum).unwrap_or(i64::MAX),
            "mean_delay_millimin": i64::try_from(mean).unwrap_or(i64::MAX),
            "p50_delay_min": p50,
            "p95_delay_min": p95,
            "worst": worst,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use broker_adapter::shell::sim::SimWorld;

    use super::*;
    use crate::rest::Rest;

    #[test]
    fn the_file_holds_the_flights_of_january_2013() {
        let lines = flights().unwrap();
        let board = board(&lines, 1).unwrap();
        assert_eq!(board["flights"], FLIGHTS);
        let carriers = board["carriers"].as_object().unwrap();
        assert_eq!(carriers.values().map(|c| c["cancelled"].as_u64().unwrap()).sum::<u64>(), 521);
        assert_eq!(carriers.values().map(|c| c["flights"].as_u64().unwrap()).sum::<u64>(), 27_004);
    }

    #[test]
    fn the_service_and_the_separate_code_show_the_same_board() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (shell, _tasks) = SimWorld::new(1).process();
            let address = crate::board::serve("board:80", 0, shell.clone()).await.unwrap();
            let rest = Rest::new(&format!("http://{address}"), shell, Duration::from_secs(60)).unwrap();
            let lines: Vec<String> = flights().unwrap().into_iter().step_by(97).collect();
            for line in lines.iter().chain(lines.iter().rev()) {
                let answer = rest.call("POST", "/flights", "text/csv", line.clone().into()).await.unwrap();
                assert_eq!(answer.status, 200);
            }
            assert_eq!(rest.get("/board").await.unwrap().json(), board(&lines, 2).unwrap());
        });
    }
}
