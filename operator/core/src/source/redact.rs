//! Values that nobody is shown.

use serde_json::{Map, Value};

use super::ObjectKey;

/// What stands in for a Secret's value.
pub const HIDDEN: &str = "(hidden)";

/// A copy in which every value of a Secret is replaced; what changed can still be seen by name. `apart` tells two different
/// values from each other without saying anything about them.
pub fn secret(key: &ObjectKey, value: &Value, apart: &str) -> Value {
    let mut value = value.clone();
    if key.is_secret()
        && let Value::Object(fields) = &mut value
    {
        for part in ["data", "stringData"] {
            let hidden = || Value::String(format!("{HIDDEN}{apart}"));
            match fields.get_mut(part) {
                Some(Value::Object(entries)) => {
                    *entries = entries.keys().map(|k| (k.clone(), hidden())).collect::<Map<_, _>>();
                }
                // A mistake, and perhaps a secret all the same.
                Some(other) => *other = hidden(),
                None => {}
            }
        }
    }
    value
}
