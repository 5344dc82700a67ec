//! Traces by OTLP: real processes, and a collector that reads what they export.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http_body_util::Full;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use rustix::process::{Signal, kill_process};
use segue_tests::harness::{Answer, Cluster, Collector, Export, HANG_LIMIT, Hold, Node, Process, SERVICE, Setup};
use segue_tests::harness::{binary, call_with, free_port, wait_for};

use crate::RATE_PER_S;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT: &str = "b7ad6b7169203331";
const PHASES: [&str; 7] = ["prepare", "checkpoint", "transfer", "restore", "replay", "verify", "handover"];

/// A span with the name of the process that exported it.
#[derive(Clone, Debug)]
struct Seen {
    service: String,
    span: Span,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

impl Seen {
    fn get(&self, key: &str) -> String {
        attribute(&self.span.attributes, key)
    }

    fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }

    fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }

    fn is_error(&self) -> bool {
        self.span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
    }
}

fn spans(exports: &[Export]) -> Vec<Seen> {
    let requests = exports.iter().map(|export| ExportTraceServiceRequest::decode(export.body.clone()));
    let groups = requests.flat_map(|request| request.expect("it is OTLP").resource_spans);
    let spans = groups.flat_map(|group| {
        let service = attribute(&group.resource.unwrap_or_default().attributes, "service.name");
        let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.map(move |span| Seen { service: service.clone(), span })
    });
    spans.collect()
}

/// Waits for a span that is like this.
async fn seen(collector: &Collector, what: &str, is: impl Fn(&Seen) -> bool) -> Seen {
    collector.wait(what, |exports| spans(exports).into_iter().find(&is)).await
}

fn exporting(endpoint: String, delay_ms: &str) -> BTreeMap<String, String> {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=seven"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
        ("OTEL_BSP_SCHEDULE_DELAY", delay_ms),
    ];
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

async fn append(cluster: &Cluster, body: &'static str, traceparent: Option<&str>) -> Answer {
    let address = cluster.ingress("edge-a");
    let mut request = hyper::Request::builder().method("POST").uri("/append?how=now").header("host", &address);
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    let request = request.body(Full::new(Bytes::from(body))).expect("tests write good requests");
    let answer = call_with(&cluster.shell, &address, request, HANG_LIMIT).await.expect("it is answered");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_deliveries_and_migrations_are_traced_and_a_replay_links_to_its_request() {
    let (shell, _tasks) = broker_adapter::shell::real::process();
    let collector = Collector::start(&shell).await;
    let setup = Setup::two_nodes().hold(Hold::before("restore"));
    let cluster = setup.variables(exporting(collector.endpoint(), "50")).start().await;
    let id = cluster.rest.migrate(SERVICE, "edge-b").await;
    let hold = cluster.hold.as_ref().expect("the setup has one");
    hold.held(&shell).await;
    // Behind the checkpoint: the target replays them.
    let sampled = append(&cluster, "one", Some(&format!("00-{TRACE}-{CLIENT}-01"))).await;
    let dropped = append(&cluster, "two", Some(&format!("00-{}-{CLIENT}-00", "1".repeat(32)))).await;
    let untraced = append(&cluster, "three", None).await;
    hold.release();
    let ended = cluster.rest.ended(&id).await;
    assert_eq!(ended.outcome.as_deref(), Some("completed"), "{:?}", ended.error);

    let position = sampled.header("segue-position").to_owned();
    let request = seen(&collector, "the request", |seen| seen.trace() == TRACE && seen.span.name == "POST").await;
    assert_eq!((request.parent().as_str(), request.span.kind()), (CLIENT, SpanKind::Server));
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("url.path", "/append"),
        ("segue.service", SERVICE),
        ("segue.shard", "0"),
        ("segue.node", "edge-a"),
        ("segue.position", position.as_str()),
        ("segue.parent", ""),
    ] {
        assert_eq!(request.get(key), value, "{key} of {request:?}");
    }
    assert_eq!(request.service, "segue-sidecar");
    assert!(!request.is_error());
    let child = seen(&collector, "the append", |seen| seen.trace() == TRACE && seen.span.name == "append").await;
    assert_eq!(child.parent(), request.id());
    let deliver = seen(&collector, "the delivery", |seen| seen.trace() == TRACE && seen.span.name == "deliver").await;
    assert_eq!((deliver.parent().as_str(), deliver.span.kind()), (CLIENT, SpanKind::Client));
    assert_eq!((deliver.get("segue.node"), deliver.get("segue.position")), ("edge-a".to_owned(), position.clone()));

    let is_replay = |position: &str| {
        let position = position.to_owned();
        move |seen: &Seen| {
            let is = (seen.span.name.as_str(), seen.get("segue.node").as_str()) == ("replay", "edge-b");
            is && seen.get("segue.position") == position
        }
    };
    let replay = seen(&collector, "the replay", is_replay(&position)).await;
    let links: Vec<_> = replay.span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect();
    assert_eq!(links, [(TRACE.to_owned(), CLIENT.to_owned())]);
    assert!(replay.trace() != TRACE && replay.parent().is_empty(), "{replay:?}");

    // Whose client began no trace: the record keeps that of the request.
    let position = untraced.header("segue-position");
    let root = seen(&collector, "the request without a trace", |seen| {
        (seen.span.kind(), seen.get("segue.position").as_str()) == (SpanKind::Server, position)
    });
    let root = root.await;
    assert!(root.parent().is_empty(), "{root:?}");
    let deliver = seen(&collector, "its delivery", |seen| seen.span.name == "deliver" && seen.trace() == root.trace());
    assert_eq!(deliver.await.parent(), root.id());
    let replay = seen(&collector, "its replay", is_replay(position)).await;
    assert_eq!(replay.span.links.iter().map(|link| hex(&link.span_id)).collect::<Vec<_>>(), [root.id()]);

    the_migration_is_traced(&collector, &id).await;
    let exports = collector.exports();
    assert!(exports.iter().all(|export| export.path == "/v1/traces" && export.headers["x-tenant"] == "seven"));
    let dropped = dropped.header("segue-position");
    let unsampled: Vec<Seen> =
        spans(&exports).into_iter().filter(|seen| seen.get("segue.position") == dropped).collect();
    assert!(unsampled.is_empty(), "the client's decision holds: {unsampled:?}");
}

async fn the_migration_is_traced(collector: &Collector, id: &str) {
    let root = seen(collector, "the migration", |seen| seen.span.name == "migration").await;
    for (key, value) in [
        ("segue.migration", id),
        ("segue.service", SERVICE),
        ("segue.from", "edge-a"),
        ("segue.to", "edge-b"),
        ("segue.strategy", "live"),
        ("segue.outcome", "completed"),
    ] {
        assert_eq!(root.get(key), value, "{key} of {root:?}");
    }
    assert_eq!(root.service, "segue-migrator");
    assert_eq!(root.span.status.as_ref().map(|status| status.code()), Some(StatusCode::Ok));
    let of_it = |seen: &Seen| seen.trace() == root.trace() && seen.parent() == root.id();
    let children: Vec<Seen> = spans(&collector.exports()).into_iter().filter(of_it).collect();
    let names: BTreeSet<&str> = children.iter().map(|seen| seen.span.name.as_str()).collect();
    assert_eq!(names, PHASES.into(), "{children:?}");
    for child in &children {
        assert_eq!(child.get("segue.migration"), id);
        assert!(child.span.start_time_unix_nano >= root.span.start_time_unix_nano && !child.is_error());
        assert!(child.span.end_time_unix_nano <= root.span.end_time_unix_nano, "{child:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_is_rolled_back_is_an_error_and_so_is_the_phase_that_failed() {
    let (shell, _tasks) = broker_adapter::shell::real::process();
    let collector = Collector::start(&shell).await;
    let failing = Node { faults: "refuse-load".to_owned(), ..Node::named("edge-b") };
    let setup = Setup::nodes(vec![Node::creating("edge-a"), failing]).hold(Hold::before("checkpoint"));
    let mut cluster = setup.variables(exporting(collector.endpoint(), "50")).start().await;
    let id = cluster.rest.migrate(SERVICE, "edge-b").await;
    cluster.hold.as_ref().expect("the setup has one").held(&shell).await;
    // Whoever takes it over traces it from there.
    cluster.migrator.kill();
    cluster.migrator.restart();
    cluster.migrator_ready().await;
    cluster.hold.as_ref().expect("the setup has one").release();
    assert_eq!(cluster.rest.ended(&id).await.outcome.as_deref(), Some("rolled-back"));
    let root = seen(&collector, "the migration", |seen| seen.span.name == "migration").await;
    assert_eq!((root.get("segue.migration"), root.get("segue.outcome")), (id.clone(), "rolled-back".to_owned()));
    assert!(root.is_error(), "{root:?}");
    let of_it = |seen: &Seen| seen.trace() == root.trace() && seen.parent() == root.id();
    let children: Vec<Seen> = spans(&collector.exports()).into_iter().filter(of_it).collect();
    let failed: Vec<&str> =
        children.iter().filter(|seen| seen.is_error()).map(|seen| seen.span.name.as_str()).collect();
    // The state streams while it is restored.
    assert!(failed == ["transfer"] || failed == ["restore"], "{children:?}");
    assert!(children.iter().any(|seen| seen.span.name == "rolling-back"), "{children:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_traced_goes_out_when_a_signal_ends_the_process() {
    let (shell, _tasks) = broker_adapter::shell::real::process();
    let collector = Collector::start(&shell).await;
    let variables = exporting(collector.endpoint(), "3600000");
    let mut cluster = Setup::two_nodes().variables(variables).start().await;
    append(&cluster, "one", Some(&format!("00-{TRACE}-{CLIENT}-01"))).await;
    assert!(collector.exports().is_empty(), "the next export is an hour away");
    kill_process(cluster.process("edge-a").pid(), Signal::TERM).expect("it runs");
    assert_eq!(cluster.process("edge-a").ended(&shell).await.code, Some(128 + 15));
    let spans = spans(&collector.exports());
    assert!(spans.iter().any(|seen| seen.trace() == TRACE && seen.span.name == "POST"), "{spans:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_costs_one_line() {
    let away = free_port();
    let mut cluster = Setup::two_nodes().variables(exporting(format!("http://{}", away.address()), "10")).start().await;
    let load = cluster.load(&["edge-a"], RATE_PER_S);
    let lines = |log: String| log.lines().filter(|line| line.contains("traces cannot be exported")).count();
    let shell = cluster.shell.clone();
    wait_for(&shell, "the warning", || std::future::ready((lines(cluster.process("edge-a").log()) > 0).then_some(())))
        .await;
    // For as long as more exports fail.
    load.acknowledges(600).await;
    drop(load);
    assert_eq!(lines(cluster.process("edge-a").log()), 1);
    let id = cluster.rest.migrate(SERVICE, "edge-b").await;
    assert_eq!(cluster.rest.ended(&id).await.outcome.as_deref(), Some("completed"));
    kill_process(cluster.process("edge-a").pid(), Signal::TERM).expect("it runs");
    assert_eq!(cluster.process("edge-a").ended(&shell).await.code, Some(128 + 15), "the end waits only so long");
}

/// The names of a process's threads, as far as the kernel keeps them.
fn threads(process: &Process) -> Vec<String> {
    let folder = format!("/proc/{}/task", process.pid().as_raw_pid());
    let tasks = std::fs::read_dir(folder).expect("a running process has threads").flatten();
    tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok()).collect()
}

fn exports(process: &Process) -> bool {
    threads(process).iter().any(|name| name.starts_with("OpenTelemetry"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_variables_nothing_is_exported() {
    let (shell, _tasks) = broker_adapter::shell::real::process();
    let collector = Collector::start(&shell).await;
    let disabled = |name: &str, value: &str| {
        let mut variables = exporting(collector.endpoint(), "10");
        variables.insert(name.to_owned(), value.to_owned());
        variables
    };
    let named = BTreeMap::from([("OTEL_SERVICE_NAME".to_owned(), "mine".to_owned())]);
    let off = [named, disabled("OTEL_SDK_DISABLED", "true"), disabled("OTEL_TRACES_EXPORTER", "none")];
    for variables in off {
        let mut cluster = Setup::two_nodes().variables(variables.clone()).start().await;
        append(&cluster, "one", Some(&format!("00-{TRACE}-{CLIENT}-01"))).await;
        assert!(!exports(cluster.process("edge-a")) && !exports(&cluster.migrator), "{variables:?}");
        kill_process(cluster.process("edge-a").pid(), Signal::TERM).expect("it runs");
        assert_eq!(cluster.process("edge-a").ended(&shell).await.code, None, "the signal itself ended it");
    }
    assert!(collector.exports().is_empty());
    let named = disabled("OTEL_SERVICE_NAME", "mine");
    let mut cluster = Setup::two_nodes().variables(named).start().await;
    assert!(exports(cluster.process("edge-a")) && exports(&cluster.migrator), "so that is how it shows");
    append(&cluster, "one", None).await;
    seen(&collector, "a span of the name that was given", |seen| seen.service == "mine").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_protocol_that_is_not_spoken_ends_every_server_at_the_start() {
    let (shell, _tasks) = broker_adapter::shell::real::process();
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let mut variables = exporting("http://127.0.0.1:4317".to_owned(), "10");
    variables.insert("OTEL_EXPORTER_OTLP_PROTOCOL".to_owned(), "grpc".to_owned());
    for role in ["broker", "migrator", "sidecar"] {
        let arguments = vec![role.to_owned()];
        let mut process = Process::start(folder.path(), role, binary("segue"), arguments, variables.clone());
        let ended = process.ended(&shell).await;
        assert_eq!(ended.code, Some(2), "segue {role}: {}", ended.log);
        let told = "OTEL_EXPORTER_OTLP_PROTOCOL=grpc: segue speaks http/protobuf only";
        assert!(ended.log.contains(told), "segue {role}: {}", ended.log);
    }
}
