//! Metrics, each named once: registering one returns it.
//!
//! ```
//! # use prometheus_client::{metrics::counter::Counter, registry::Registry};
//! # use lifecycle::metrics::Registrar;
//! # let mut registry = Registry::default();
//! let mut registrar = Registrar::new(&mut registry);
//! let swaps: Counter = registrar.metric("swaps", "Times that other content began to be served");
//! swaps.inc();
//! ```

use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

/// Registers metrics in a container's registry.
#[derive(Debug)]
pub struct Registrar<'a> {
    registry: &'a mut Registry,
}

impl<'a> Registrar<'a> {
    /// Registers in `registry`, whose prefix every name gets.
    pub fn new(registry: &'a mut Registry) -> Self {
        Self { registry }
    }

    /// Registers a counter, a gauge, or a family of them, and returns it.
    pub fn metric<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        self.add(name, help, M::default())
    }

    /// Like [`Registrar::metric`], for a metric with a unit, which its name then ends in.
    pub fn metric_in<M: Metric + Clone + Default>(&mut self, unit: Unit, name: &str, help: &str) -> M {
        self.add_in(unit, name, help, M::default())
    }

    /// Registers a histogram of seconds with these upper bounds.
    pub fn seconds(&mut self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        self.add_in(Unit::Seconds, name, help, Histogram::new(bounds.iter().copied()))
    }

    /// Registers a metric that is not made by `Default`.
    pub fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.registry.register(name, help, metric.clone());
        metric
    }

    /// Registers a metric with a unit that is not made by `Default`.
    pub fn add_in<M: Metric + Clone>(&mut self, unit: Unit, name: &str, help: &str, metric: M) -> M {
        self.registry.register_with_unit(name, help, unit, metric.clone());
        metric
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;

    #[test]
    fn what_is_returned_is_what_is_scraped() {
        let mut registry = Registry::with_prefix("web_server");
        let mut registrar = Registrar::new(&mut registry);
        let swaps: Counter = registrar.metric("swaps", "Swaps");
        let cache: Gauge = registrar.metric_in(Unit::Bytes, "cache", "Bytes in memory");
        registrar.seconds("load", "Time to load", &[0.1, 1.0]).observe(0.5);
        swaps.inc();
        cache.set(7);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in
            ["web_server_swaps_total 1", "web_server_cache_bytes 7", "web_server_load_seconds_count 1"]
        {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
    }
}
