//! The load on real sockets and real time, because the pacing thread is one.

use super::*;
use crate::demo::verdict::{Logged, Reply, judge};

fn run<F: Future<Output = ()>>(test: impl FnOnce(Shell) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (shell, _tasks) = real::process();
        test(shell).await;
    });
}

fn plan(address: String, requests: usize, rate_per_s: u32) -> Plan {
    let lines = crate::demo::expected::flights().unwrap();
    let lines = lines.into_iter().take(300).map(Bytes::from).collect();
    Plan { address, lines: Arc::new(lines), requests, rate_per_s }
}

#[test]
fn every_request_is_sent_once_at_its_time() {
    run(|shell| async move {
        let address = crate::board::serve("127.0.0.1:0", 0, shell.clone()).await.unwrap();
        let plan = plan(address, 1000, 2000);
        let load = start(plan.clone(), &shell).unwrap();
        let began = load.began;
        let mut sent = load.finish().await.unwrap();
        sent.sort_by_key(|sent| sent.request);
        assert_eq!(sent.len(), 1000);
        for (request, sent) in sent.iter().enumerate() {
            assert_eq!((sent.request, sent.due), (request, began + Duration::from_micros(500) * request as u32));
            assert!(sent.sent >= sent.due && sent.ended >= sent.sent);
        }
        // Here the service itself is the log: the order of its own n.
        let replies: Vec<Reply> = sent
            .iter()
            .map(|sent| match sent.outcome {
                Outcome::Acknowledged { n, hash } => {
                    Reply { request: sent.request, n, hash, sent: sent.sent, got: sent.ended }
                }
                ref other => panic!("{other:?}"),
            })
            .collect();
        let line = |request: usize| plan.lines[request % plan.lines.len()].as_ref();
        let mut log: Vec<&Reply> = replies.iter().collect();
        log.sort_by_key(|reply| reply.n);
        let log: Vec<Logged> =
            log.iter().map(|r| Logged { request: Some(r.request), line: line(r.request).to_vec() }).collect();
        let lines: Vec<&[u8]> = (0..1000).map(line).collect();
        let verdict = judge(&lines, &log, &replies);
        assert!(verdict.is_good(), "{verdict:?}");
    });
}

#[test]
fn a_silent_server_delays_nobody_else() {
    run(|shell| async move {
        // Accepts and never answers: a connection for each request is needed.
        let (accepted_sender, accepted) = watch::channel(0);
        let mut listener = shell.listen("127.0.0.1:0").await.unwrap();
        let address = listener.address();
        shell.spawn(async move {
            let mut held = Vec::new();
            while let Ok(connection) = listener.accept().await {
                held.push(connection);
                accepted_sender.send_replace(held.len());
            }
        });
        let (part, tasks) = shell.part();
        let load = start(plan(address, 200, 4000), &part).unwrap();
        shell.sleep(Duration::from_millis(400)).await;
        assert_eq!((*accepted.borrow(), load.progress.borrow().ended), (200, 0));
        drop(tasks);
        assert!(load.finish().await.is_none());
    });
}

#[test]
fn a_refused_request_is_not_sent_again() {
    run(|shell| async move {
        let address = crate::board::serve("127.0.0.1:0", 0, shell.clone()).await.unwrap();
        let mut plan = plan(address.clone(), 20, 1000);
        plan.lines = Arc::new(vec![Bytes::from_static(b"no flight")]);
        let sent = start(plan, &shell).unwrap().finish().await.unwrap();
        assert_eq!(sent.len(), 20);
        assert!(sent.iter().all(|sent| matches!(sent.outcome, Outcome::Refused { status: 400, .. })));
        let nobody = self::plan("127.0.0.1:1".to_owned(), 20, 1000);
        let sent = start(nobody, &shell).unwrap().finish().await.unwrap();
        assert!(sent.iter().all(|sent| matches!(sent.outcome, Outcome::Unanswered { .. })));
    });
}
