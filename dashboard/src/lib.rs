//! The web page of Segue, embedded: the files that the build script made of `web/`, and how they are served.
//!
//! Knows only REST, and that only inside the page. Nothing is read from the disk at run time, and the page asks nothing of any other
//! host: its content security policy would not let it.

use axum::Router;
use axum::body::Body;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

mod embedded {
    use super::Asset;
    include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
}

/// Scripts, styles and answers from the same origin only, and nobody may put the page into a frame.
const POLICY: &str = "default-src 'self'; base-uri 'none'; frame-ancestors 'none'";
/// A name with a hash never means anything else.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// Asked again each time; the `ETag` makes that cheap.
const ASK_AGAIN: &str = "no-cache";

/// One file of the page.
struct Asset {
    /// Where it is served.
    path: &'static str,
    /// Of its bytes.
    hash: &'static str,
    plain: &'static [u8],
    /// The same, packed.
    gzip: Option<&'static [u8]>,
}

/// Whether the page is the real one: otherwise there was no npm, and it says so.
#[must_use]
pub fn is_real() -> bool {
    embedded::REAL
}

/// The page at `/` and its files; merged into the migrator's routes. Pages inside it are behind the hash, so no other path is needed.
pub fn router() -> Router {
    let route = |router: Router, asset: &'static Asset| {
        router.route(asset.path, get(move |headers: HeaderMap| async move { answer(asset, &headers) }))
    };
    embedded::ASSETS.iter().fold(Router::new(), route)
}

fn answer(asset: &'static Asset, asked: &HeaderMap) -> Response {
    let packed = asset.gzip.filter(|_| takes_gzip(asked));
    let etag = format!("\"{}{}\"", asset.hash, if packed.is_some() { "-gzip" } else { "" });
    let cache = if asset.path.starts_with("/assets/") { FOR_EVER } else { ASK_AGAIN };
    let common: [(HeaderName, String); 3] =
        [(ETAG, etag.clone()), (CACHE_CONTROL, cache.to_owned()), (VARY, "accept-encoding".to_owned())];
    if knows(asked, &etag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let more = [
        (CONTENT_TYPE, content_type(asset.path)),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    let body = Body::from(packed.unwrap_or(asset.plain));
    match packed {
        Some(_) => (common, more, [(CONTENT_ENCODING, "gzip")], body).into_response(),
        None => (common, more, body).into_response(),
    }
}

/// RFC 9110, section 12.5.3, as far as gzip is concerned: named, and not with `q=0`.
fn takes_gzip(asked: &HeaderMap) -> bool {
    let values = asked.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").map(|weight| weight.trim().parse::<f32>());
        name.trim().eq_ignore_ascii_case("gzip") && !matches!(weight, Some(Ok(0.0) | Err(_)))
    })
}

fn knows(asked: &HeaderMap, etag: &str) -> bool {
    let values = asked.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|one| one == "*" || one.trim_start_matches("W/") == etag)
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        None => "text/html; charset=utf-8",
        Some(_) => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What everything together may weigh on the wire.
    const LIMIT_BYTES: usize = 150_000;

    fn asset(path: &str) -> &'static Asset {
        embedded::ASSETS.iter().find(|asset| asset.path == path).expect("the page has it")
    }

    fn script() -> &'static Asset {
        embedded::ASSETS.iter().find(|asset| asset.path.ends_with(".js")).expect("the page has a script")
    }

    fn asking(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().expect("a header's value"))])
    }

    fn told<'a>(answer: &'a Response, name: &HeaderName) -> &'a str {
        answer.headers().get(name).map_or("", |value| value.to_str().expect("text"))
    }

    #[test]
    fn the_real_page_is_embedded() {
        assert!(is_real(), "the build script found no npm: install Node.js 20.19 or newer, then build again");
        let _: Router = router();
    }

    #[test]
    fn the_page_weighs_less_than_it_may() {
        let sum: usize = embedded::ASSETS.iter().map(|asset| asset.gzip.unwrap_or(asset.plain).len()).sum();
        assert!(sum <= LIMIT_BYTES, "{sum} bytes of {LIMIT_BYTES}");
    }

    #[test]
    fn the_page_names_no_other_host() {
        let page = String::from_utf8_lossy(asset("/").plain);
        for foreign in ["http://", "https://", "@import", "style="] {
            assert!(!page.contains(foreign), "{foreign} in the page");
        }
        assert!(page.contains("src=\"/assets/"), "it loads its script from here");
    }

    #[test]
    fn gzip_is_given_to_those_who_take_it() {
        for (asked, packed) in
            [("gzip, br", true), ("br;q=1, GZIP;q=0.5", true), ("gzip;q=0", false), ("identity", false)]
        {
            let answer = answer(script(), &asking(ACCEPT_ENCODING, asked));
            assert_eq!(told(&answer, &CONTENT_ENCODING) == "gzip", packed, "{asked}");
            assert_eq!(told(&answer, &VARY), "accept-encoding");
        }
        assert_eq!(script().gzip.map(|bytes| bytes[..2].to_vec()), Some(vec![0x1f, 0x8b]));
    }

    #[test]
    fn what_is_known_is_not_sent_again() {
        let first = answer(asset("/"), &HeaderMap::new());
        let etag = told(&first, &ETAG).to_owned();
        let again = answer(asset("/"), &asking(IF_NONE_MATCH, &format!("\"other\", W/{etag}")));
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(answer(asset("/"), &asking(IF_NONE_MATCH, "\"other\"")).status(), StatusCode::OK);
        let mut packed = asking(IF_NONE_MATCH, &etag);
        packed.insert(ACCEPT_ENCODING, "gzip".parse().expect("a value"));
        assert_eq!(answer(asset("/"), &packed).status(), StatusCode::OK, "the packed form is another one");
    }

    #[test]
    fn only_names_with_a_hash_are_kept_for_ever() {
        assert_eq!(told(&answer(script(), &HeaderMap::new()), &CACHE_CONTROL), FOR_EVER);
        assert_eq!(told(&answer(asset("/"), &HeaderMap::new()), &CACHE_CONTROL), ASK_AGAIN);
    }

    #[test]
    fn every_file_says_its_type_and_the_policy() {
        for asset in embedded::ASSETS {
            let answer = answer(asset, &HeaderMap::new());
            assert_eq!(told(&answer, &CONTENT_SECURITY_POLICY), POLICY);
            assert_ne!(told(&answer, &CONTENT_TYPE), "application/octet-stream", "{}", asset.path);
        }
    }
}
