//! One fault with the ledger running, and what came of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::system::System;
use crate::writers::Writers;

/// Clients that write all the time, unless said otherwise.
pub const CLIENTS: u32 = 8;
/// After this long without writes a system is said not to heal.
const HEALS: Duration = Duration::from_secs(120);
/// After this long members that are not fit are said not to come back.
const FIT: Duration = Duration::from_secs(240);

/// What came of one fault.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Trial {
    /// Which.
    pub fault: Fault,
    /// Rows that were acknowledged.
    pub acknowledged: usize,
    /// Rows whose fate the client does not know.
    pub unknown: usize,
    /// Promises broken, as sentences. None is the only good number.
    pub violations: Vec<String>,
    /// The longest time without any acknowledgement after the fault began (ms).
    pub outage_ms: f64,
    /// From the fault's end until all members were fit again (ms).
    pub fit_again_ms: f64,
}

/// Waits until `count` more rows are acknowledged.
pub fn more_rows(writers: &Writers, count: usize) -> Result<()> {
    let (before, start) = (writers.acknowledged(), Instant::now());
    while writers.acknowledged() <= before + count {
        if start.elapsed() > HEALS {
            let more = writers.acknowledged() - before;
            bail!("writes do not go on: {more} rows in {} s", HEALS.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Members fit, writers at work, the fault, writes again, the fault's end, members fit again, the verdict.
pub fn run(system: &dyn System, fault: Fault) -> Result<Trial> {
    run_with(system, fault, CLIENTS)
}

/// The same with so many writers: on a machine of few processors those that connect anew again and again take what a failover
/// needs.
pub fn run_with(system: &dyn System, fault: Fault, clients: u32) -> Result<Trial> {
    system.wait_fit(FIT).context("before the fault")?;
    let writers = Writers::start(system.access()?, clients)?;
    more_rows(&writers, 200)?;
    let from = writers.now();
    let injected = fault
        .inject(system)
        .with_context(|| format!("bringing about {fault:?}"))?;
    // Long enough for a loss that is only noticed later, such as that of a standby.
    std::thread::sleep(Duration::from_secs(4));
    if fault.lets_write() {
        more_rows(&writers, 200).with_context(|| format!("during {fault:?}"))?;
    }
    injected.heal(system).with_context(|| format!("ending {fault:?}"))?;
    let healed = Instant::now();
    system.wait_fit(FIT).with_context(|| format!("after {fault:?}"))?;
    let fit_again = healed.elapsed();
    more_rows(&writers, 50)?;
    let verdict = writers.finish()?;
    let outage = verdict
        .outages
        .iter()
        .filter(|o| o.until >= from)
        .map(|o| o.length())
        .max();
    Ok(Trial {
        fault,
        acknowledged: verdict.acknowledged,
        unknown: verdict.unknown,
        violations: verdict.violations.iter().map(ToString::to_string).collect(),
        outage_ms: millis(Duration::from_micros(outage.unwrap_or(0))),
        fit_again_ms: millis(fit_again),
    })
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}
