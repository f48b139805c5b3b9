//! Who may connect: the gate.

use std::fmt::Write;

use holdfast_core::failover::MemberName;
use holdfast_wire::REPLICATION_ROLE;

/// The name of the map from certificates to the replication role.
const MAP: &str = "holdfast";

/// `pg_hba.conf`. Always: the agent over its private socket, members over TLS by certificate. With an open gate also
/// clients, over TLS with SCRAM; a connection without TLS finds no line and is refused.
pub fn render(open: bool) -> String {
    let mut text = format!(
        "local all postgres trust\n\
         hostssl replication {REPLICATION_ROLE} all cert map={MAP}\n\
         hostssl postgres {REPLICATION_ROLE} all cert map={MAP}\n\
         host all {REPLICATION_ROLE} all reject\n\
         host all postgres all reject\n"
    );
    if open {
        text.push_str("local all all scram-sha-256\nhostssl all all all scram-sha-256\n");
    }
    text
}

/// `pg_ident.conf`: the certificates of exactly these members may act as the replication role.
pub fn ident<'a>(members: impl IntoIterator<Item = &'a MemberName>) -> String {
    members.into_iter().fold(String::new(), |mut text, m| {
        let _ = writeln!(text, "{MAP} \"{}\" {REPLICATION_ROLE}", m.0);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_gate_has_no_line_for_clients() {
        assert!(!render(false).contains("scram"));
        assert!(render(true).ends_with("hostssl all all all scram-sha-256\n"));
    }
}
