//! A service that answers alone and in batches: both replies must be the same, and every other shape an error.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::record::Header;
use broker_adapter::shell::sim::SimWorld;
use broker_adapter::shell::{Shell, TaskSet};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::*;

/// What the service answers to a path alone; in a batch, what its line says.
type Answers = fn(&str) -> (u16, Vec<(&'static str, &'static str)>, &'static [u8], &'static str);

struct Bench {
    shell: Shell,
    address: String,
    /// Batches as they came.
    seen: Arc<Mutex<Vec<String>>>,
    _tasks: TaskSet,
}

async fn bench(alone: Answers, batch: fn(&[String]) -> (u16, String)) -> Bench {
    let (shell, tasks) = SimWorld::new(1).process();
    let mut listener = shell.listen("service:80").await.unwrap();
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let (noted, server) = (seen.clone(), shell.clone());
    shell.spawn(async move {
        while let Ok(stream) = listener.accept().await {
            let noted = noted.clone();
            server.spawn(async move {
                let service = service_fn(|request| answer(request, alone, batch, noted.clone()));
                let mut http = hyper::server::conn::http1::Builder::new();
                let _ = http.auto_date_header(false).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Bench { shell, address: "service:80".to_owned(), seen, _tasks: tasks }
}

async fn answer(
    request: hyper::Request<Incoming>,
    alone: Answers,
    batch: fn(&[String]) -> (u16, String),
    noted: Arc<Mutex<Vec<String>>>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    if path != "/batch" {
        let (status, headers, body, _) = alone(&path);
        let mut response = hyper::Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        return Ok(response.body(Full::from(body)).unwrap());
    }
    assert_eq!(request.headers()["content-type"], CONTENT_TYPE);
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let lines: Vec<String> = std::str::from_utf8(&body).unwrap().lines().map(str::to_owned).collect();
    let (status, answer) = batch(&lines);
    noted.lock().unwrap().extend(lines);
    Ok(hyper::Response::builder().status(status).body(Full::from(answer)).unwrap())
}

fn request(path: &str, body: &'static [u8]) -> Request {
    let header = Header { name: "x-color".to_owned(), value: Bytes::from_static(b"blue") };
    Request {
        method: "POST".to_owned(),
        path: path.to_owned(),
        headers: vec![header],
        body: Body::Inline(Bytes::from_static(body)),
    }
}

fn deliveries(requests: &[Request]) -> Vec<Delivery<'_>> {
    let delivery = |(position, request)| Delivery {
        position: Position(position),
        time_ms: 1_000,
        seed: "5eed".to_owned(),
        replay: false,
        request,
    };
    (7..).zip(requests).map(delivery).collect()
}

const LIMITS: Limits = Limits { time: Duration::from_millis(500), reply_bytes: 100 };

fn replies(path: &str) -> (u16, Vec<(&'static str, &'static str)>, &'static [u8], &'static str) {
    const LONG: &[u8] = &[b'x'; 101];
    const LONG_LINE: &str = concat!(
        r#"{"status":200,"body":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"#,
        r#"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#
    );
    match path {
        "/text" => (
            201,
            vec![
                ("Content-Type", "text/plain"),
                ("x-a", " 1 "),
                ("connection", "keep-alive"),
                ("x-b", "2"),
                ("x-a", "3"),
            ],
            "gr\u{fc}n \"\n".as_bytes(),
            "{\"status\":201,\"headers\":[[\"Content-Type\",\"text/plain\"],[\"x-a\",\" 1 \"],[\"Keep-Alive\",\"1\"],\
             [\"x-b\",\"2\"],[\"x-a\",\"3\"],[\"content-length\",\"9\"]],\"body\":\"gr\\u00fcn \\\"\\n\"}",
        ),
        "/bytes" => (500, vec![], &[0xff, 0, 1], r#"{"body64":"/wAB","status":500}"#),
        "/nothing" => (204, vec![], b"", r#"{"status":204,"body":"none"}"#),
        "/long" => (200, vec![("x-a", "1")], LONG, LONG_LINE),
        _ => (404, vec![], b"", r#"{ "status": 404 }"#),
    }
}

fn batched(lines: &[String]) -> (u16, String) {
    let answer = |line: &String| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        format!("{}\n", replies(line["path"].as_str().unwrap()).3)
    };
    (200, lines.iter().map(answer).collect())
}

#[tokio::test(start_paused = true)]
async fn a_reply_is_the_same_alone_and_in_a_batch() {
    let bench = bench(replies, batched).await;
    let requests = ["/text", "/bytes", "/nothing", "/long", "/unknown"].map(|path| request(path, b"a body"));
    let deliveries = deliveries(&requests);
    let mut connection = Connection::open(&bench.address, &bench.shell).await.unwrap();
    let together = connection.deliver_batch("/batch", &deliveries, LIMITS).await.unwrap();
    for (delivery, reply) in deliveries.iter().zip(&together) {
        let alone = connection.deliver(delivery.request, &[], LIMITS).await.unwrap();
        assert_eq!(*reply, alone, "{}", delivery.request.path);
    }
    assert_eq!(together[3], reply_too_large(100));
}

#[tokio::test(start_paused = true)]
async fn a_request_s_line_says_all_that_its_headers_would() {
    let bench = bench(replies, batched).await;
    let requests = [request("/text", "gr\u{fc}n".as_bytes()), request("/bytes", &[0xff, 0]), request("/nothing", b"")];
    let mut connection = Connection::open(&bench.address, &bench.shell).await.unwrap();
    connection.deliver_batch("/batch", &deliveries(&requests), LIMITS).await.unwrap();
    let common = r#""time":1000,"seed":"5eed","replay":false,"method":"POST""#;
    assert_eq!(
        *bench.seen.lock().unwrap(),
        [
            format!(r#"{{"position":7,{common},"path":"/text","headers":[["x-color","blue"]],"body":"grün"}}"#),
            format!(r#"{{"position":8,{common},"path":"/bytes","headers":[["x-color","blue"]],"body64":"/wA="}}"#),
            format!(r#"{{"position":9,{common},"path":"/nothing","headers":[["x-color","blue"]]}}"#),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn every_other_shape_is_an_error_that_says_what_is_wrong() {
    const OK: &str = "{\"status\":200}\n";
    for (answer, says) in [
        ((200, OK.to_owned()), "it has 1 lines where the batch has 2"),
        ((200, OK.repeat(3)), "it has more lines than the batch's 2"),
        ((200, format!("{OK}\n")), "line 2, for POST /b at position 8: EOF"),
        ((200, format!("{OK}{{\"status\":200,\"Body\":\"\"}}\n")), "unknown field `Body`"),
        ((200, format!("{OK}{{\"body\":\"\"}}")), "missing field `status`"),
        ((200, format!("{OK}{{\"status\":100}}")), "the status 100 is not"),
        ((200, format!("{OK}{{\"status\":200,\"body\":\"a\",\"body64\":\"YQ==\"}}")), "both body and body64"),
        ((200, format!("{OK}{{\"status\":200,\"body64\":\"?\"}}")), "body64: "),
        ((200, format!("{OK}{{\"status\":200,\"headers\":[[\"a b\",\"\"]]}}")), "the header \"a b\""),
        ((503, "not now".to_owned()), "with 503: not now"),
    ] {
        let error = read(&answer.1, answer.0).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("POST /batch with the requests at positions 7 to 8"), "{text}");
        assert!(text.contains(says), "{text}");
    }
    assert_eq!(read(&format!("{OK}{}", OK.trim_end()), 200).await.unwrap().len(), 2, "the last line needs no end");
}

async fn read(answer: &str, status: u16) -> Result<Vec<Reply>, ServiceError> {
    let requests = [request("/a", b""), request("/b", b"")];
    let deliveries = deliveries(&requests);
    let (shell, _tasks) = SimWorld::new(1).process();
    let mut listener = shell.listen("service:80").await.unwrap();
    let answer = answer.to_owned();
    shell.spawn(async move {
        let stream = listener.accept().await.unwrap();
        let service = service_fn(|_| {
            let response = hyper::Response::builder().status(status).body(Full::<Bytes>::from(answer.clone())).unwrap();
            async move { Ok::<_, Infallible>(response) }
        });
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    });
    let mut connection = Connection::open("service:80", &shell).await.unwrap();
    connection.deliver_batch("/batch", &deliveries, LIMITS).await
}

#[test]
fn lines_may_come_in_any_pieces_and_an_endless_one_is_not_kept() {
    let requests = [request("/a", b""), request("/b", b"")];
    let deliveries = deliveries(&requests);
    let long = format!("{{\"status\":200,\"body\":\"{}\"}}\n", "x".repeat(3 << 20));
    let answer = format!("{long}{{\"status\":204}}\n");
    for piece in [1_000, 7_777, answer.len()] {
        let mut lines = ReplyLines::new(&deliveries, 100);
        for part in answer.as_bytes().chunks(piece) {
            lines.push(part).unwrap();
            assert!(lines.begun.len() as u64 <= lines.line_limit_bytes());
        }
        let replies = lines.finish().unwrap();
        assert_eq!(replies[0], reply_too_large(100));
        assert_eq!(replies[1].status, 204);
    }
}

#[test]
fn what_json_cannot_carry_goes_alone() {
    let header = |value: &'static [u8]| Header { name: "x".to_owned(), value: Bytes::from_static(value) };
    assert!(fits(&request("/", &[0xff])));
    assert!(!fits(&Request { headers: vec![header(&[0xff])], ..request("/", b"") }));
    assert!(!fits(&Request { method: "HEAD".to_owned(), ..request("/", b"") }));
}
