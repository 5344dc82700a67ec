//! Clients that hold a connection without a request are let go; those that wait for a reply are not, however long it takes.

use sidecar::ingress::IDLE_LIMIT;
use tokio::io::AsyncRead;

use super::*;

/// A connection is looked at once in the limit, and has as long again to end.
const GONE_AFTER: Duration = IDLE_LIMIT.saturating_mul(4);

async fn is_closed(shell: &Shell, stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut left = Vec::new();
    // A reset is a close too.
    shell.within(Duration::from_secs(1), stream.read_to_end(&mut left)).await.is_some()
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_request_is_let_go() {
    let world = World::new();
    let _owner = world.owner(json!({})).await;
    let whole = "GET /x HTTP/1.1\r\nhost: m\r\n\r\n";
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for begins in ["", "P", "GET /x HTTP/1.1\r\nhost:", whole, preface] {
        let mut stream = world.shell.connect("edge-a:80").await.expect("the ingress listens");
        stream.write_all(begins.as_bytes()).await.expect("it is taken");
        world.shell.sleep(IDLE_LIMIT / 2).await;
        let mut answered = [0; 1];
        if begins == whole || begins == preface {
            stream.read_exact(&mut answered).await.expect("it is answered");
        }
        assert!(!is_closed(&world.shell, &mut stream).await, "{begins:?} is closed at once");
        world.shell.sleep(GONE_AFTER).await;
        assert!(is_closed(&world.shell, &mut stream).await, "{begins:?} stays");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_its_reply_is_not_idle() {
    let world = World::new();
    let long = GONE_AFTER * 2;
    let limit_ms = u64::try_from(2 * long.as_millis()).expect("it is small");
    let _owner = world.owner(json!({ "reply_timeout_ms": limit_ms, "delivery_timeout_ms": limit_ms })).await;
    world.mirror.delay(long);
    let stream = world.shell.connect("edge-a:80").await.expect("the ingress listens");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("it speaks HTTP/1.1");
    world.shell.spawn(async move { drop(connection.await) });
    for method in ["POST", "GET"] {
        let began = world.shell.now();
        let request = request((method, "/x"), &[]).header("host", "mirror").body(Full::<Bytes>::default());
        let answer = sender.send_request(request.expect("a good request")).await.expect("it answers");
        assert_eq!(whole(answer).await.status, 200, "{method}");
        assert!(world.shell.now() - began >= long, "{method} was slow");
    }
}
