//! Decisions about one `HAReplicaSet`: which objects it needs next, and in which order.
//!
//! Leadership is not decided here: members elect their leader themselves (`crate::instance`). The operator makes and
//! removes members, says what is wanted, and shows what is.

pub mod decide;
pub mod plan;
pub mod report;
pub mod retention;
pub mod view;
pub mod why;
pub mod wish;

#[cfg(test)]
mod tests;

pub use decide::{Step, decide};
pub use plan::{Plan, Problem};
pub use retention::{Retained, Ties};
pub use view::{MemberSeen, PodView, RecordView, SILENT, SetView, VolumeView};
pub use why::Why;
