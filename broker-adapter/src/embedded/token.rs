//! The secret that a guarded broker and its clients share: a file with one token a line.
//!
//! A server takes each of its lines, a client sends its first one, and both read the file again while they run; so a token is
//! changed without a restart: the new one into the server's file too, then first into the clients', then the old one out of the
//! server's. A connection that is open stays open. No token is ever shown, and servers keep only their hashes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::shell::Shell;

/// The lengths of a token.
const LENGTH: std::ops::RangeInclusive<usize> = 16..=256;
/// How many tokens a file may have.
const TOKENS_MAX: usize = 100;
/// The largest file that is read.
const FILE_LIMIT_BYTES: u64 = 64 << 10;
/// How old what was read may be when somebody connects.
pub const REREAD_AFTER: Duration = Duration::from_secs(1);

/// One secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token(String);

/// It is never shown.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Why a file of tokens cannot be used. What it holds is not told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error("the tokens {path} ({key}) cannot be read: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Which setting names it.
        key: String,
        /// What the operating system says.
        reason: String,
    },
    /// A line is no token.
    #[error(
        "{path} ({key}), line {line}: {reason}; write one token a line, as `head -c 32 /dev/urandom | base64` makes them"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// Which setting names it.
        key: String,
        /// The first is 1.
        line: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// There is none.
    #[error(
        "the tokens {path} ({key}) hold no token; write one a line, as `head -c 32 /dev/urandom | base64` makes them"
    )]
    Empty {
        /// The file.
        path: PathBuf,
        /// Which setting names it.
        key: String,
    },
}

/// The tokens of a file as they were read last.
#[derive(Clone)]
pub struct Tokens {
    first: Token,
    hashes: Vec<blake3::Hash>,
}

impl Tokens {
    fn read(path: &Path, key: &str) -> Result<Tokens, TokenError> {
        let failed = |reason: String| TokenError::Read { path: path.to_owned(), key: key.to_owned(), reason };
        let size = std::fs::metadata(path).map_err(|error| failed(error.to_string()))?.len();
        if size > FILE_LIMIT_BYTES {
            return Err(failed(format!("it has {size} bytes, and no file of tokens has more than {FILE_LIMIT_BYTES}")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        Tokens::parse(&text, path, key)
    }

    fn parse(text: &str, path: &Path, key: &str) -> Result<Tokens, TokenError> {
        let (mut first, mut hashes) = (None, Vec::new());
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong =
                |reason| TokenError::Line { path: path.to_owned(), key: key.to_owned(), line: index + 1, reason };
            if !LENGTH.contains(&line.len()) || !line.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(wrong("it is not 16 to 256 visible characters without a space"));
            }
            if hashes.len() == TOKENS_MAX {
                return Err(wrong("it is the 101st token"));
            }
            hashes.push(blake3::hash(line.as_bytes()));
            first.get_or_insert_with(|| Token(line.to_owned()));
        }
        let empty = || TokenError::Empty { path: path.to_owned(), key: key.to_owned() };
        Ok(Tokens { first: first.ok_or_else(empty)?, hashes })
    }

    /// Whether it stands in the file. Hashes are compared, each of them and in constant time: how long it takes tells nothing.
    #[must_use]
    pub fn knows(&self, token: &Token) -> bool {
        let given = blake3::hash(token.0.as_bytes());
        self.hashes.iter().fold(false, |found, known| found | (*known == given))
    }
}

/// A file of tokens that is read again while it is used.
pub struct TokenFile {
    path: PathBuf,
    key: String,
    last: Mutex<Last>,
}

struct Last {
    read_at: Duration,
    tokens: Tokens,
    /// What was told about the file already.
    trouble: Option<TokenError>,
}

impl TokenFile {
    /// Reads the file; `key` is the setting that names it.
    ///
    /// # Errors
    /// [`TokenError`] names file, key and line.
    pub fn open(path: &Path, key: &str, shell: &Shell) -> Result<TokenFile, TokenError> {
        let last = Last { read_at: shell.now(), tokens: Tokens::read(path, key)?, trouble: None };
        Ok(TokenFile { path: path.to_owned(), key: key.to_owned(), last: Mutex::new(last) })
    }

    /// What stands in it now; a file that cannot be used any more leaves the tokens as they were.
    pub async fn current(self: &Arc<TokenFile>, shell: &Shell) -> Tokens {
        {
            let mut last = self.last.lock().expect("nothing panics under this lock");
            if shell.now() < last.read_at + REREAD_AFTER {
                return last.tokens.clone();
            }
            // Others take the old ones meanwhile.
            last.read_at = shell.now();
        }
        let file = self.clone();
        let read = shell.blocking(move || Tokens::read(&file.path, &file.key)).await;
        let mut last = self.last.lock().expect("nothing panics under this lock");
        match read {
            Ok(tokens) => {
                last.tokens = tokens;
                last.trouble = None;
            }
            Err(error) if last.trouble.as_ref() == Some(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "the tokens stay as they were");
                last.trouble = Some(error);
            }
        }
        last.tokens.clone()
    }

    /// What a client sends.
    pub async fn first(self: &Arc<TokenFile>, shell: &Shell) -> Token {
        self.current(shell).await.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::real;

    const ONE: &str = "0123456789abcdef";
    const TWO: &str = "another-token-here";

    fn parse(text: &str) -> Result<Tokens, TokenError> {
        Tokens::parse(text, Path::new("tokens"), "token_file")
    }

    #[test]
    fn each_line_is_a_token_and_the_first_is_the_one_that_is_sent() {
        let tokens = parse(&format!("# since May\n{ONE}\r\n\n  {TWO}\n")).unwrap();
        let knows = |text: &str| tokens.knows(&Token(text.to_owned()));
        assert!(knows(ONE) && knows(TWO));
        assert!(!knows("0123456789abcdeg") && !knows("") && !knows("# since May"));
        assert_eq!(tokens.first, Token(ONE.to_owned()));
    }

    #[test]
    fn what_is_no_token_is_refused_by_file_key_and_line_and_never_shown() {
        let many: String = (0..=TOKENS_MAX).map(|number| format!("{number:016}\n")).collect();
        for (text, told) in [
            ("hunter2", "tokens (token_file), line 1: it is not 16 to 256"),
            ("\nhunter2 hunter2 hunter2", "line 2: it is not"),
            (many.as_str(), "line 101: it is the 101st"),
            ("\n# nothing\n", "tokens (token_file) hold no token"),
        ] {
            let error = parse(text).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains("hunter2"), "{error}");
        }
        assert_eq!(format!("{:?}", Token("hunter2-hunter2-hunter2".to_owned())), "Token(…)");
    }

    #[tokio::test]
    async fn a_file_is_read_again_and_one_that_is_broken_leaves_what_was_known() {
        let (shell, _process) = real::process();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        assert!(
            TokenFile::open(&path, "token_file", &shell)
                .map(|_| ())
                .unwrap_err()
                .to_string()
                .contains("cannot be read")
        );
        std::fs::write(&path, ONE).unwrap();
        let file = Arc::new(TokenFile::open(&path, "token_file", &shell).unwrap());
        for (text, first) in [(TWO, TWO), ("short", TWO), (ONE, ONE)] {
            std::fs::write(&path, text).unwrap();
            shell.sleep(REREAD_AFTER).await;
            assert_eq!(file.first(&shell).await, Token(first.to_owned()));
        }
    }
}
