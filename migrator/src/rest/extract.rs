//! What a request says, taken apart: what does not fit is a problem like every other error.

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::problem::{self, Problem};

/// What stands behind the `?`.
pub struct Params<T>(pub T);

/// The parts of the path.
pub struct Named<T>(pub T);

/// A JSON body; an empty one is `{}`.
pub struct Content<T>(pub T);

/// What a body may be.
pub trait Form {
    /// For those whose body is not understood.
    const HINT: &'static str;
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let taken = Query::from_request_parts(parts, state).await;
        taken.map(|Query(params)| Params(params)).map_err(|rejection| problem::bad_query(&rejection.body_text()))
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let taken = Path::from_request_parts(parts, state).await;
        taken.map(|Path(named)| Named(named)).map_err(|rejection| problem::bad_path(&rejection.body_text()))
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Form> FromRequest<S> for Content<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|rejection| problem::bad_body(rejection.status(), &rejection.body_text()))?;
        let body = if body.is_empty() { Bytes::from_static(b"{}") } else { body };
        serde_json::from_slice(&body).map(Content).map_err(|error| problem::bad_json(&error, T::HINT))
    }
}
