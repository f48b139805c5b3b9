//! What can go wrong at the engine's boundary.

use std::path::PathBuf;

/// Result of work on the engine.
pub type Result<T> = std::result::Result<T, Error>;

/// Why work on the engine failed. Texts carry no secret: statements with passwords are never part of one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No PostgreSQL in the image.
    #[error(
        "no PostgreSQL binaries found in PATH, /usr/lib/postgresql/*/bin or /usr/pgsql-*/bin; \
         use an image that has PostgreSQL 15 to 18 and psql (in Debian: package postgresql-15 or newer)"
    )]
    NoBinaries,
    /// A version outside of what is supported.
    #[error("PostgreSQL {0} is not supported: Holdfast needs 15 to 18")]
    Version(u32),
    /// A file operation.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A program could not be run.
    #[error("cannot run {program}: {source}")]
    Spawn {
        /// Its name.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// A program ended with an error; the last lines that it wrote.
    #[error("{program} failed: {output}")]
    Program {
        /// Its name.
        program: String,
        /// The end of its standard error.
        output: String,
    },
    /// SQL failed.
    #[error("{0}")]
    Sql(String),
    /// The engine did not answer in time.
    #[error("no answer from the engine within {0} ms")]
    Deadline(u64),
    /// The engine is not running.
    #[error("the engine is not running")]
    NotRunning,
    /// Something is not as it has to be.
    #[error("{0}")]
    State(String),
    /// The same attempt can never succeed.
    #[error("{0}")]
    Permanent(String),
}

impl Error {
    /// A program, which speaks English here, found the volume full.
    pub fn is_no_room(&self) -> bool {
        matches!(self, Error::Program { output, .. } if output.contains("No space left on device"))
    }

    /// Trying the same again cannot help.
    pub fn permanent(&self) -> bool {
        match self {
            Error::NoBinaries | Error::Version(_) | Error::Permanent(_) => true,
            Error::Program { output, .. } => PERMANENT.iter().any(|p| output.contains(p)),
            _ => false,
        }
    }
}

/// What `pg_rewind` and `pg_basebackup` say when another attempt on the same directories ends the same way.
const PERMANENT: &[&str] = &[
    "could not find common ancestor",
    "source and target clusters are from different systems",
    "could not open file \"pg_wal/", // pg_rewind: the log back to the fork is gone
    "could not find previous WAL record",
    "could not read WAL record",
    "incompatible versions",
];

impl From<tokio_postgres::Error> for Error {
    fn from(e: tokio_postgres::Error) -> Error {
        Error::Sql(describe(&e))
    }
}

/// The engine's own words where there are some. The statement is never part of it.
pub fn describe(e: &tokio_postgres::Error) -> String {
    match e.as_db_error() {
        Some(db) => match db.hint() {
            Some(hint) => format!("{} ({hint})", db.message()),
            None => db.message().to_owned(),
        },
        None => {
            let mut text = e.to_string();
            if let Some(source) = std::error::Error::source(e) {
                text = format!("{text}: {source}");
            }
            text
        }
    }
}

/// Turns an I/O error into one that names the path.
pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { what, path, source }
}
