//! `[[service.route]]`: which requests are logged, which are read, and which go past the log.
//!
//! The first route that matches decides; where none does, safe methods are `fresh` and all others `logged`. What cannot hold is refused
//! when the configuration is read: a method that may change the state must be a record, unless its operator promises otherwise.

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::checked::Checked;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Treatment {
    /// A record, which every replica applies.
    Logged,
    /// A read that sees everything acknowledged before it.
    Fresh,
    /// A read at once on a replica that may answer; the answer's `Segue-Position` says how old it is.
    Local,
    /// Straight to an instance, whatever the method: its operator promises that it does not change the state.
    Bypass,
}

/// One `[[service.route]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Which method; any if not said.
    #[serde(default)]
    pub method: MethodPattern,
    /// Which paths.
    pub path: PathPattern,
    /// What becomes of them.
    pub to: Treatment,
}

/// A method, or any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MethodPattern {
    /// `*`
    #[default]
    Any,
    /// Its name, as requests write it.
    One(String),
}

/// Paths, without the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPattern {
    /// `/x`: this one.
    Exact(String),
    /// `/x/*`: all that begin with `/x/`.
    Below(String),
}

/// Paths of the service's port that belong to the sidecar.
pub const RESERVED_PATHS: &str = "/segue/";

/// Whether a method changes nothing (RFC 9110, section 9.2.1) and needs no record.
#[must_use]
pub fn is_safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS")
}

/// What becomes of a request: the first route that matches decides. `path` is as the client wrote it, `plain` as a generous service
/// reads it: nobody comes around the log by writing a path in another way.
#[must_use]
pub fn treatment(routes: &[Route], method: &str, path: &str, plain: &str) -> Treatment {
    let default = if is_safe(method) { Treatment::Fresh } else { Treatment::Logged };
    let decides = |route: &&Route| match route.to {
        Treatment::Logged => route.matches(method, path) || route.matches(method, plain),
        _ => route.matches(method, path) && route.matches(method, plain),
    };
    routes.iter().find(decides).map_or(default, |route| route.to)
}

impl Route {
    fn matches(&self, method: &str, path: &str) -> bool {
        let method_matches = match &self.method {
            MethodPattern::Any => true,
            MethodPattern::One(one) => one == method,
        };
        method_matches && self.path.matches(path)
    }

    /// Whether no request that `other` matches comes past this one.
    fn hides(&self, other: &Route) -> bool {
        let method = self.method == MethodPattern::Any || self.method == other.method;
        method && self.path.covers(&other.path)
    }
}

impl PathPattern {
    fn matches(&self, path: &str) -> bool {
        match self {
            PathPattern::Exact(exact) => exact == path,
            PathPattern::Below(prefix) => path.starts_with(prefix.as_str()),
        }
    }

    fn covers(&self, other: &PathPattern) -> bool {
        match (self, other) {
            (_, PathPattern::Exact(exact)) => self.matches(exact),
            (PathPattern::Below(prefix), PathPattern::Below(below)) => below.starts_with(prefix.as_str()),
            (PathPattern::Exact(_), PathPattern::Below(_)) => false,
        }
    }

    fn text(&self) -> String {
        match self {
            PathPattern::Exact(exact) => exact.clone(),
            PathPattern::Below(prefix) => format!("{prefix}*"),
        }
    }
}

impl Checked for Route {
    const WHAT: &'static str = "a route: { method, path, to }";

    fn check(&self) -> Result<(), String> {
        let unsafe_method = match &self.method {
            MethodPattern::One(method) if is_safe(method) => return Ok(()),
            MethodPattern::One(method) => format!("method = {method:?}"),
            MethodPattern::Any => "any method".to_owned(),
        };
        let to = match self.to {
            Treatment::Logged | Treatment::Bypass => return Ok(()),
            Treatment::Fresh => "fresh",
            Treatment::Local => "local",
        };
        Err(format!(
            "a route that cannot hold: {unsafe_method} with to = {to:?} may change the state without a record; give it method = \"GET\", \
             \"HEAD\" or \"OPTIONS\", or to = \"logged\" (\"bypass\" if it changes nothing)"
        ))
    }
}

/// A later route that an earlier one hides would never be used.
pub(super) fn check_order(routes: &[Route]) -> Result<(), String> {
    for (place, route) in routes.iter().enumerate() {
        if let Some(first) = routes[..place].iter().position(|earlier| earlier.hides(route)) {
            return Err(format!(
                "a route that cannot hold: route {} ({}) is never reached, because route {} ({}) matches first; exchange them",
                place + 1,
                route.path.text(),
                first + 1,
                routes[first].path.text()
            ));
        }
    }
    Ok(())
}

impl<'de> Deserialize<'de> for MethodPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "*" => Ok(MethodPattern::Any),
            method if !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') => {
                Ok(MethodPattern::One(text))
            }
            _ => Err(D::Error::custom(format!(
                "{text:?} is no method: write it in capitals, as \"GET\", or \"*\" for any"
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for PathPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (path, below) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (text.as_str(), false),
        };
        let good = path.starts_with('/') && (!below || path.ends_with('/')) && !path.contains(['*', '?', '#', ' ']);
        if !good {
            return Err(D::Error::custom(format!(
                "{text:?} is no path: write \"/x\" for one, \"/x/*\" for all below it"
            )));
        }
        if path.starts_with(RESERVED_PATHS) {
            return Err(D::Error::custom(format!("{text:?} cannot hold: {RESERVED_PATHS} belongs to the sidecar")));
        }
        Ok(if below { PathPattern::Below(path.to_owned()) } else { PathPattern::Exact(path.to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::path::plain;

    fn route(text: &str) -> Route {
        toml::from_str(text).expect("a good route")
    }

    #[test]
    fn the_first_route_that_matches_decides() {
        let routes = [
            route("method = 'GET'\npath = '/audit'\nto = 'logged'"),
            route("method = 'GET'\npath = '/board/*'\nto = 'local'"),
            route("path = '/static/*'\nto = 'bypass'"),
        ];
        for (method, path, to) in [
            ("GET", "/audit", Treatment::Logged),
            ("HEAD", "/audit", Treatment::Fresh),
            ("GET", "/audit/", Treatment::Fresh),
            ("GET", "/board/a/b", Treatment::Local),
            ("GET", "/board", Treatment::Fresh),
            ("POST", "/board/a", Treatment::Logged),
            ("POST", "/static/x", Treatment::Bypass),
            ("PUT", "/x", Treatment::Logged),
            ("OPTIONS", "/x", Treatment::Fresh),
        ] {
            assert_eq!(treatment(&routes, method, path, path), to, "{method} {path}");
        }
    }

    #[test]
    fn nobody_comes_around_the_log_by_writing_a_path_in_another_way() {
        let routes =
            [route("method = 'GET'\npath = '/audit'\nto = 'logged'"), route("path = '/static/*'\nto = 'bypass'")];
        for (method, path) in [
            ("POST", "/static/../orders"),
            ("POST", "/static/%2e%2e/orders"),
            ("POST", "/orders%2F..%2Fstatic%2Fx"),
            ("POST", "//static/x"),
            ("GET", "//audit"),
            ("GET", "/aud%69t"),
        ] {
            assert_eq!(treatment(&routes, method, path, &plain(path)), Treatment::Logged, "{method} {path}");
        }
        assert_eq!(treatment(&routes, "POST", "/static/a%20b", &plain("/static/a%20b")), Treatment::Bypass);
    }

    #[test]
    fn a_method_that_may_change_the_state_is_no_read() {
        for text in ["method = 'POST'\npath = '/x'\nto = 'fresh'", "path = '/x'\nto = 'local'"] {
            assert!(route(text).check().is_err_and(|error| error.contains("a route that cannot hold")), "{text}");
        }
        for text in ["method = 'POST'\npath = '/x'\nto = 'bypass'", "path = '/x'\nto = 'logged'"] {
            assert_eq!(route(text).check(), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_route_that_an_earlier_one_hides_is_refused() {
        let hidden = [route("path = '/x/*'\nto = 'logged'"), route("method = 'GET'\npath = '/x/y'\nto = 'local'")];
        assert!(check_order(&hidden).is_err_and(|error| error.contains("route 2 (/x/y)")));
        let [first, second] = hidden;
        assert_eq!(check_order(&[second, first]), Ok(()));
    }
}
