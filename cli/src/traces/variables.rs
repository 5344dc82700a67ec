//! The `OTEL_*` variables (OpenTelemetry specification, "Environment Variables"): whether traces are exported, and what of it is
//! supported. What is read here is refused at the start if it is not; endpoint, headers, time-outs, queue and resource are read by the SDK.

use hyper::Uri;

const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_PROTOCOL: &str = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const DISABLED: &str = "OTEL_SDK_DISABLED";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Where the collector is, for people: as `HOST:PORT`.
    pub collector: String,
    /// Which traces are exported.
    pub sampling: Sampling,
}

/// Which traces that begin here are exported.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Whether one that began elsewhere is exported as was decided there.
    pub by_parent: bool,
    /// The share of all others.
    pub ratio: f64,
}

/// Why a process whose variables ask for traces does not start.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TracesError {
    /// There is no such thing, or not here.
    #[error("{variable}={value}: {reason}; {remedy}, or set OTEL_SDK_DISABLED=true to run without traces")]
    Variable {
        /// Which.
        variable: &'static str,
        /// What it says.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The exporter cannot be built.
    #[error(
        "traces cannot be exported: {0}; look at the OTEL_* variables, or set OTEL_SDK_DISABLED=true to run without"
    )]
    #[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "there is no exporter"))]
    Export(String),
    /// This binary has no exporter.
    #[error(
        "{0} asks for traces, and this segue was built without the feature `otlp`: build it with the default features, or unset it"
    )]
    NotBuilt(&'static str),
}

/// What the variables ask for; `None`: no traces.
///
/// # Errors
/// [`TracesError::Variable`] names variable and value.
pub fn wanted(variable: impl Fn(&'static str) -> Option<String>) -> Result<Option<Wanted>, TracesError> {
    // An empty one is as good as none (same specification).
    let set = |name| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    if set(DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let endpoint = [TRACES_ENDPOINT, ENDPOINT].into_iter().find_map(|name| Some((name, set(name)?)));
    match (set(EXPORTER).as_deref(), &endpoint) {
        (Some("none"), _) | (None, None) => return Ok(None),
        (Some("otlp"), _) | (None, Some(_)) => {}
        (Some(other), _) => {
            return Err(TracesError::Variable {
                variable: EXPORTER,
                value: other.to_owned(),
                reason: "traces are exported by otlp or not at all",
                remedy: "set it to otlp or none",
            });
        }
    }
    if cfg!(not(feature = "otlp")) {
        return Err(TracesError::NotBuilt(endpoint.map_or(EXPORTER, |(name, _)| name)));
    }
    let collector = match endpoint {
        Some((variable, value)) => address(&value).ok_or(TracesError::Variable {
            variable,
            value,
            reason: "it is no URL",
            remedy: "set it to that of a collector's OTLP over HTTP, such as http://127.0.0.1:4318",
        })?,
        // As the specification has it.
        None => "localhost:4318".to_owned(),
    };
    let protocol = [TRACES_PROTOCOL, PROTOCOL].into_iter().find_map(|name| Some((name, set(name)?)));
    if let Some((variable, value)) = protocol.filter(|(_, value)| value != "http/protobuf") {
        return Err(TracesError::Variable {
            variable,
            value,
            reason: "segue speaks http/protobuf only",
            remedy: "set it to http/protobuf and the endpoint to the collector's port for HTTP, mostly 4318",
        });
    }
    let sampling = sampling(set(SAMPLER), set(SAMPLER_ARGUMENT))?;
    Ok(Some(Wanted { collector, sampling }))
}

/// Without what may be secret in a URL.
fn address(text: &str) -> Option<String> {
    let url: Uri = text.parse().ok()?;
    let port = match url.scheme_str()? {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    Some(format!("{}:{}", url.host()?, url.port_u16().unwrap_or(port)))
}

fn sampling(name: Option<String>, argument: Option<String>) -> Result<Sampling, TracesError> {
    let name = name.unwrap_or_else(|| "parentbased_always_on".to_owned());
    let (by_parent, root) = match name.strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, name.as_str()),
    };
    let ratio = match root {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => match argument.as_ref().map(|argument| (argument, argument.parse())) {
            None => 1.0,
            Some((_, Ok(ratio))) if (0.0..=1.0).contains(&ratio) => ratio,
            Some((argument, _)) => {
                return Err(TracesError::Variable {
                    variable: SAMPLER_ARGUMENT,
                    value: argument.clone(),
                    reason: "it is no share of all traces",
                    remedy: "set it to a number from 0 to 1",
                });
            }
        },
        _ => {
            return Err(TracesError::Variable {
                variable: SAMPLER,
                value: name,
                reason: "there is no such sampler here",
                remedy: "set it to always_on, always_off or traceidratio, with or without parentbased_ before it",
            });
        }
    };
    Ok(Sampling { by_parent, ratio })
}

#[cfg(test)]
#[cfg(feature = "otlp")]
mod tests {
    use super::*;

    fn told(set: &[(&str, &str)]) -> Result<Option<Wanted>, TracesError> {
        wanted(|name| set.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned()))
    }

    fn of(set: &[(&str, &str)]) -> Result<Option<Sampling>, TracesError> {
        told(set).map(|wanted| wanted.map(|wanted| wanted.sampling))
    }

    const HERE: (&str, &str) = (ENDPOINT, "http://127.0.0.1:4318");
    const ALL: Sampling = Sampling { by_parent: true, ratio: 1.0 };

    #[test]
    fn an_endpoint_asks_for_traces_and_nothing_else_does() {
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[(ENDPOINT, ""), ("OTEL_SERVICE_NAME", "x"), (SAMPLER, "no-such")]), Ok(None));
        assert_eq!(of(&[HERE]), Ok(Some(ALL)));
        assert_eq!(of(&[(TRACES_ENDPOINT, "https://collector.example/v1/traces")]), Ok(Some(ALL)));
        assert_eq!(of(&[(EXPORTER, "otlp")]), Ok(Some(ALL)));
        assert_eq!(of(&[HERE, (EXPORTER, "none")]), Ok(None));
        assert_eq!(of(&[HERE, (DISABLED, "True"), (PROTOCOL, "grpc")]), Ok(None));
        assert_eq!(of(&[HERE, (DISABLED, "1")]), Ok(Some(ALL)), "only true disables");
    }

    #[test]
    fn the_collector_is_named_without_what_may_be_secret() {
        let collector = |set: (&'static str, &'static str)| told(&[set]).map(|wanted| wanted.unwrap().collector);
        assert_eq!(collector((ENDPOINT, "http://u:s3cret@h:1/x?token=s3cret")), Ok("h:1".to_owned()));
        assert_eq!(collector((TRACES_ENDPOINT, "https://h/v1/traces")), Ok("h:443".to_owned()));
        assert_eq!(collector((EXPORTER, "otlp")), Ok("localhost:4318".to_owned()));
    }

    #[test]
    fn the_samplers_have_their_usual_names() {
        let sampling = |name, argument| of(&[HERE, (SAMPLER, name), (SAMPLER_ARGUMENT, argument)]);
        let good = |by_parent, ratio| Ok(Some(Sampling { by_parent, ratio }));
        assert_eq!(sampling("always_on", "9"), good(false, 1.0));
        assert_eq!(sampling("always_off", ""), good(false, 0.0));
        assert_eq!(sampling("traceidratio", "0.25"), good(false, 0.25));
        assert_eq!(sampling("parentbased_traceidratio", "0.1"), good(true, 0.1));
        assert_eq!(sampling("parentbased_traceidratio", ""), good(true, 1.0));
        assert_eq!(sampling("parentbased_always_off", ""), good(true, 0.0));
    }

    #[test]
    fn what_is_not_supported_is_refused_with_what_is() {
        for (set, told) in [
            ((PROTOCOL, "grpc"), "OTEL_EXPORTER_OTLP_PROTOCOL=grpc: segue speaks http/protobuf only"),
            (
                (TRACES_PROTOCOL, "http/json"),
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/json: segue speaks http/protobuf",
            ),
            ((EXPORTER, "zipkin"), "OTEL_TRACES_EXPORTER=zipkin"),
            ((SAMPLER, "jaeger_remote"), "OTEL_TRACES_SAMPLER=jaeger_remote"),
            ((TRACES_ENDPOINT, "collector:4318"), "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=collector:4318: it is no URL"),
        ] {
            let said = of(&[HERE, set]).unwrap_err().to_string();
            assert!(said.starts_with(told) && said.contains("set it to"), "{said}");
        }
        let bad = of(&[HERE, (SAMPLER, "traceidratio"), (SAMPLER_ARGUMENT, "10%")]).unwrap_err().to_string();
        assert!(bad.starts_with("OTEL_TRACES_SAMPLER_ARG=10%") && bad.contains("from 0 to 1"), "{bad}");
    }
}
