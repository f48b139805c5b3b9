//! The house: a bed with Holdfast installed on it by Helm, as a user would.

pub mod fault;
pub mod house;
pub mod report;
pub mod set;
pub mod sql;
pub mod system;
pub mod trial;
pub mod writers;

pub use house::House;
pub use set::Set;
pub use system::System;
pub use writers::Writers;
