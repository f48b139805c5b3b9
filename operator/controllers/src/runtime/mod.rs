//! What every controller needs: back-off per object, Events, metrics, server-side apply that skips what is in force.

mod apply;
mod backoff;
mod events;
mod metrics;

pub use apply::{Applied, FIELD_MANAGER};
pub use backoff::Backoffs;
pub use events::Teller;
pub use metrics::Metrics;
