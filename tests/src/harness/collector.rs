//! A collector of traces: takes OTLP over HTTP and remembers what came.

use std::sync::{Arc, Mutex};

use broker_adapter::shell::{Listener, Shell};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::{Port, free_port, wait_for};

/// One export as it came.
#[derive(Clone, Debug)]
pub struct Export {
    /// Where to.
    pub path: String,
    /// With which headers.
    pub headers: HeaderMap,
    /// A message of protobuf.
    pub body: Bytes,
}

/// Runs until the test ends.
pub struct Collector {
    shell: Shell,
    port: Port,
    exports: Arc<Mutex<Vec<Export>>>,
}

impl Collector {
    /// Starts one.
    ///
    /// # Panics
    /// If its port cannot be opened.
    pub async fn start(shell: &Shell) -> Collector {
        let port = free_port();
        let listener = shell.listen(&port.address()).await.expect("a free port can be opened");
        let exports = Arc::default();
        shell.spawn(accept(listener, Arc::clone(&exports), shell.clone()));
        Collector { shell: shell.clone(), port, exports }
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` is set to.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.port.address())
    }

    /// All that came so far.
    ///
    /// # Panics
    /// If it broke.
    #[must_use]
    pub fn exports(&self) -> Vec<Export> {
        self.exports.lock().expect("nobody panics with it").clone()
    }

    /// Waits until `found` gives something for what came.
    pub async fn wait<T>(&self, what: &str, mut found: impl FnMut(&[Export]) -> Option<T>) -> T {
        wait_for(&self.shell, what, || std::future::ready(found(&self.exports()))).await
    }
}

async fn accept(mut listener: Box<dyn Listener>, exports: Arc<Mutex<Vec<Export>>>, shell: Shell) {
    while let Ok(stream) = listener.accept().await {
        let exports = exports.clone();
        let service = service_fn(move |request| take(request, exports.clone()));
        shell.spawn(async move {
            // How it ends is the client's business.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn take(
    request: hyper::Request<Incoming>,
    exports: Arc<Mutex<Vec<Export>>>,
) -> Result<hyper::Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let (path, body) = (head.uri.path().to_owned(), body.collect().await?.to_bytes());
    exports.lock().expect("nobody panics with it").push(Export { path, headers: head.headers, body });
    // An empty message: everything was taken.
    Ok(hyper::Response::new(Full::default()))
}
