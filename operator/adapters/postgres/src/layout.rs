//! Where a member's files are. All of it can be elsewhere than in a Pod, for tests.

use std::path::PathBuf;

use holdfast_wire::paths;

/// The folders of one member.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The member's volume.
    pub volume: PathBuf,
    /// Scratch that lives as long as the Pod.
    pub run: PathBuf,
    /// This member's certificate, key and CA as mounted.
    pub tls: PathBuf,
    /// Bootstrap password and SQL.
    pub bootstrap: PathBuf,
    /// The mounted wish.
    pub spec: PathBuf,
}

impl Default for Layout {
    fn default() -> Layout {
        Layout {
            volume: paths::VOLUME.into(),
            run: paths::RUN.into(),
            tls: paths::TLS.into(),
            bootstrap: paths::BOOTSTRAP.into(),
            spec: paths::SPEC.into(),
        }
    }
}

impl Layout {
    /// The data directory.
    pub fn pgdata(&self) -> PathBuf {
        self.volume.join("pgdata")
    }
    /// A data directory that is being made; never started, removed when found.
    pub fn making(&self) -> PathBuf {
        self.volume.join("pgdata.making")
    }
    /// Directories kept for a person.
    pub fn aside(&self) -> PathBuf {
        self.volume.join("aside")
    }
    /// A directory that is being removed; removed when found.
    pub fn dropped(&self) -> PathBuf {
        self.volume.join("pgdata.dropped")
    }
    /// The agent's own state beside the data.
    pub fn state_dir(&self) -> PathBuf {
        self.volume.join("holdfast")
    }
    /// Files of the log that wait for the archive, of directories that are changed or removed.
    pub fn waiting(&self) -> PathBuf {
        self.volume.join("unarchived")
    }
    /// `DiskState`.
    pub fn state_file(&self) -> PathBuf {
        self.state_dir().join("state.json")
    }
    /// A move of a directory that is under way.
    pub fn move_file(&self) -> PathBuf {
        self.state_dir().join("move.json")
    }
    /// The last wish.
    pub fn spec_file(&self) -> PathBuf {
        self.state_dir().join("spec.json")
    }
    /// What `pg_settings` says of each parameter, from the last engine that ran.
    pub fn catalog_file(&self) -> PathBuf {
        self.state_dir().join("catalog.json")
    }
    /// The parameters with which the engine last came up.
    pub fn good_file(&self) -> PathBuf {
        self.state_dir().join("parameters.json")
    }
    /// The engine's socket directory, mode 0700: who can open it is this UID.
    pub fn socket_dir(&self) -> PathBuf {
        self.run.join("socket")
    }
    /// The generated configuration.
    pub fn conf(&self) -> PathBuf {
        self.run.join("postgresql.conf")
    }
    /// The generated host-based authentication.
    pub fn hba(&self) -> PathBuf {
        self.run.join("pg_hba.conf")
    }
    /// The generated map from certificates to the replication role.
    pub fn ident(&self) -> PathBuf {
        self.run.join("pg_ident.conf")
    }
    /// Copies of the TLS files with the modes that PostgreSQL demands.
    pub fn engine_tls(&self) -> PathBuf {
        self.run.join("tls")
    }
}
