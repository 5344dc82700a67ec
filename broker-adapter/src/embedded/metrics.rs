//! What an embedded broker counts, under the names `segue_broker_*` with their units.
//!
//! The committer and the server count while they work; sizes are looked up when somebody asks.

use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

/// One broker's numbers.
pub struct Metrics {
    registry: Registry,
    /// Appends that were made durable.
    pub appends: IntCounter,
    /// The records in them.
    pub records: IntCounter,
    /// Appends that were refused or failed.
    pub append_failures: IntCounter,
    /// From the handing over of an append until it is durable.
    pub append_seconds: Histogram,
    /// One write, flush and fsync of all that waited.
    pub commit_seconds: Histogram,
    /// Connections of clients, whatever they are for.
    pub connections: IntGauge,
    /// Those of them that read a log.
    pub readers: IntGauge,
    /// Connections that were not let in, for whatever reason.
    pub refused: IntCounter,
    /// Those of them with a wrong token or none.
    pub bad_tokens: IntCounter,
    disk: IntGauge,
    disk_free: IntGauge,
    logs: IntGauge,
    trouble: IntGauge,
}

/// What is looked up.
pub struct Looked {
    pub used_bytes: u64,
    pub free_bytes: Option<u64>,
    pub logs: usize,
    pub is_in_trouble: bool,
}

/// Counted for as long as it lives.
pub struct Counted(IntGauge);

impl Counted {
    pub fn one(of: &IntGauge) -> Counted {
        of.inc();
        Counted(of.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        let registry = Registry::new();
        let known = "names are constants, each registered once";
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("segue_broker_{name}"), help).expect(known);
            registry.register(Box::new(counter.clone())).expect(known);
            counter
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("segue_broker_{name}"), help).expect(known);
            registry.register(Box::new(gauge.clone())).expect(known);
            gauge
        };
        let seconds = |name: &str, help: &str| {
            // 50 µs to 13 s: from a disk with a battery to one that is dying.
            let buckets = prometheus::exponential_buckets(0.000_05, 2.0, 19).expect(known);
            let opts = HistogramOpts::new(format!("segue_broker_{name}"), help).buckets(buckets);
            let histogram = Histogram::with_opts(opts).expect(known);
            registry.register(Box::new(histogram.clone())).expect(known);
            histogram
        };
        Metrics {
            appends: counter("appends_total", "Appends that were made durable"),
            records: counter("appended_records_total", "Records in the appends that were made durable"),
            append_failures: counter("append_failures_total", "Appends that were refused, or whose fate is unknown"),
            append_seconds: seconds("append_seconds", "From the handing over of an append until it is durable"),
            commit_seconds: seconds("commit_seconds", "One write, flush and fsync of all that waited"),
            connections: gauge("connections", "Open connections of clients"),
            readers: gauge("readers", "Open connections that read a log"),
            refused: counter("connections_refused_total", "Connections that were not let in"),
            bad_tokens: counter("authentication_failures_total", "Connections with a wrong token or none"),
            disk: gauge("disk_bytes", "The size of the file of all logs"),
            disk_free: gauge("disk_free_bytes", "What its disk has left"),
            logs: gauge("logs", "Open logs"),
            trouble: gauge("trouble", "1 while it takes no appends: no room, or its disk failed"),
            registry,
        }
    }
}

impl Metrics {
    /// All of them, with what was looked up.
    pub fn gather(&self, looked: &Looked) -> Vec<MetricFamily> {
        let set = |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.disk, looked.used_bytes);
        set(&self.disk_free, looked.free_bytes.unwrap_or_default());
        set(&self.logs, looked.logs as u64);
        set(&self.trouble, u64::from(looked.is_in_trouble));
        self.registry.gather()
    }
}
