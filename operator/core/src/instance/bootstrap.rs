//! The first member makes the first data directory, once.

use crate::failover::{Phase, Record};

use super::Why;
use super::effect::Effect;
use super::event::Work;
use super::machine::Instance;
use super::mutant::Mutant;

impl Instance {
    /// Bootstrap, in this order. `true`: nothing else is to be done now.
    ///
    /// 1. initdb has run, says the record, and the volume has no directory: it was lost, and is never made again.
    /// 2. No directory: initdb. The volume is empty, or an attempt of before left something half-made.
    /// 3. A directory that the record does not know yet: its identifier is written, so that nobody runs initdb again.
    pub(super) fn bootstraps(&mut self, record: &Record) -> bool {
        if record.phase != Phase::Promoting {
            return false;
        }
        if self.busy.is_some() {
            return true;
        }
        let whole = self.whole();
        if record.system_identifier.is_some() && !whole && !self.mutation.is(Mutant::SecondInitdb) {
            self.give_up(record);
            return true;
        }
        if !whole {
            if self.heal.ready(self.now) {
                self.wait(Why::Bootstrapping);
                self.heal.making = Some(record.term);
                self.busy = Some(Work::Initdb);
                self.out.push(Effect::Initdb);
            }
            return true;
        }
        let made = self.volume.as_ref().and_then(|volume| volume.system_identifier);
        if self.disk.led != Some(record.term) {
            // made, but the process ended before it was written down what it is
            self.heal.making = Some(record.term);
            self.made(Work::Initdb);
            return true;
        }
        if record.system_identifier.is_none()
            || (self.mutation.is(Mutant::SecondInitdb) && record.system_identifier != made)
        {
            self.wait(Why::Bootstrapping);
            self.write(Record {
                system_identifier: made,
                ..record.clone()
            });
            return true;
        }
        false
    }
}
