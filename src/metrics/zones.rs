//! The numbers of each DNS block list.
//!
//! Promises: as many as zones are configured; the zone is the operator's word, not a client's. Lives on the control
//! thread.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError};

use super::Metrics;

/// The numbers of one DNS block list.
#[derive(Debug)]
pub struct ZoneMetrics {
    pub(super) zone: Arc<str>,
    /// Questions that got no usable answer.
    pub errors: AtomicU64,
    /// Addresses found on the list.
    pub listed: AtomicU64,
    /// 1 while the list fails its test (RFC 5782 section 5).
    pub failing: AtomicU64,
}

impl Metrics {
    /// The numbers of the zones that are in use now. Those known before go on counting, others are forgotten.
    pub fn zones(&self, wanted: &[Arc<str>]) -> Vec<Arc<ZoneMetrics>> {
        let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |zone: &Arc<str>| zones.iter().find(|z| z.zone == *zone).cloned();
        let numbers = wanted.iter().map(|zone| {
            known(zone).unwrap_or_else(|| {
                Arc::new(ZoneMetrics {
                    zone: zone.clone(),
                    errors: AtomicU64::new(0),
                    listed: AtomicU64::new(0),
                    failing: AtomicU64::new(0),
                })
            })
        });
        let numbers: Vec<_> = numbers.collect();
        zones.clone_from(&numbers);
        numbers
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn a_zone_that_stays_keeps_its_count_and_one_that_goes_is_shown_no_more() {
        let metrics = Metrics::new(0);
        let zones = metrics.zones(&["a.test".into(), "b.test".into()]);
        zones.iter().for_each(|zone| zone.errors.store(3, Relaxed));
        metrics.zones(&["b.test".into(), "c.test".into()]);
        let text = metrics.render();
        assert!(text.contains("postern_dnsbl_errors_total{zone=\"b.test\"} 3\n"));
        assert!(text.contains("postern_dnsbl_errors_total{zone=\"c.test\"} 0\n"));
        assert!(!text.contains("a.test"));
    }
}
