//! What the engine is configured with: the operator's wish, checked, written, reloaded, and taken back where it is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use holdfast_core::failover::{MemberName, Term};
use holdfast_core::instance::{SetSpec, Upstream};
use holdfast_wire::RejectedParameter;
use nix::sys::signal::Signal;

use crate::conf::{self, Conf};
use crate::error::Result;
use crate::files::write_whole;
use crate::pg::{Pg, Process};
use crate::settled::{self, Known};
use crate::{hba, history, process, tls, volume};

impl Pg {
    /// Parameters that the engine refuses.
    pub fn rejected(&self) -> Vec<RejectedParameter> {
        self.wish().rejected.clone()
    }

    /// Takes up the operator's wish; what can be taken up at once is.
    pub fn set_spec(&self, spec: &SetSpec) -> Result<()> {
        {
            let mut wish = self.wish();
            let members: Vec<MemberName> = spec.members.iter().map(|m| m.name.clone()).collect();
            if wish.members == members && wish.wanted == spec.parameters {
                return Ok(());
            }
            if wish.wanted != spec.parameters {
                wish.distrusted = None;
                wish.refused.clear();
            }
            wish.members = members;
            wish.wanted = spec.parameters.clone();
        }
        self.check_parameters();
        self.reload()
    }

    /// Decides which parameters the engine gets: the wanted ones that it takes, the last good ones for those that it does not.
    pub(crate) fn check_parameters(&self) {
        let good = settled::load_good(self.layout()).unwrap_or_default();
        let mut wish = self.wish();
        let wish = &mut *wish;
        let checked = settled::settle(&Known {
            wanted: &wish.wanted,
            catalog: wish.catalog.as_ref(),
            before: &wish.checked,
            good: &good,
            refused: &wish.refused,
            distrusted: wish.distrusted.as_deref(),
        });
        wish.checked = checked.apply;
        wish.rejected = checked.rejected;
    }

    /// Writes the generated files.
    pub(crate) fn write_files(&self) -> Result<()> {
        let layout = self.layout();
        let tls = tls::copy(&layout.tls, &layout.engine_tls())?;
        let volume_bytes = volume::space(layout).map(|(_, total)| total);
        let copies_slots = self.copies_slots();
        let mut wish = self.wish();
        let leads = wish.upstream.as_ref().is_some_and(|upstream| self.leads(upstream));
        wish.waits_for_leader = copies_slots && wish.upstream.is_some() && !leads;
        let mut parameters = wish.checked.clone();
        if wish.upstream.is_some() || !wish.floors.is_empty() {
            settled::raise(&mut parameters, &wish.floors);
        }
        let text = conf::render(&Conf {
            layout,
            major: self.bin.major,
            member: &self.settings.member,
            listen: &self.settings.listen,
            port: self.settings.port,
            tls: tls.complete,
            locale: &self.settings.bootstrap.locale,
            volume_bytes,
            archive: self.settings.archive.as_ref(),
            parameters: &parameters,
            sync: &wish.sync,
            subscribers: copies_slots.then_some(&wish.behind),
            upstream: wish.upstream.as_ref().zip(wish.dir.as_ref()),
            upstream_leads: leads,
        });
        write_whole(&layout.conf(), text.as_bytes(), 0o600)?;
        write_whole(&layout.hba(), hba::render(wish.open).as_bytes(), 0o600)?;
        write_whole(&layout.ident(), hba::ident(&wish.members).as_bytes(), 0o600)
    }

    /// Whether this upstream is promoted, as far as is known here: the history of its timeline has come, or it is the first.
    fn leads(&self, upstream: &Upstream) -> bool {
        upstream.term == Term(1) || history::path(&self.layout().pgdata(), upstream.term).exists()
    }

    /// Copies of slots are asked for once the leader is promoted: a standby gives none, and an engine that was refused pauses for 10 s
    /// (slotsync.c).
    pub(crate) fn take_up_leader(&self) -> Result<()> {
        let promoted = {
            let wish = self.wish();
            let waits = wish.upstream.as_ref().filter(|_| wish.waits_for_leader);
            waits.is_some_and(|upstream| self.leads(upstream))
        };
        if promoted { self.reload() } else { Ok(()) }
    }

    /// Writes the generated files, and lets a running engine read them.
    pub fn reload(&self) -> Result<()> {
        self.write_files()?;
        if let Process::Up { pid } = self.process() {
            process::signal(pid, Signal::SIGHUP);
        }
        Ok(())
    }

    /// Looks whether the mounted certificates changed; if so the engine takes them up without a restart.
    pub fn refresh_tls(&self) -> Result<bool> {
        let copied = tls::copy(&self.layout().tls, &self.layout().engine_tls())?;
        if copied.changed {
            self.reload()?;
        }
        Ok(copied.changed)
    }

    /// What the running engine says of the values that it was last told to reload. Those that it refuses are taken back;
    /// with none, what it runs with is what it gets if another value is ever refused.
    pub(crate) fn reloaded(&self, told: &BTreeMap<String, String>, errors: &BTreeSet<String>) -> Result<()> {
        let mut wish = self.wish();
        if wish.checked != *told {
            return Ok(()); // it spoke of other values; it is asked again
        }
        let refused: Vec<(String, String)> = wish
            .checked
            .iter()
            .filter(|(name, _)| errors.contains(*name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if refused.is_empty() {
            let good = settled::in_force(&wish.started, &wish.checked, wish.catalog.as_ref());
            settled::save_good(self.layout(), &good);
            return Ok(());
        }
        for (name, value) in &refused {
            tracing::warn!("the engine refuses {name} = {value:?}");
        }
        wish.refused.extend(refused);
        drop(wish);
        self.check_parameters();
        self.reload()
    }

    /// Lets the engine itself read the configuration before it has to start with it. What it refuses as a whole is replaced by
    /// the parameters with which it last came up.
    pub(crate) async fn try_out(&self) {
        let data = self.layout().pgdata();
        let conf = format!("config_file={}", self.layout().conf().display());
        let args = ["-D", &data.to_string_lossy(), "-c", &conf, "-C", "data_directory"].map(str::to_owned);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        if let Err(e) = self.bin.run("postgres", &args, Duration::from_secs(10)).await {
            tracing::warn!("the engine refuses its configuration: {e}");
            self.wish().distrusted = Some(e.to_string());
            self.check_parameters();
            if let Err(e) = self.write_files() {
                tracing::error!("cannot write the configuration: {e}");
            }
        }
    }

    /// An engine that never answered with parameters that are new to it gets its former ones next time.
    pub(crate) fn ended(&self) {
        let good = settled::load_good(self.layout());
        let mut wish = self.wish();
        if !wish.ready && !wish.stopping && good.as_ref().is_some_and(|g| *g != wish.started) {
            let why = self
                .heard
                .fatal()
                .unwrap_or_else(|| "the engine did not start with it".to_owned());
            wish.distrusted = Some(why);
        }
    }

    /// The engine answers: its parameters are good, and its own table of parameters can be read.
    pub(crate) fn answered(&self) {
        let mut wish = self.wish();
        if !wish.ready {
            wish.ready = true;
            settled::save_good(self.layout(), &wish.started);
        }
    }
}
