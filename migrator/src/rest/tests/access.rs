//! Tokens, roles, the audit log.

use serde_json::{Value, json};

use super::super::{Access, Audit, Tokens};
use super::Server;
use crate::bench::{Manner, call_with};

#[tokio::test(start_paused = true)]
async fn without_a_token_nobody_looks_a_viewer_changes_nothing_and_every_change_is_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let (tokens, audit) = (folder.path().join("tokens"), folder.path().join("audit"));
    std::fs::write(&tokens, "vera viewer vera-has-a-token\notto operator otto-has-a-token\n").unwrap();
    let mut server = Server::start(Manner::Good).await;
    server
        .restart_with(Access {
            tokens: Tokens::read(&tokens).unwrap(),
            audit: Audit::open(&audit).unwrap(),
            hosted: None,
        })
        .await;
    let order = json!({ "service": "board", "to": "b" }).to_string();
    let ask = async |token: &str, line: (&str, &str)| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let headers = if token.is_empty() { &headers[..0] } else { &headers[..] };
        call_with(&server.shell, &server.address, line, headers, &order).await.unwrap()
    };
    let (look, change) = (("GET", "/v1/status"), ("POST", "/v1/migrations"));
    for (token, line, status, code) in [
        ("", look, 401, "no-token"),
        ("vera-has-a-toke", look, 401, "bad-token"),
        ("", ("GET", "/metrics"), 401, "no-token"),
        ("", change, 401, "no-token"),
        ("vera-has-a-token", change, 403, "not-allowed"),
    ] {
        let answer = ask(token, line).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{token} {line:?}");
    }
    assert_eq!(ask("vera-has-a-token", look).await.json()["role"], "viewer");
    assert_eq!(ask("otto-has-a-token", look).await.json()["role"], "operator");
    assert_eq!(ask("vera-has-a-token", ("POST", "/v1/migrations?validate_only=true")).await.status, 200);
    assert_eq!((ask("", ("GET", "/livez")).await.status, ask("", ("GET", "/")).await.status), (200, 200));
    let accepted = ask("otto-has-a-token", change).await;
    assert_eq!(accepted.status, 202);
    let lines: Vec<Value> =
        std::fs::read_to_string(&audit).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> =
        lines.iter().map(|line| (line["who"].as_str().unwrap(), line["status"].as_u64().unwrap())).collect();
    assert_eq!(told, [("unknown", 401), ("vera", 403), ("otto", 202)]);
    let last = &lines[2];
    assert_eq!((&last["body"]["to"], last["location"].as_str()), (&json!("b"), Some(accepted.location.as_str())));
    assert_eq!(last["request_id"], accepted.request_id.as_str());
    assert!(!std::fs::read_to_string(&audit).unwrap().contains("has-a-token"));
}
