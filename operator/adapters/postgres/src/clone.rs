//! Copying a data directory from another member.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_core::instance::Upstream;
use tokio::io::AsyncReadExt;

use crate::archive::waiting;
use crate::binaries::last_lines;
use crate::conf::conninfo;
use crate::error::{Error, Result};
use crate::files::remove_all;
use crate::observe::CLONING;
use crate::pg::Pg;
use crate::{process, volume};

/// Between log lines of progress.
const TELL_EVERY: Duration = Duration::from_secs(10);

impl Pg {
    /// Replaces what is there with a copy of the upstream's data. The new directory has a new identity, on disk before it is
    /// in place.
    pub async fn clone_from(self: &Arc<Self>, from: &Upstream) -> Result<()> {
        self.gone().await;
        let layout = self.layout();
        self.write_files()?;
        self.name_directory(None).await?;
        process::kill_all(layout.making()).await;
        waiting::keep(&layout.pgdata(), &layout.waiting());
        for dir in [layout.pgdata(), layout.making()] {
            tokio::task::spawn_blocking(move || remove_all(&dir))
                .await
                .map_err(|e| Error::State(e.to_string()))??;
        }
        let copied = self.base_backup(from).await;
        if copied.as_ref().is_err_and(Error::is_no_room) {
            waiting::give_up(&layout.waiting(), "a copy of the data finds no room beside them");
        }
        copied?;
        if self.settings.archive.is_some() {
            waiting::push_again(&layout.making())?;
        }
        self.name_directory(Some(volume::new_dir_id(&self.settings.member)))
            .await?;
        volume::place(layout)
    }

    async fn base_backup(&self, from: &Upstream) -> Result<()> {
        let info = conninfo(self.layout(), &from.address, self.settings.port, CLONING, None);
        let mut cmd = self.bin.command("pg_basebackup");
        cmd.arg("-D")
            .arg(self.layout().making())
            // Certificates log in: there is no secret in the arguments.
            .args(["-X", "stream", "-c", "fast", "-P", "-w", "-d", &info])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let (mut child, _noted) = process::spawn(&mut cmd, "pg_basebackup")?;
        let said = match child.stderr.take() {
            Some(stderr) => follow_progress(stderr, &from.member.0).await,
            None => String::new(),
        };
        let status = child.wait().await;
        match status {
            Ok(s) if s.success() => Ok(()),
            Ok(_) => Err(Error::Program {
                program: "pg_basebackup".to_owned(),
                output: last_lines(&said),
            }),
            Err(source) => Err(Error::Spawn {
                program: "pg_basebackup".to_owned(),
                source,
            }),
        }
    }
}

/// Logs progress now and then; gives back the end of what was said.
async fn follow_progress(mut stream: impl tokio::io::AsyncRead + Unpin, from: &str) -> String {
    let mut said = String::new();
    let mut buffer = [0u8; 1024];
    let mut told = Instant::now();
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        // Progress replaces its line with a carriage return.
        said.push_str(&String::from_utf8_lossy(buffer.get(..n).unwrap_or_default()).replace('\r', "\n"));
        if said.len() > 8192 {
            let keep = said
                .char_indices()
                .map(|(i, _)| i)
                .find(|i| *i >= said.len() - 4096)
                .unwrap_or(0);
            said.drain(..keep);
        }
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            tracing::info!(
                from,
                "copying: {}",
                said.lines().rev().map(str::trim).find(|l| !l.is_empty()).unwrap_or("")
            );
        }
    }
    said
}
