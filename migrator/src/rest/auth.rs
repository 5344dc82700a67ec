//! Who asks, and whether he may: bearer tokens from a file, with roles; without a file everybody on this machine may do everything.
//!
//! The file has one token a line: `NAME ROLE SECRET`, where ROLE is `viewer` or `operator` and SECRET is the token itself (16 to 256
//! visible characters) or `sha256:` and its hash in hexadecimal. `#` begins a comment. It is read once, at the start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::{Api, audit, problem};

/// How many tokens a file may have.
const TOKENS_MAX: usize = 1_000;
/// What the paths of exports end with.
const EXPORT: &str = "/export";
/// The lengths of a token.
const LENGTH: std::ops::RangeInclusive<usize> = 16..=256;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// To look.
    Viewer,
    /// To look and to change.
    Operator,
}

impl Role {
    /// As in the file and in REST.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
        }
    }
}

/// One line of the file.
#[derive(Clone, PartialEq, Eq)]
struct Known {
    name: String,
    role: Role,
    sha256: [u8; 32],
}

/// Who may ask.
#[derive(Clone, Default)]
pub struct Tokens(Option<Arc<Vec<Known>>>);

/// Why the file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// It cannot be read.
    #[error("the tokens {path} ([auth] tokens) cannot be read: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        reason: String,
    },
    /// A line is not understood. The line itself is not shown: it may hold a secret.
    #[error("{path}, line {line}: {reason}; write NAME viewer|operator TOKEN, or sha256:HEX instead of the token")]
    Line {
        /// The file.
        path: PathBuf,
        /// The first is 1.
        line: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// Nobody could ask.
    #[error("the tokens {path} ([auth] tokens) hold no token; add a line NAME operator TOKEN, or take the setting out")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl Tokens {
    /// Reads the file.
    ///
    /// # Errors
    /// [`TokensError`] names file and line.
    pub fn read(path: &Path) -> Result<Tokens, TokensError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| TokensError::Read { path: path.to_owned(), reason: error.to_string() })?;
        Tokens::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Tokens, TokensError> {
        let mut all: Vec<Known> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |reason| TokensError::Line { path: path.to_owned(), line: index + 1, reason };
            let known = known(line).map_err(wrong)?;
            if all.len() == TOKENS_MAX {
                return Err(wrong("it is the 1,001st token"));
            }
            if all.iter().any(|other| other.sha256 == known.sha256) {
                return Err(wrong("this token stands there already"));
            }
            all.push(known);
        }
        if all.is_empty() { Err(TokensError::Empty { path: path.to_owned() }) } else { Ok(Tokens(Some(Arc::new(all)))) }
    }

    /// Whether anybody may ask without a token.
    #[must_use]
    pub fn are_open(&self) -> bool {
        self.0.is_none()
    }

    /// Whose token this is. Every one is compared, and each whole: how long it takes tells nothing.
    fn find(&self, token: &[u8]) -> Option<Who> {
        let sha256: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for known in self.0.iter().flat_map(|all| all.iter()) {
            let differs = known.sha256.iter().zip(&sha256).fold(0, |differs, (one, two)| differs | (one ^ two));
            if differs == 0 {
                found = Some(Who { name: known.name.clone(), role: Some(known.role) });
            }
        }
        found
    }
}

fn known(line: &str) -> Result<Known, &'static str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, role, secret] = words[..] else { return Err("it has not three words") };
    let role = match role {
        "viewer" => Role::Viewer,
        "operator" => Role::Operator,
        _ => return Err("the second word is no role"),
    };
    if name.len() > 64 {
        return Err("the name is longer than 64 characters");
    }
    let sha256 = match secret.strip_prefix("sha256:") {
        Some(hex) => from_hex(hex).ok_or("sha256: is not followed by 64 hexadecimal digits")?,
        None if LENGTH.contains(&secret.len()) && secret.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Sha256::digest(secret.as_bytes()).into()
        }
        None => return Err("the token is not 16 to 256 visible characters"),
    };
    Ok(Known { name: name.to_owned(), role, sha256 })
}

fn from_hex(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// As in the file.
    pub name: String,
    /// What he may do; nothing is said where no tokens are configured.
    pub role: Option<Role>,
}

/// Lets nobody pass who may not, and writes down what was changed.
pub async fn guard(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !(path.starts_with("/v1/") || path == "/metrics") {
        return next.run(request).await;
    }
    let changes = changes(&request);
    let who = match allowed(&api.tokens, request.headers(), changes) {
        Ok(who) => who,
        Err((_, refused)) if !changes => return refused.into_response(),
        Err((who, refused)) => {
            let (method, uri) = (request.method().to_string(), request.uri().to_string());
            drop(request);
            return audit::refused(&api, &who, (&method, &uri), refused).await;
        }
    };
    request.extensions_mut().insert(who.clone());
    if changes { audit::run(&api, &who, request, next).await } else { next.run(request).await }
}

/// Whether only an operator may, and it is written down: whatever changes something, and what hands out a state, which may hold
/// secrets. A plan changes nothing.
fn changes(request: &Request) -> bool {
    let validates = request.uri().query().is_some_and(|query| query.split('&').any(|one| one == "validate_only=true"));
    let plans = validates && request.uri().path() == "/v1/migrations";
    let exports = request.uri().path().ends_with(EXPORT);
    exports || (!matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) && !plans)
}

/// Who asks; or who was refused, and why.
fn allowed(tokens: &Tokens, headers: &HeaderMap, changes: bool) -> Result<Who, (String, problem::Problem)> {
    let unknown = |problem| ("unknown".to_owned(), problem);
    if tokens.are_open() {
        return Ok(Who { name: "local".to_owned(), role: None });
    }
    let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let Some(given) = given else { return Err(unknown(problem::no_token())) };
    let token = given.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
    let who = token.and_then(|(_, token)| tokens.find(token)).ok_or_else(|| unknown(problem::bad_token()))?;
    if changes && who.role != Some(Role::Operator) {
        let problem = problem::not_allowed(&who.name);
        return Err((who.name, problem));
    }
    Ok(who)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn parse(text: &str) -> Result<Tokens, TokensError> {
        Tokens::parse(text, Path::new("tokens"))
    }

    #[test]
    fn a_token_is_known_by_itself_or_by_its_hash() {
        let hash: String = Sha256::digest(b"another-token-here").iter().map(|byte| format!("{byte:02x}")).collect();
        let tokens = parse(&format!("# who\n\nanna operator {TOKEN}\nbert viewer sha256:{hash}\n")).unwrap();
        let found = |token: &str| tokens.find(token.as_bytes()).map(|who| (who.name, who.role.unwrap().name()));
        assert_eq!(found(TOKEN), Some(("anna".to_owned(), "operator")));
        assert_eq!(found("another-token-here"), Some(("bert".to_owned(), "viewer")));
        assert_eq!(found("0123456789abcdeg"), None);
    }

    #[test]
    fn a_line_that_is_not_understood_is_named_without_its_secret() {
        for (text, told) in [
            ("anna operator", "line 1: it has not three words"),
            ("\nanna root 0123456789abcdef", "line 2: the second word is no role"),
            ("anna viewer short-secret", "line 1: the token is not 16 to 256"),
            ("anna viewer sha256:short-secret", "line 1: sha256: is not followed"),
            ("a viewer 0123456789abcdef\nb viewer 0123456789abcdef", "line 2: this token stands there already"),
            ("# nobody", "hold no token"),
        ] {
            let error = parse(text).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains("short-secret"), "{error}");
        }
    }
}
