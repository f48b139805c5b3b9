//! Leadership: the authority record, the rule that says when a commit is acknowledged, and positions in the log.
//!
//! The argument is Raft's (Ongaro, Ousterhout 2014, §5.4): quorums meet, and positions compare by (term of the last
//! record, LSN). Kubernetes' etcd does the consensus: the record is one `Lease`, changed only by conditional replace.

pub mod candidate;
pub mod position;
pub mod proof;
pub mod record;
pub mod rule;

pub use candidate::Election;
pub use proof::Seal;
pub use record::{DirId, Lsn, MemberName, Phase, Position, Record, Rule, Term};
