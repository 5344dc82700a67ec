//! What people get for right and wrong configurations.

use std::io::Write;

use serde::Deserialize;

use super::*;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    node: String,
    #[serde(default)]
    limit_bytes: Option<u64>,
    #[serde(default)]
    service: Vec<Service>,
    #[serde(default)]
    host: Option<Host>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    name: String,
    #[serde(default)]
    run: Vec<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Host {
    listen: String,
}

fn load_text(text: &str, environment: &[(&str, &str)], flags: &[Override]) -> Result<Sample, (ConfigError, String)> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let path = file.path().display().to_string();
    load("sidecar", Some(file.path()), environment, flags)
        .map_err(|error| (error.clone(), error.to_string().replace(&path, "FILE")))
}

fn message(text: &str) -> String {
    load_text(text, &[], &[]).unwrap_err().1
}

#[test]
fn flags_lie_above_the_environment_above_the_file() {
    let text = "node = 'file'\nlimit_bytes = 1\n[[service]]\nname = 'a'\n";
    let environment = [
        ("SEGUE_SIDECAR__NODE", "environment"),
        ("SEGUE_SIDECAR__LIMIT_BYTES", "2"),
        ("SEGUE_SIDECAR__SERVICE__0__RUN", "['x', 'y']"),
        ("SEGUE_SIDECAR__SERVICE__1__NAME", "b"),
        ("SEGUE_SIDECAR__HOST__LISTEN", "127.0.0.1:7070"),
        ("SEGUE_MIGRATOR__NODE", "not for this command"),
        ("SEGUE_HOLD", "not a key"),
    ];
    let sample = load_text(text, &environment, &[Override::flag("--node", "node", "flag")]).unwrap();
    assert_eq!((sample.node.as_str(), sample.limit_bytes), ("flag", Some(2)));
    assert_eq!(sample.service[0].run, ["x", "y"]);
    assert_eq!(sample.service[1].name, "b");
    assert_eq!(sample.host, Some(Host { listen: "127.0.0.1:7070".to_owned() }));
}

#[test]
fn an_unknown_key_is_refused_with_file_line_column_and_key() {
    let text = "node = 'a'\n\n[[service]]\nname = 'x'\n  naem = 'y'\n";
    let said = message(text);
    assert!(said.starts_with("FILE:5:3: key \"service.0.naem\": unknown field `naem`, expected "), "{said}");
    assert!(!said.contains('\n'));
}

#[test]
fn a_wrong_type_is_refused_with_file_line_column_and_key() {
    let said = message("node = 'a'\nlimit_bytes = 'many'\n");
    assert!(said.starts_with("FILE:2:15: key \"limit_bytes\": invalid type: string \"many\", expected u64"), "{said}");
}

#[test]
fn a_line_that_is_no_toml_is_refused_with_its_place() {
    assert!(message("node = 'a'\nlimit = = 3\n").starts_with("FILE:2:9: "), "{}", message("node = 'a'\nlimit = = 3\n"));
}

#[test]
fn a_missing_key_is_named() {
    assert!(message("limit_bytes = 1\n").starts_with("missing field `node`: set it in FILE"));
    assert!(
        message("node = 'a'\n[[service]]\nrun = []\n").starts_with("FILE:2:1: key \"service.0\": missing field `name`")
    );
}

#[test]
fn a_wrong_variable_is_named() {
    let wrong = |name: &str, value: &str| load_text("node = 'a'\n", &[(name, value)], &[]).unwrap_err().1;
    let said = wrong("SEGUE_SIDECAR__NODDE", "x");
    assert!(said.starts_with("the environment variable SEGUE_SIDECAR__NODDE: key \"nodde\": unknown field"), "{said}");
    let said = wrong("SEGUE_SIDECAR__LIMIT_BYTES", "many");
    assert!(said.contains("SEGUE_SIDECAR__LIMIT_BYTES: key \"limit_bytes\": invalid type"), "{said}");
    let said = wrong("SEGUE_SIDECAR__HOST", "{ listen = 'a', path = 'b' }");
    assert!(said.contains("SEGUE_SIDECAR__HOST: key \"host\": unknown field `path`"), "{said}");
    assert!(wrong("SEGUE_SIDECAR__NODE__X", "1").contains("node is a string and has no parts"));
    assert!(wrong("SEGUE_SIDECAR__SERVICE__7__NAME", "x").contains("service is a list of 0"));
    assert!(wrong("SEGUE_SIDEKAR__NODE", "x").contains("SEGUE_SIDEKAR__NODE names no command"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = load::<Sample>("sidecar", Some(Path::new("nowhere.toml")), std::iter::empty(), &[]).unwrap_err();
    assert!(error.to_string().starts_with("nowhere.toml: the configuration file cannot be read"));
}

#[test]
fn everything_may_come_from_flags() {
    let flags = [parse_set("node=a").unwrap(), parse_set("host.listen='b'").unwrap()];
    let sample: Sample = load("sidecar", None, std::iter::empty(), &flags).unwrap();
    assert_eq!((sample.node.as_str(), sample.host.unwrap().listen.as_str()), ("a", "b"));
    assert!(parse_set("node").is_err());
}

#[test]
fn a_batch_that_cannot_be_is_refused_with_its_place() {
    let said = |line: &str| {
        let service = "[[service]]\nname = 's'\nlisten = 'x'\n";
        let text = format!("node = 'a'\nbroker = 'x'\nadmin = 'x'\n{service}{line}\n");
        let config = super::document::Document::parse("FILE", &text).unwrap().into_config::<sidecar::Config>();
        config.map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(said("batch = '/segue/batch'\nbatch_limit_records = 16"), Ok(()));
    let error = said("batch = 'segue'").unwrap_err();
    assert!(error.starts_with("FILE:7:9: key \"service.0.batch\": \"segue\" is no path of the service"), "{error}");
    let error = said("batch_limit_records = 0").unwrap_err();
    assert!(error.starts_with("FILE:7:23: key \"service.0.batch_limit_records\": a batch has 1 to 4096"), "{error}");
}
