//! The only code that speaks to the Kubernetes API on behalf of more than one controller, and how any process connects to it.

mod connect;
pub mod source;

pub use connect::connect;
