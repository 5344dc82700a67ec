//! The contract of REST: `/openapi.json` from the code, and `/docs`, which shows it and asks no other host for anything.
//!
//! What a route answers when all is well stands at its handler; the problems that it may answer stand here, in one table.

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use utoipa::openapi::path::{HttpMethod, Operation};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, ResponseBuilder, SecurityRequirement};
use utoipa::{Modify, OpenApi};

use super::{archives, drain, events, fleet, health, migrations, problem, shards};

/// Everything that `/openapi.json` tells.
#[derive(OpenApi)]
#[openapi(
    info(title = "Segue", description = "Moves running stateful services. Every error is a Problem (RFC 9457) with a code \
        for programs and a hint for people; every answer carries X-Request-Id."),
    paths(
        migrations::list, migrations::create, migrations::one, migrations::divergence, migrations::cancel,
        migrations::undo, migrations::retire, migrations::series, migrations::recording,
        events::all, events::of_one,
        shards::why, shards::checkpoints, shards::take_checkpoint, shards::log, shards::skips, drain::drain,
        archives::export, archives::import,
        fleet::services, fleet::service, fleet::nodes, fleet::node, fleet::status, fleet::version,
        health::livez, health::readyz, health::metrics,
    ),
    components(schemas(problem::Members)),
    modifiers(&Problems),
    servers((url = "/"))
)]
struct Document;

/// Which problems an operation may answer beside those of every operation.
const PROBLEMS: &[(&str, &str, &[u16])] = &[
    ("get", "/v1/migrations", &[400]),
    ("post", "/v1/migrations", &[400, 404, 408, 409, 413, 422, 429]),
    ("get", "/v1/migrations/{id}", &[400, 404]),
    ("get", "/v1/migrations/{id}/divergence", &[400, 404]),
    ("post", "/v1/migrations/{id}/cancel", &[400, 404, 408, 409, 413]),
    ("post", "/v1/migrations/{id}/undo", &[400, 404, 408, 409, 413, 429]),
    ("post", "/v1/migrations/{id}/retire", &[400, 404, 408, 409, 413, 429]),
    ("get", "/v1/migrations/{id}/series", &[400, 404]),
    ("get", "/v1/migrations/{id}/recording", &[400, 404]),
    ("get", "/v1/migrations/{id}/events", &[400, 404, 429]),
    ("get", "/v1/events", &[400, 429]),
    ("get", "/v1/services/{name}", &[400, 404]),
    ("get", "/v1/services/{name}/why", &[400, 404]),
    ("get", "/v1/services/{name}/checkpoints", &[400, 404]),
    ("post", "/v1/services/{name}/checkpoints", &[400, 404, 408, 409, 413]),
    ("get", "/v1/services/{name}/checkpoints/{checkpoint}/export", &[400, 404, 409, 429]),
    ("post", "/v1/services/{name}/checkpoints/import", &[400, 404, 408, 409, 413, 422, 429]),
    ("get", "/v1/log/{service}/{shard}", &[400, 404]),
    ("get", "/v1/log/{service}/{shard}/skips", &[400, 404]),
    ("post", "/v1/nodes/{name}/drain", &[400, 404, 408, 409, 413, 422]),
    ("get", "/v1/nodes/{name}", &[400, 404]),
    ("get", "/metrics", &[401, 503]),
];
/// What every operation below `/v1` may answer.
const PROBLEMS_OF_ALL: &[u16] = &[401, 403, 503];

struct Problems;

impl Modify for Problems {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        if let Some(components) = document.components.as_mut() {
            let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
                "a token of the file `[auth] tokens`; without that file the API is open, on loopback only",
            ));
            components.add_security_scheme("token", SecurityScheme::Http(bearer.build()));
        }
        for (path, item) in &mut document.paths.paths {
            let operations = [(HttpMethod::Get, &mut item.get), (HttpMethod::Post, &mut item.post)];
            for (method, operation) in operations {
                let Some(operation) = operation.as_mut() else { continue };
                let method = if method == HttpMethod::Get { "get" } else { "post" };
                let own = PROBLEMS.iter().find(|(of, at, _)| (*of, *at) == (method, path.as_str()));
                let own = own.map_or(&[] as &[u16], |(_, _, statuses)| statuses);
                own.iter().for_each(|status| add(operation, *status));
                if path.starts_with("/v1/") {
                    PROBLEMS_OF_ALL.iter().for_each(|status| add(operation, *status));
                    let open = SecurityRequirement::default();
                    operation.security = Some(vec![open, SecurityRequirement::new("token", [] as [&str; 0])]);
                }
            }
        }
    }
}

fn add(operation: &mut Operation, status: u16) {
    let meaning = match status {
        400 => "not understood: the path, the query or the body",
        401 => "no token, or an unknown one",
        403 => "the token's role may not do this",
        404 => "there is no such thing; the hint tells what there is",
        408 => "the body did not come in time",
        409 => "not now: something else is in the way",
        413 => "the body is too large",
        422 => "understood, and impossible",
        429 => "too many at once; Retry-After",
        _ => "not now; Retry-After",
    };
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response = ResponseBuilder::new().description(meaning).content("application/problem+json", content).build();
    operation.responses.responses.entry(status.to_string()).or_insert_with(|| response.into());
}

/// The document, as it stands in `configs/openapi.json`.
///
/// # Panics
/// Never: it is made of plain data.
#[must_use]
pub fn document() -> String {
    Document::openapi().to_pretty_json().expect("plain data can be written") + "\n"
}

pub(super) async fn json() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document()).into_response()
}

pub(super) async fn page() -> Html<&'static str> {
    Html(include_str!("docs.html"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMITTED: &str = include_str!("../../../configs/openapi.json");

    #[test]
    fn the_committed_openapi_document_is_that_of_the_code() {
        if std::env::var_os("SEGUE_WRITE_GOLDEN").is_some() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/openapi.json");
            std::fs::write(path, document()).unwrap();
            return;
        }
        assert!(
            COMMITTED == document(),
            "configs/openapi.json is not what the code says; look at the difference after \
             SEGUE_WRITE_GOLDEN=1 cargo test -p migrator openapi"
        );
    }

    #[test]
    fn the_page_of_the_document_asks_no_other_host() {
        let page = include_str!("docs.html");
        for foreign in ["http://", "https://", "src=", "@import", "//cdn"] {
            assert!(!page.contains(foreign), "{foreign} in the page");
        }
    }

    #[test]
    fn every_line_of_the_table_of_problems_names_an_operation() {
        let document = Document::openapi();
        for (method, path, _) in PROBLEMS {
            let item = document.paths.paths.get(*path).unwrap_or_else(|| panic!("{path} is not documented"));
            let operation = if *method == "get" { &item.get } else { &item.post };
            assert!(operation.is_some(), "{method} {path} is not documented");
        }
    }
}
