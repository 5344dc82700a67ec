//! Whether anything was lost, doubled or reordered: the replies that clients got against the order that the log fixed.
//!
//! Every request carries its number in the header `demo-request`, so the log's record tells which request it is. From the
//! applied records alone the running hash is computed again; each reply must name its place and the hash at that place. The code is
//! the checker's own: nothing of the service is used.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_adapter::ids::Hash;

/// Faults that are told in words; the others are only counted.
const TOLD_FAULTS: usize = 5;

/// A message that the log's fold applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Which request it was, if it was one of ours.
    pub request: Option<usize>,
    /// What the service got.
    pub line: Vec<u8>,
}

/// A reply that a client got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// To which request.
    pub request: usize,
    /// How many flights were applied, it says.
    pub n: u64,
    /// The running hash, it says.
    pub hash: Hash,
    /// When the request was written to its connection.
    pub sent: Duration,
    /// When the reply was there.
    pub got: Duration,
}

/// What the check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Requests that were sent.
    pub sent: usize,
    /// Requests with a reply that says where they were applied.
    pub acknowledged: usize,
    /// Acknowledged, but not in the log, or not as it was sent.
    pub lost: usize,
    /// Applied more than once, or two with the same n.
    pub doubled: usize,
    /// A reply whose n or hash is not that of its place in the log; or a request that began after another one's reply, and
    /// stands before it.
    pub reordered: usize,
    /// Applied, but never sent.
    pub foreign: usize,
    /// The first faults, in words.
    pub told: Vec<String>,
}

impl Verdict {
    /// Whether the replies are a permutation of 1…sent and everything agrees.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.acknowledged == self.sent && self.lost + self.doubled + self.reordered + self.foreign == 0
    }

    fn tell(&mut self, fault: impl FnOnce() -> String) {
        if self.told.len() < TOLD_FAULTS {
            self.told.push(fault());
        }
    }
}

/// Judges a run: `lines[i]` is what request `i` sent.
#[must_use]
pub fn judge(lines: &[&[u8]], log: &[Logged], replies: &[Reply]) -> Verdict {
    let mut verdict = Verdict { sent: lines.len(), acknowledged: replies.len(), ..Verdict::default() };
    let places = places(lines.len(), log, &mut verdict);
    let chain = chain(log);
    let mut by_n: BTreeMap<u64, usize> = BTreeMap::new();
    for reply in replies {
        if let Some(other) = by_n.insert(reply.n, reply.request) {
            verdict.doubled += 1;
            verdict.tell(|| format!("requests {other} and {} were both answered n = {}", reply.request, reply.n));
        }
        let Some(place) = places[reply.request] else {
            verdict.lost += 1;
            verdict.tell(|| format!("request {} was answered n = {}, and is not in the log", reply.request, reply.n));
            continue;
        };
        if log[place].line != lines[reply.request] {
            verdict.lost += 1;
            verdict.tell(|| format!("request {} stands altered in the log", reply.request));
        } else if reply.n != place as u64 + 1 || reply.hash != chain[place] {
            verdict.reordered += 1;
            verdict.tell(|| {
                format!(
                    "request {} is number {} of the log, its reply says n = {} and hash {}, the log gives {}",
                    reply.request,
                    place + 1,
                    reply.n,
                    reply.hash,
                    chain[place]
                )
            });
        }
    }
    overtakers(replies, &mut verdict);
    verdict
}

/// Where the log has each request; tells those that it has twice, or that nobody sent.
fn places(requests: usize, log: &[Logged], verdict: &mut Verdict) -> Vec<Option<usize>> {
    let mut places = vec![None; requests];
    for (place, logged) in log.iter().enumerate() {
        match logged.request.filter(|request| *request < requests) {
            None => {
                verdict.foreign += 1;
                verdict.tell(|| format!("number {} of the log is none of the demo's requests", place + 1));
            }
            Some(request) if places[request].is_some() => {
                verdict.doubled += 1;
                verdict.tell(|| format!("request {request} was applied again as number {} of the log", place + 1));
            }
            Some(request) => places[request] = Some(place),
        }
    }
    places
}

/// The running hash at each place, from the log alone.
fn chain(log: &[Logged]) -> Vec<Hash> {
    let mut last = [0u8; 32];
    let mut chain = Vec::with_capacity(log.len());
    for logged in log {
        last = *blake3::hash(&[&last, logged.line.as_slice()].concat()).as_bytes();
        chain.push(Hash(last));
    }
    chain
}

/// A request that was sent after another one's reply was there must be applied behind it.
fn overtakers(replies: &[Reply], verdict: &mut Verdict) {
    let mut by_sent: Vec<&Reply> = replies.iter().collect();
    by_sent.sort_by_key(|reply| reply.sent);
    let mut by_got: Vec<&Reply> = replies.iter().collect();
    by_got.sort_by_key(|reply| reply.got);
    let mut earlier = by_got.into_iter().peekable();
    let mut highest = 0;
    for reply in by_sent {
        while let Some(other) = earlier.next_if(|other| other.got < reply.sent) {
            highest = highest.max(other.n);
        }
        if reply.n < highest {
            verdict.reordered += 1;
            verdict.tell(|| {
                format!("request {} was answered n = {} after n = {highest} was answered", reply.request, reply.n)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&[u8]; 6] = [b"a", b"b", b"c", b"d", b"e", b"f"];

    /// Six requests, one after the other.
    fn good_run() -> (Vec<Logged>, Vec<Reply>) {
        let log: Vec<Logged> =
            LINES.iter().enumerate().map(|(n, line)| Logged { request: Some(n), line: line.to_vec() }).collect();
        let hashes = chain(&log);
        let at = |n: usize| Duration::from_millis(n as u64 * 10);
        let reply = |n: usize| Reply { request: n, n: n as u64 + 1, hash: hashes[n], sent: at(n), got: at(n + 2) };
        let replies = (0..LINES.len()).map(reply).collect();
        (log, replies)
    }

    fn found(log: &[Logged], replies: &[Reply]) -> (usize, usize, usize, usize) {
        let verdict = judge(&LINES, log, replies);
        assert!(!verdict.is_good());
        assert!(!verdict.told.is_empty() || verdict.acknowledged < verdict.sent);
        (verdict.lost, verdict.doubled, verdict.reordered, verdict.foreign)
    }

    #[test]
    fn a_good_run_is_good() {
        let (log, replies) = good_run();
        let verdict = judge(&LINES, &log, &replies);
        assert!(verdict.is_good(), "{verdict:?}");
        assert_eq!(verdict.acknowledged, 6);
    }

    #[test]
    fn the_chain_is_that_of_the_service() {
        let line = "2013,1,1,540,2,850,33,AA,1141,N619AA,JFK,MIA,160,1089";
        let flight = crate::board::flight::Flight::parse(line.as_bytes()).unwrap();
        let mut state = crate::board::state::State::empty(0);
        let logged = Logged { request: Some(0), line: line.as_bytes().to_vec() };
        let chain = chain(&[logged.clone(), logged]);
        assert_eq!([state.apply(&flight).hash, state.apply(&flight).hash].as_slice(), chain);
    }

    #[test]
    fn a_planted_loss_is_found() {
        let (mut log, replies) = good_run();
        log.remove(5);
        assert_eq!(found(&log, &replies), (1, 0, 0, 0));
        let (mut log, replies) = good_run();
        log.remove(2);
        assert_eq!(found(&log, &replies), (1, 0, 3, 0), "and all behind it stand elsewhere");
        let (mut log, replies) = good_run();
        log[5].line = b"x".to_vec();
        assert_eq!(found(&log, &replies), (1, 0, 0, 0), "altered is lost");
    }

    #[test]
    fn a_planted_duplicate_is_found() {
        let (mut log, replies) = good_run();
        log.push(log[1].clone());
        assert_eq!(found(&log, &replies), (0, 1, 0, 0));
        let (log, mut replies) = good_run();
        replies[3] = Reply { request: 3, ..replies[4] };
        assert_eq!(found(&log, &replies).1, 1, "two replies with one n");
    }

    #[test]
    fn a_planted_swap_is_found() {
        let (mut log, replies) = good_run();
        log.swap(1, 2);
        assert_eq!(found(&log, &replies), (0, 0, 5, 0), "both, and the hash of all behind them");
    }

    #[test]
    fn a_wrong_reply_is_found() {
        let (log, mut replies) = good_run();
        replies[3].hash = Hash::of(b"another history");
        assert_eq!(found(&log, &replies), (0, 0, 1, 0));
    }

    #[test]
    fn an_overtaker_is_found() {
        let (mut log, mut replies) = good_run();
        // Request 5, sent after the replies to 0…2, is applied first of all: log and replies agree about that.
        log.rotate_right(1);
        let hashes = chain(&log);
        for reply in &mut replies {
            reply.n = (reply.n % 6) + 1;
            reply.hash = hashes[reply.n as usize - 1];
        }
        assert_eq!(found(&log, &replies), (0, 0, 1, 0));
    }

    #[test]
    fn an_unanswered_request_is_no_success() {
        let (log, mut replies) = good_run();
        replies.pop();
        assert_eq!(found(&log, &replies), (0, 0, 0, 0));
    }

    #[test]
    fn a_flight_that_nobody_sent_is_found() {
        let (mut log, replies) = good_run();
        log.push(Logged { request: None, line: b"z".to_vec() });
        assert_eq!(found(&log, &replies), (0, 0, 0, 1));
    }
}
