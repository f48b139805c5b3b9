//! `synchronous_standby_names`, written and read.

use std::collections::BTreeSet;

use holdfast_core::failover::DirId;
use holdfast_core::instance::SyncNames;
use holdfast_wire::NOBODY;

/// The setting's text.
pub fn render(sync: &SyncNames) -> String {
    match sync {
        SyncNames::Alone => String::new(),
        SyncNames::Nobody => format!("ANY 1 ({NOBODY})"),
        SyncNames::Any { quorum, standbys } if *quorum == 0 || standbys.is_empty() => String::new(),
        SyncNames::Any { quorum, standbys } => {
            let names: Vec<String> = standbys.iter().map(|d| format!("\"{}\"", d.0)).collect();
            format!("ANY {quorum} ({})", names.join(", "))
        }
    }
}

/// Reads what [`render`] wrote. What somebody else wrote is a rule that nobody asked for: `ANY 0 ()`.
pub fn parse(text: &str) -> SyncNames {
    let foreign = SyncNames::Any {
        quorum: 0,
        standbys: BTreeSet::new(),
    };
    let text = text.trim();
    if text.is_empty() {
        return SyncNames::Alone;
    }
    let Some((quorum, list)) = text
        .strip_prefix("ANY ")
        .and_then(|t| t.strip_suffix(')'))
        .and_then(|t| t.split_once('('))
    else {
        return foreign;
    };
    let names: Vec<&str> = list.split(',').map(|n| n.trim().trim_matches('"')).collect();
    match quorum.trim().parse() {
        Ok(1) if names == [NOBODY] => SyncNames::Nobody,
        Ok(quorum) => SyncNames::Any {
            quorum,
            standbys: names.into_iter().map(|n| DirId(n.to_owned())).collect(),
        },
        Err(_) => foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let any = SyncNames::Any {
            quorum: 2,
            standbys: ["a_1_0f", "a_2_1e", "a_3_2d"].map(|d| DirId(d.into())).into(),
        };
        assert_eq!(render(&any), r#"ANY 2 ("a_1_0f", "a_2_1e", "a_3_2d")"#);
        for sync in [SyncNames::Alone, SyncNames::Nobody, any] {
            assert_eq!(parse(&render(&sync)), sync);
        }
    }

    #[test]
    fn a_setting_by_somebody_else_is_no_rule_of_ours() {
        for text in ["*", "FIRST 1 (a)", "ANY x (a)", "a, b"] {
            assert!(matches!(parse(text), SyncNames::Any { quorum: 0, .. }), "{text}");
        }
    }
}
