//! One folder per kind; each is a pipeline observe → decide → act → report. What is chosen is chosen in `holdfast_core`.

pub mod git_source;
pub mod replica_set;
pub mod runtime;
