//! The engine's own table of parameters, `pg_settings`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::files::{read_optional, write_whole};
use crate::layout::Layout;
use crate::session::{Session, within};

/// One parameter, as `pg_settings` describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// `bool`, `integer`, `real`, `enum` or `string`.
    pub vartype: String,
    /// `8kB`, `ms`, …
    pub unit: Option<String>,
    /// Smallest value.
    pub min: Option<String>,
    /// Largest value.
    pub max: Option<String>,
    /// What an `enum` may be.
    pub values: Vec<String>,
    /// `internal`, `postmaster`, `sighup`, …
    pub context: String,
}

/// All parameters of one engine version, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog(pub BTreeMap<String, Row>);

impl Catalog {
    /// Reads it from a running engine.
    pub async fn read(session: &Session) -> Result<Catalog> {
        let sql =
            "SELECT lower(name), vartype, unit, min_val, max_val, coalesce(enumvals, '{}'), context FROM pg_settings";
        let rows = within(Duration::from_secs(5), session.query(sql, &[])).await?;
        let mut all = BTreeMap::new();
        for r in &rows {
            let row = Row {
                vartype: r.try_get(1)?,
                unit: r.try_get(2)?,
                min: r.try_get(3)?,
                max: r.try_get(4)?,
                values: r.try_get(5)?,
                context: r.try_get(6)?,
            };
            all.insert(r.try_get(0)?, row);
        }
        Ok(Catalog(all))
    }

    /// From the last engine that ran on this volume.
    pub fn load(layout: &Layout) -> Option<Catalog> {
        let bytes = read_optional(&layout.catalog_file()).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// Keeps it on the volume. Without it the next start checks less; that is no reason to fail.
    pub fn save(&self, layout: &Layout) {
        if let Ok(bytes) = serde_json::to_vec(self)
            && let Err(e) = write_whole(&layout.catalog_file(), &bytes, 0o600)
        {
            tracing::warn!("cannot keep the table of parameters: {e}");
        }
    }
}

/// Some rows of an engine's table, one of each kind.
#[cfg(test)]
pub(crate) fn sample() -> Catalog {
    let row = |vartype: &str, unit: Option<&str>, min: &str, max: &str| Row {
        vartype: vartype.into(),
        unit: unit.map(Into::into),
        min: Some(min.into()),
        max: Some(max.into()),
        values: Vec::new(),
        context: "user".into(),
    };
    let mut all: BTreeMap<String, Row> = [
        ("work_mem", row("integer", Some("kB"), "64", "2147483647")),
        ("shared_buffers", row("integer", Some("8kB"), "16", "1073741823")),
        ("statement_timeout", row("integer", Some("ms"), "0", "2147483647")),
        ("max_connections", row("integer", None, "1", "262143")),
        ("seq_page_cost", row("real", None, "0", "1.79769e+308")),
        ("jit", row("bool", None, "", "")),
        ("search_path", row("string", None, "", "")),
        (
            "block_size",
            Row {
                context: "internal".into(),
                ..row("integer", None, "8192", "8192")
            },
        ),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into();
    let values = ["none", "ddl", "mod", "all"].map(str::to_owned).to_vec();
    all.insert(
        "log_statement".into(),
        Row {
            values,
            ..row("enum", None, "", "")
        },
    );
    Catalog(all)
}
