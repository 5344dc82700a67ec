//! What a sidecar counts, under the names `segue_*` with their units.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry};

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
    /// Replies that came a second time.
    pub duplicates: IntCounter,
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
            duplicates: counter("duplicates_dropped_total", "Replies that came a second time"),
        }
    }
}
