//! Makes a failing plan smaller: drops faults one by one while the same invariant still breaks.

use holdfast_core::instance::Mutant;

use crate::history::Runner;
use crate::plan::Plan;

/// The smallest plan found that breaks the same invariant.
pub fn shrink(runner: &mut Runner, plan: &Plan, mutant: Option<Mutant>) -> Plan {
    let breaks = |runner: &mut Runner, plan: &Plan| runner.run(plan, mutant, false).violation.map(|v| v.invariant);
    let Some(wanted) = breaks(runner, plan) else {
        return plan.clone();
    };
    let mut best = plan.clone();
    loop {
        let mut smaller = None;
        for i in 0..best.faults.len() {
            let mut candidate = best.clone();
            candidate.faults.remove(i);
            if breaks(runner, &candidate) == Some(wanted) {
                smaller = Some(candidate);
                break;
            }
        }
        match smaller {
            Some(candidate) => best = candidate,
            None => return best,
        }
    }
}
