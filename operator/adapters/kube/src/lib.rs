//! The only code that speaks to the Kubernetes API on behalf of more than one controller.

pub mod source;
