//! What a `GitSource` needs of the API server: to act as somebody else, to try and apply objects, to delete them with
//! care, to learn kinds, and to keep its inventory.

mod answer;
mod apply;
mod identity;
mod inventory;
mod kinds;

pub use answer::{Answer, read};
pub use apply::{Applier, Mode, Pruned};
pub use identity::act_as;
pub use inventory::{read_inventory, write_shards};
pub use kinds::{find, learn, resource};
