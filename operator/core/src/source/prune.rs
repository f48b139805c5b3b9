//! What may be deleted. Every rule here exists because some tool once deleted a production database.

use holdfast_api::git_source::Prune;

use super::{ObjectKey, Why, kinds::holds_data};

/// So few objects may go whatever their share: a share says nothing in a small source.
const FEW: usize = 5;

/// Judges a change set that would delete `gone` out of `of` objects in force. `Ok` names what may go; with pruning switched
/// off that is nothing.
///
/// 1. Pruning is off: nothing goes. 2. All objects gone: refused (unless maxShare is 100), because an empty folder is more often a mistake than a wish.
/// 3. A kind that holds data: refused without `dataBearing`. 4. More than `maxShare` percent, and more than five: refused.
pub fn judge(gone: &[ObjectKey], of: usize, prune: &Prune) -> Result<Vec<ObjectKey>, Why> {
    if !prune.enabled || gone.is_empty() {
        return Ok(Vec::new());
    }
    if gone.len() >= of && prune.max_share < 100 {
        return Err(Why::PruneAll { of });
    }
    if !prune.data_bearing {
        let mut holders = gone.iter().filter(|key| holds_data(&key.group, &key.kind));
        if let Some(first) = holders.next() {
            return Err(Why::PruneHoldsData {
                object: first.to_string(),
                more: holders.count(),
            });
        }
    }
    let allowed = FEW.max(of.saturating_mul(usize::from(prune.max_share)) / 100);
    if gone.len() > allowed {
        return Err(Why::PruneShare {
            gone: gone.len(),
            of,
            max_share: prune.max_share,
        });
    }
    Ok(gone.to_vec())
}
