//! What a sidecar counts, under the names `segue_*` with their units.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry};

use crate::checkpoint::save::Saved;
use crate::ingress::traffic::Traffic;

/// One shard's numbers, in the sidecar's registry.
#[derive(Clone)]
pub struct Metrics {
    /// Records that this ingress appended and the broker acknowledged.
    pub appends: IntCounter,
    /// From the call of an append to its acknowledgement.
    pub append_seconds: Histogram,
    /// Requests delivered to the service.
    pub deliveries: IntCounter,
    /// From the delivery of a request to its whole reply.
    pub delivery_seconds: Histogram,
    /// Requests that wait at this ingress.
    pub parked: IntGauge,
    /// How many records the replica is behind the tail.
    pub lag: IntGauge,
    /// The last record that the replica applied.
    pub applied: IntGauge,
    /// The ownership number as the ingress has read it.
    pub epoch: IntGauge,
    /// Whether this run of this node owns the shard.
    pub owner: IntGauge,
    /// How often the service's state became unknown and was loaded again.
    pub reloads: IntCounter,
    /// Checkpoints taken.
    pub checkpoints: IntCounter,
    /// How often this replica differed from the shard's digests.
    pub divergences: IntCounter,
    /// From the beginning of a save until it was read back.
    pub checkpoint_seconds: Histogram,
    /// Bytes put into the checkpoint store, packed.
    pub checkpoint_stored: IntCounter,
    /// Bytes of checkpoints that the store had already.
    pub checkpoint_reused: IntCounter,
    /// Periodic checkpoints that could not be taken.
    pub checkpoint_failures: IntCounter,
    /// Whether the last one could not.
    pub checkpoint_alarm: IntGauge,
    /// Records in the log.
    pub log_records: IntGauge,
    /// Bytes of the log, as the broker tells them.
    pub log_bytes: IntGauge,
    /// Replies that came a second time.
    pub duplicates: IntCounter,
    /// What clients felt in the last seconds; announced, not scraped.
    pub traffic: Arc<Mutex<Traffic>>,
}

impl Metrics {
    /// Registers a shard's numbers.
    ///
    /// # Panics
    /// If a name is registered twice for one shard: a bug of ours.
    #[must_use]
    pub fn new(registry: &Registry, shard: &str) -> Metrics {
        let opts = |name: &str, help: &str| Opts::new(format!("segue_{name}"), help).const_label("shard", shard);
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::with_opts(opts(name, help)).expect("names are constants");
            registry.register(Box::new(counter.clone())).expect("each shard is registered once");
            counter
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::with_opts(opts(name, help)).expect("names are constants");
            registry.register(Box::new(gauge.clone())).expect("each shard is registered once");
            gauge
        };
        let seconds = |name: &str, help: &str| {
            let buckets = prometheus::exponential_buckets(0.000_1, 2.0, 18).expect("constants");
            let opts = HistogramOpts { common_opts: opts(name, help), buckets };
            let histogram = Histogram::with_opts(opts).expect("names are constants");
            registry.register(Box::new(histogram.clone())).expect("each shard is registered once");
            histogram
        };
        Metrics {
            appends: counter("appends_total", "Records appended by this ingress and acknowledged"),
            append_seconds: seconds("append_seconds", "From the call of an append to its acknowledgement"),
            deliveries: counter("deliveries_total", "Requests delivered to the service"),
            delivery_seconds: seconds("delivery_seconds", "From the delivery of a request to its reply"),
            parked: gauge("parked_requests", "Requests that wait at this ingress"),
            lag: gauge("replay_lag_records", "Records between the replica and the tail"),
            applied: gauge("applied_position", "The last record that the replica applied"),
            epoch: gauge("epoch", "The ownership number as this ingress has read it"),
            owner: gauge("is_owner", "1 if this sidecar owns the shard"),
            reloads: counter("service_reloads_total", "How often the service's state became unknown"),
            checkpoints: counter("checkpoints_total", "Checkpoints taken"),
            divergences: counter("divergences_total", "How often this replica differed from the shard's digests"),
            checkpoint_seconds: seconds("checkpoint_seconds", "From the beginning of a save until it was read back"),
            checkpoint_stored: counter("checkpoint_stored_bytes_total", "Bytes put into the checkpoint store, packed"),
            checkpoint_reused: counter(
                "checkpoint_reused_bytes_total",
                "Bytes of checkpoints that were stored already",
            ),
            checkpoint_failures: counter("checkpoint_failures_total", "Periodic checkpoints that could not be taken"),
            checkpoint_alarm: gauge("checkpoint_alarm", "1 while no checkpoint can be taken"),
            log_records: gauge("log_records", "Records in the log"),
            log_bytes: gauge("log_bytes", "Bytes of the log, as the broker tells them"),
            duplicates: counter("duplicates_dropped_total", "Replies that came a second time"),
            traffic: Arc::default(),
        }
    }

    /// What clients felt.
    ///
    /// # Panics
    /// If somebody panicked here: a bug of ours.
    pub fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().expect("nothing panics under this lock")
    }

    /// A checkpoint was saved.
    pub fn checkpoint_saved(&self, saved: &Saved, took: Duration) {
        self.checkpoints.inc();
        self.checkpoint_seconds.observe(took.as_secs_f64());
        self.checkpoint_stored.inc_by(saved.stored_bytes);
        self.checkpoint_reused.inc_by(saved.reused_bytes);
    }
}
