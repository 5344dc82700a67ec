//! What a sidecar's configuration that cannot hold is told: each names its line.

use std::io::Write;

use super::load;

/// Lines 1 to 3 of every file here.
const HEAD: &str = "node = 'a'\nbroker = 'memory:'\nadmin = '127.0.0.1:1'\n";
/// Lines 4 to 8.
const SERVICE: &str =
    "[[service]]\nname = 's'\nlisten = '127.0.0.1:2'\nrun = ['x']\nstate = { kind = 'http', path = '/state' }\n";

fn said(text: &str) -> String {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let path = file.path().display().to_string();
    match load::<sidecar::Config>("sidecar", Some(file.path()), std::iter::empty(), &[]) {
        Ok(_) => String::new(),
        Err(error) => error.to_string().replace(&path, "FILE"),
    }
}

fn assert_refused(text: &str, place: &str, words: &str) {
    let said = said(text);
    assert!(said.starts_with(place) && said.contains(words), "{said}");
    assert!(!said.contains('\n'), "{said}");
}

#[test]
fn a_route_that_cannot_hold_is_refused_with_its_line() {
    let route = |lines: &str| format!("{HEAD}{SERVICE}[[service.route]]\n{lines}");
    assert_eq!(said(&route("method = 'GET'\npath = '/x/*'\nto = 'local'\n")), "");
    assert_refused(
        &route("path = '/x'\nto = 'fresh'\n"),
        "FILE:9:1: key \"service.0.route.0\"",
        "a route that cannot hold",
    );
    assert_refused(&route("path = 'x'\nto = 'logged'\n"), "FILE:10:8: key \"service.0.route.0.path\"", "is no path");
    assert_refused(&route("path = '/segue/x'\nto = 'logged'\n"), "FILE:10:8", "belongs to the sidecar");
    assert_refused(&route("method = 'get'\npath = '/x'\nto = 'local'\n"), "FILE:10:10", "is no method");
    assert_refused(&route("path = '/x'\nto = 'somewhere'\n"), "FILE:11:6", "unknown variant");
    assert_refused(&route("path = '/x'\nto = 'logged'\nto_ = 1\n"), "FILE:12:1", "unknown field `to_`");
    let second = "path = '/*'\nto = 'logged'\n[[service.route]]\nmethod = 'GET'\npath = '/x'\nto = 'local'\n";
    assert_refused(&route(second), "FILE:4:1: key \"service.0\"", "route 2 (/x) is never reached");
}

#[test]
fn a_place_for_checkpoints_that_cannot_be_is_refused_with_its_line() {
    let checkpoints = |place: &str| format!("{HEAD}checkpoints = '{place}'\n{SERVICE}");
    for good in ["broker", "file:///srv/segue"] {
        assert_eq!(said(&checkpoints(good)), "");
    }
    let place = "FILE:4:15: key \"checkpoints\"";
    assert_refused(&checkpoints("ftp://host/x"), place, "\"ftp://\" is no place for checkpoints: use \"broker\"");
    assert_refused(&checkpoints("file://relative"), place, "an absolute path");
    assert_refused(&checkpoints("s3://key:hidden@bucket"), place, "AWS_ACCESS_KEY_ID");
    if cfg!(feature = "s3") {
        assert_eq!(said(&checkpoints("s3://bucket/x")), "");
    } else {
        assert_refused(&checkpoints("s3://bucket/x"), place, "needs the feature \"s3\"");
    }
}

#[test]
fn a_limit_that_cannot_hold_is_refused_with_its_line() {
    for key in [
        "parking_limit_requests",
        "parking_limit_bytes",
        "reply_timeout_ms",
        "delivery_timeout_ms",
        "start_timeout_ms",
        "state_rate_mb_per_s",
        "batch_limit_bytes",
    ] {
        let place = format!("FILE:9:{}: key \"service.0.{key}\"", key.len() + 4);
        assert_refused(&format!("{HEAD}{SERVICE}{key} = 0\n"), &place, "at least 1");
    }
    for bytes in ["0", "67108865"] {
        let text = format!("{HEAD}{SERVICE}body_limit_bytes = {bytes}\n");
        assert_refused(&text, "FILE:9:20: key \"service.0.body_limit_bytes\"", "choose 1 to");
    }
    let settings = |line: &str| format!("{HEAD}{SERVICE}[service.settings]\n{line}\n");
    assert_refused(&settings("replies_kept = 0"), "FILE:9:", "replies_kept = 0 cannot hold");
    assert_refused(&settings("reply_limit_bytes = 1000000000"), "FILE:9:", "replies_kept_bytes");
}

#[test]
fn a_path_that_is_none_is_refused_with_its_line() {
    for (line, place) in
        [("ready = 'x'", "FILE:9:9: key \"service.0.ready\""), ("state_hash = { http = 'x' }", "FILE:9:14")]
    {
        assert_refused(&format!("{HEAD}{SERVICE}{line}\n"), place, "it begins with '/'");
    }
}

#[test]
fn a_service_whose_keys_do_not_fit_together_is_refused_with_its_line() {
    let ingress = "[[service]]\nname = 's'\nlisten = '127.0.0.1:2'\n";
    assert_eq!(said(&format!("{HEAD}{ingress}")), "", "an ingress without a replica");
    let place = "FILE:4:1: key \"service.0\"";
    assert_refused(&format!("{HEAD}{ingress}create = true\n"), place, "create = true of s cannot hold");
    assert_refused(&format!("{HEAD}{ingress}run = ['x']\n"), place, "state of s is missing");
    assert_refused(
        &format!("{HEAD}{SERVICE}parking_limit_bytes = 1\n"),
        place,
        "parking_limit_bytes = 1 of s cannot hold",
    );
    assert_refused(&format!("{HEAD}[[service]]\nname = 's'\n"), place, "missing field `listen`");
}

#[test]
fn what_is_said_about_nats_and_cannot_hold_is_refused_with_its_line() {
    let nats = |line: &str| format!("{HEAD}[nats]\n{line}\n");
    assert_eq!(
        said(&nats("durability = 'quorum-fsync'\nreplicas = 3\nmonitoring_url = 'http://a:8222, http://b:8222/'")),
        ""
    );
    assert_refused(&nats("durability = 'always'"), "FILE:5:14: key \"nats.durability\"", "quorum-fsync");
    assert_refused(&nats("replicas = 7"), "FILE:5:12: key \"nats.replicas\"", "1 to 5");
    assert_refused(&nats("monitoring_url = 'a:8222'"), "FILE:5:18: key \"nats.monitoring_url\"", "http://HOST:PORT");
    assert_refused(&nats("max_bytes = 0"), "FILE:5:13: key \"nats.max_bytes\"", "nonzero");
    assert_refused(&nats("tls = { key = '/k' }"), "FILE:5:7: key \"nats.tls\"", "belong together");
    assert_refused(&nats("user = 'a'"), "FILE:5:1: key \"nats.user\"", "unknown field");
}
