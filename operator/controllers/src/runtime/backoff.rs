//! Back-off per object. `error_policy` is told neither how often nor since when an object fails (kube-rs/kube#1916).

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

/// Delays that double per object from 1 s to 5 min and are forgotten at the first success.
#[derive(Default)]
pub struct Backoffs(Mutex<HashMap<String, u32>>);

impl Backoffs {
    /// Counts a failure of `key` and says how long to wait.
    pub fn failed(&self, key: &str) -> Duration {
        let Ok(mut map) = self.0.lock() else {
            return Duration::from_secs(60);
        };
        let count = map.entry(key.to_owned()).or_insert(0);
        *count = count.saturating_add(1);
        let seconds = 1u64.checked_shl(count.saturating_sub(1)).unwrap_or(u64::MAX).min(300);
        Duration::from_secs(seconds)
    }

    /// Forgets the failures of `key`.
    pub fn succeeded(&self, key: &str) {
        if let Ok(mut map) = self.0.lock() {
            map.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_five_minutes_and_success_forgets() {
        let b = Backoffs::default();
        let delays: Vec<u64> = (0..11).map(|_| b.failed("a").as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(b.failed("b").as_secs(), 1, "another object is not slowed down");
        b.succeeded("a");
        assert_eq!(b.failed("a").as_secs(), 1);
    }
}
