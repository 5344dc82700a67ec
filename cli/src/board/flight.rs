//! One flight as the delay board takes it: one CSV line of 14 fields, of which five matter.
//!
//! The canonical bytes of a flight are its line without the line end; they go into the running hash.

/// The columns of a line, in order.
pub const COLUMNS: [&str; 14] = [
    "year",
    "month",
    "day",
    "sched_dep_time",
    "dep_delay",
    "sched_arr_time",
    "arr_delay",
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
    "air_time",
    "distance",
];

/// The longest line taken; the longest of the real ones has 70 bytes.
pub const LINE_LIMIT_BYTES: usize = 256;

/// Beyond two weeks it is no delay.
const DELAY_LIMIT_MIN: i32 = 20_160;

/// A flight that was read and understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flight {
    /// The canonical line.
    pub line: String,
    /// Two characters.
    pub carrier: String,
    /// `JFK-MIA`.
    pub route: String,
    /// Minutes late at departure; `None` if it was cancelled.
    pub delay_min: Option<i32>,
}

/// Why a line is no flight. The same bytes always give the same error, so replicas agree about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFlight {
    /// Longer than any flight.
    #[error("the line has {found} bytes, at most {LINE_LIMIT_BYTES} are taken")]
    TooLong {
        /// Its length.
        found: usize,
    },
    /// Not text.
    #[error("the line is not UTF-8")]
    NotText,
    /// Too few or too many fields.
    #[error("the line has {found} fields where {expected} were expected: {columns}", expected = COLUMNS.len(), columns = COLUMNS.join(","))]
    Fields {
        /// How many.
        found: usize,
    },
    /// A field that matters is wrong.
    #[error("the field {column} is {found:?}, expected {expected}")]
    Field {
        /// Which one.
        column: &'static str,
        /// What stood there.
        found: String,
        /// What should.
        expected: &'static str,
    },
}

impl Flight {
    /// Reads one line.
    ///
    /// # Errors
    /// [`BadFlight`] says which field is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Flight, BadFlight> {
        if bytes.len() > LINE_LIMIT_BYTES {
            return Err(BadFlight::TooLong { found: bytes.len() });
        }
        let line = std::str::from_utf8(bytes).map_err(|_| BadFlight::NotText)?.trim_end_matches(['\r', '\n']);
        let fields: Vec<&str> = line.split(',').collect();
        let &[_, _, _, _, delay, _, _, carrier, _, _, origin, dest, _, _] = fields.as_slice() else {
            return Err(BadFlight::Fields { found: fields.len() });
        };
        Ok(Flight {
            line: line.to_owned(),
            carrier: code("carrier", carrier, 2, "two letters or digits")?.to_owned(),
            route: format!(
                "{}-{}",
                code("origin", origin, 3, "three letters")?,
                code("dest", dest, 3, "three letters")?
            ),
            delay_min: parse_delay(delay)?,
        })
    }
}

fn code<'a>(column: &'static str, found: &'a str, length: usize, expected: &'static str) -> Result<&'a str, BadFlight> {
    let fits = found.len() == length && found.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    if fits { Ok(found) } else { Err(BadFlight::Field { column, found: found.to_owned(), expected }) }
}

fn parse_delay(found: &str) -> Result<Option<i32>, BadFlight> {
    if found == "NA" {
        return Ok(None);
    }
    match found.parse::<i32>() {
        Ok(minutes) if minutes.abs() <= DELAY_LIMIT_MIN => Ok(Some(minutes)),
        _ => Err(BadFlight::Field {
            column: "dep_delay",
            found: found.to_owned(),
            expected: "whole minutes within two weeks, or NA if cancelled",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: &str = "2013,1,1,540,2,850,33,AA,1141,N619AA,JFK,MIA,160,1089";

    #[test]
    fn a_flight_is_one_csv_line() {
        let flight = Flight::parse(LATE.as_bytes()).unwrap();
        assert_eq!((flight.carrier.as_str(), flight.route.as_str(), flight.delay_min), ("AA", "JFK-MIA", Some(2)));
        assert_eq!(Flight::parse(format!("{LATE}\r\n").as_bytes()).unwrap(), flight);
    }

    #[test]
    fn a_cancelled_flight_is_taken() {
        let line = "2013,1,1,600,NA,901,NA,B6,125,N618JB,JFK,FLL,NA,1069";
        assert_eq!(Flight::parse(line.as_bytes()).unwrap().delay_min, None);
    }

    #[test]
    fn a_wrong_line_is_refused_with_its_field() {
        assert_eq!(Flight::parse(b"1,2,3"), Err(BadFlight::Fields { found: 3 }));
        let error = Flight::parse(LATE.replace(",2,", ",soon,").as_bytes()).unwrap_err();
        assert!(error.to_string().contains("dep_delay is \"soon\""), "{error}");
        assert_eq!(Flight::parse(&[0xff, 0xfe]), Err(BadFlight::NotText));
        assert_eq!(Flight::parse(&[b'x'; 300]), Err(BadFlight::TooLong { found: 300 }));
    }
}
