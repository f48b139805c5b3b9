//! The house: a bed with Holdfast installed on it by Helm, as a user would.

pub mod cost;
pub mod crowd;
pub mod fault;
pub mod flux;
pub mod gitcost;
pub mod gitops;
pub mod house;
pub mod patroni;
pub mod plain;
pub mod plot;
pub mod repo;
pub mod report;
pub mod requests;
pub mod rights;
pub mod set;
pub mod source;
pub mod sql;
pub mod system;
pub mod trial;
pub mod walk;
pub mod writers;

pub use house::House;
pub use repo::Repo;
pub use set::Set;
pub use source::Source;
pub use system::System;
pub use writers::Writers;
