//! The web page of Segue, for now an honest placeholder that says what will stand here and where to look until then.
//!
//! Knows only REST. The page asks for nothing from anywhere else: its style is in the file, and it has no script.

use axum::Router;
use axum::response::Html;
use axum::routing::get;

const PAGE: &str = include_str!("page.html");

/// The page at `/`; merged into the migrator's routes.
pub fn router() -> Router {
    Router::new().route("/", get(|| async { Html(PAGE) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_for_nothing_from_elsewhere() {
        for foreign in ["http://", "https://", "src=", "<script", "@import"] {
            assert!(!PAGE.contains(foreign), "{foreign} in the page");
        }
    }

    #[test]
    fn the_page_links_to_what_can_be_asked_today() {
        for path in ["/v1/services", "/v1/nodes", "/v1/migrations"] {
            assert!(PAGE.contains(&format!("href=\"{path}\"")), "{path} is missing");
        }
        let _: Router = router();
    }
}
