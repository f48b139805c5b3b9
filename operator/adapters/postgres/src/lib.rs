//! Everything that touches PostgreSQL: its binaries, processes, files and SQL.
//!
//! [`Pg`] does what the agent's effects ask; [`Observer`] tells what the engine is. No decision is taken here.

pub mod archive;
pub mod aside;
pub mod binaries;
pub mod bootstrap;
pub mod catalog;
pub mod clone;
pub mod conf;
mod configure;
pub mod control;
pub mod error;
pub mod files;
pub mod hba;
pub mod health;
pub mod history;
pub mod layout;
pub mod log;
pub mod managed;
pub mod observe;
pub mod parameters;
pub mod pg;
pub mod process;
pub mod promote;
pub mod replication;
mod rewind;
pub mod session;
pub mod settled;
pub mod slots;
pub mod stop;
pub mod subscribers;
pub mod sync_names;
pub mod tls;
mod value;
pub mod volume;

pub use archive::Archive;
pub use binaries::Binaries;
pub use error::{Error, Result};
pub use layout::Layout;
pub use observe::Observer;
pub use pg::{Pg, Settings};
