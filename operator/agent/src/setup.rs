//! The init container: brings the binary, and a name for whatever user ID the Pod runs as.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use holdfast_wire::paths;

/// Where the generated `passwd` and `group` are; the engine's container mounts them at `/etc` by `subPath`.
pub const ETC: &str = "/holdfast/etc";

/// Copies this binary to [`paths::BIN`] and writes `passwd` and `group` to [`ETC`].
///
/// `initdb` and `postgres` refuse a user ID that has no name, and images know only their own.
pub fn setup() -> anyhow::Result<()> {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let me = std::env::current_exe().context("own path")?;
    into(&me, Path::new(paths::BIN), Path::new(ETC), uid, gid)
}

fn into(binary: &Path, bin: &Path, etc: &Path, uid: u32, gid: u32) -> anyhow::Result<()> {
    let to = bin.join(paths::AGENT);
    let new = bin.join("new");
    std::fs::copy(binary, &new).with_context(|| format!("copy {} to {}", binary.display(), new.display()))?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755))?;
    std::fs::rename(&new, &to).with_context(|| format!("rename to {}", to.display()))?;
    for (name, text) in [("passwd", passwd(uid, gid)), ("group", group(gid))] {
        let path = etc.join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

fn passwd(uid: u32, gid: u32) -> String {
    let root = if uid == 0 { "" } else { "root:x:0:0:root:/:/bin/sh\n" };
    format!("{root}postgres:x:{uid}:{gid}:PostgreSQL:{}:/bin/sh\n", paths::VOLUME)
}

fn group(gid: u32) -> String {
    let root = if gid == 0 { "" } else { "root:x:0:\n" };
    format!("{root}postgres:x:{gid}:\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_user_id_gets_a_name_and_the_binary_is_brought() {
        let tmp = tempfile::tempdir().unwrap();
        let from = tmp.path().join("from");
        std::fs::write(&from, "binary").unwrap();
        into(&from, tmp.path(), tmp.path(), 12345, 12345).unwrap();
        into(&from, tmp.path(), tmp.path(), 12345, 12345).unwrap();
        let passwd = std::fs::read_to_string(tmp.path().join("passwd")).unwrap();
        assert!(passwd.contains("\npostgres:x:12345:12345:"), "{passwd}");
        let mode = std::fs::metadata(tmp.path().join(paths::AGENT))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
    }
}
