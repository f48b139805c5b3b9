//! The engine's copies of the TLS files.

use std::path::Path;

use crate::error::Result;
use crate::files::{make_private_dir, read_optional, write_whole};

/// Certificate, key and CA.
pub const FILES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// Copies the mounted files where they differ, and says whether any did and whether all are there.
///
/// A Secret mounted with an `fsGroup` is group-readable, and PostgreSQL and libpq refuse such a key.
pub fn copy(from: &Path, to: &Path) -> Result<Copied> {
    make_private_dir(to)?;
    let mut copied = Copied {
        changed: false,
        complete: true,
    };
    // Read all before writing any: a Secret's volume changes as a whole between two reads of its `..data` link at worst, and
    // the next look puts that right.
    for name in FILES {
        match read_optional(&from.join(name))? {
            None => copied.complete = false,
            Some(bytes) => {
                if read_optional(&to.join(name))?.as_ref() != Some(&bytes) {
                    write_whole(&to.join(name), &bytes, 0o600)?;
                    copied.changed = true;
                }
            }
        }
    }
    Ok(copied)
}

/// What [`copy`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// A file differed.
    pub changed: bool,
    /// All three are there.
    pub complete: bool,
}
