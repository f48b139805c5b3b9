//! Status as a pure function of what was seen.

pub mod conditions;
