//! holdfast-api
pub mod git_source;
