//! The house: a bed with Holdfast installed on it by Helm, as a user would.

pub mod house;
pub mod set;
pub mod sql;
pub mod writers;

pub use house::House;
pub use set::Set;
pub use writers::Writers;
