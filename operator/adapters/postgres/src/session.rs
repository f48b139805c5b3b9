//! Sessions with the engine over its private socket.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use tokio_postgres::{Client, Config, NoTls};

use crate::error::{Error, Result};

/// An open session; its connection ends with it.
pub struct Session {
    client: Client,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl std::ops::Deref for Session {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

/// What a connection attempt met.
#[derive(Debug)]
pub enum Refusal {
    /// The engine is starting, recovering or shutting down, or does not listen yet.
    NotYet,
    /// It is there, but did not answer in time.
    Silent,
    /// Anything else.
    Other(String),
}

impl From<Refusal> for Error {
    fn from(r: Refusal) -> Error {
        match r {
            Refusal::NotYet => Error::State("the engine does not take connections yet".to_owned()),
            Refusal::Silent => Error::Deadline(1000),
            Refusal::Other(text) => Error::Sql(text),
        }
    }
}

impl Session {
    /// Opens a session as the superuser. `what` is its `application_name`.
    pub async fn open(
        socket_dir: &Path,
        port: u16,
        database: &str,
        what: &str,
        deadline: Duration,
    ) -> std::result::Result<Session, Refusal> {
        let mut config = Config::new();
        config
            .host_path(socket_dir)
            .port(port)
            .user("postgres")
            .dbname(database)
            .application_name(what)
            // A superuser never takes names from where others may have put something.
            .options("-c search_path=pg_catalog -c synchronous_commit=local -c statement_timeout=0 -c lock_timeout=0 -c default_transaction_read_only=off");
        match tokio::time::timeout(deadline, config.connect(NoTls)).await {
            Err(_) => Err(Refusal::Silent),
            Ok(Ok((client, connection))) => {
                let driver = tokio::spawn(async move {
                    if let Err(e) = connection.await {
                        tracing::debug!("session ended: {e}");
                    }
                });
                Ok(Session { client, driver })
            }
            Ok(Err(e)) => Err(match e.as_db_error() {
                Some(db) if db.code().code() == "57P03" => Refusal::NotYet,
                Some(db) => Refusal::Other(db.message().to_owned()),
                None => {
                    // Nobody listens yet, or the engine has just gone.
                    let text = crate::error::describe(&e);
                    tracing::debug!("no session: {text}");
                    Refusal::NotYet
                }
            }),
        }
    }

    /// The session has ended.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

/// Runs SQL with a deadline.
pub async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
) -> Result<T> {
    match tokio::time::timeout(deadline, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Error::Deadline(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX))),
    }
}

/// An SQL identifier.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// An SQL string.
pub fn literal(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}
