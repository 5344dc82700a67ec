//! Files over REST: what is larger than an answer that is held in memory goes piece by piece, out and in.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use broker_adapter::shell::Shell;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::CONTENT_LENGTH;

use super::{Answer, Opened, Rest, RestError, SentBody};

/// How large the pieces of a file are.
const PIECE_BYTES: usize = 256 << 10;
/// How long the next piece of an answer may take to come.
const PIECE_LIMIT: Duration = Duration::from_secs(60);

impl Rest {
    /// The head of what is at a path, whose content is read piece by piece.
    ///
    /// # Errors
    /// If nobody answers in time.
    pub async fn begin(&self, path: &str) -> Result<Opened, RestError> {
        let opened = self.open(("GET", path), "application/json", &[], Bytes::new());
        self.shell.within(self.limit, opened).await.ok_or_else(|| self.late(self.limit))?
    }

    /// Sends a file, of which `length` bytes are left, and reads the answer; all in `limit`.
    ///
    /// # Errors
    /// If there is no complete answer in time.
    pub async fn upload(&self, path: &str, file: File, length: u64, limit: Duration) -> Result<Answer, RestError> {
        let length_text = length.to_string();
        let more = [(CONTENT_LENGTH.as_str(), length_text.as_str())];
        let body: SentBody = BodyExt::boxed_unsync(StreamBody::new(frames(file, self.shell.clone())));
        let called = async {
            let opened = self.send(("POST", path), "application/octet-stream", &more, body).await?;
            opened.read().await.map_err(|reason| RestError::Broken { url: self.url.clone(), reason })
        };
        self.shell.within(limit, called).await.ok_or_else(|| self.late(limit))?
    }

    fn late(&self, limit: Duration) -> RestError {
        RestError::TimedOut { url: self.url.clone(), limit }
    }
}

impl Opened {
    /// Its status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// The next piece of the content; `None` at its end.
    ///
    /// # Errors
    /// If it breaks off, or nothing comes for long.
    pub async fn piece(&mut self, shell: &Shell) -> Result<Option<Bytes>, String> {
        loop {
            let next = shell.within(PIECE_LIMIT, self.response.body_mut().frame()).await;
            match next.ok_or_else(|| format!("nothing more came for {PIECE_LIMIT:?}"))? {
                None => return Ok(None),
                Some(Err(error)) => return Err(error.to_string()),
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        return Ok(Some(piece));
                    }
                }
            }
        }
    }
}

fn frames(file: File, shell: Shell) -> impl Stream<Item = Result<Frame<Bytes>, io::Error>> + Send {
    stream::unfold(Some((file, shell)), |state| async {
        let (file, shell) = state?;
        let (read, file) = shell.blocking(move || piece(file)).await;
        match read {
            Ok(piece) if piece.is_empty() => None,
            Ok(piece) => Some((Ok(Frame::data(piece)), Some((file, shell)))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

fn piece(mut file: File) -> (io::Result<Bytes>, File) {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    let read = (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece);
    (read.map(|_| piece.into()), file)
}
