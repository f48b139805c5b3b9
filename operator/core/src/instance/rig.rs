//! What tests of the machine are made of: three members, "a" of which leads term 1.

use std::collections::BTreeMap;

use super::{
    CasOutcome, DiskState, Durability, Effect, Engine, Event, Heartbeat, Instance, MemberSpec, Message, Moment,
    PrimarySeen, RecordSeen, ReplicaSeen, Role, SetSpec, StandbySeen, SyncNames, Timings, Version, VolumeSeen, Work,
    WorkResult,
};
use crate::failover::{DirId, Lsn, MemberName, Phase, Position, Record, Rule, Term};

pub(super) const POINT: Lsn = Lsn(100);

pub(super) fn dir(name: &str) -> DirId {
    DirId(name.into())
}

pub(super) fn record() -> Record {
    Record {
        phase: Phase::Leading,
        rule: Rule {
            leader: Some(dir("d1")),
            standbys: [dir("d2"), dir("d3")].into(),
            quorum: 1,
        },
        ..Record::bootstrap(MemberName("a".into()))
    }
}

/// A member that has its volume, its wish and the record. What it does then is the second.
pub(super) fn begins(name: &str, disk: DiskState) -> (Instance, Vec<Effect>) {
    let volume = VolumeSeen {
        disk,
        whole: true,
        damaged: false,
        system_identifier: None,
        clean: false,
        control: None,
    };
    begins_on(name, volume)
}

/// The same on any volume.
pub(super) fn begins_on(name: &str, volume: VolumeSeen) -> (Instance, Vec<Effect>) {
    let mut member = Instance::new(MemberName(name.into()), Timings::default(), 1);
    let of = |name: &str| MemberSpec {
        name: MemberName(name.into()),
        address: None,
        leaving: false,
        fenced: false,
    };
    let spec = SetSpec {
        generation: 1,
        members: ["a", "b", "c"].map(of).into(),
        durability: Durability::Quorum,
        copies: 2,
        maximum_lag_bytes: 0,
        read_lag_bytes: 0,
        parameters: BTreeMap::new(),
        command: None,
    };
    member.step(Moment(0), Event::Volume(volume));
    member.step(Moment(0), Event::Spec(spec));
    let out = read(&mut member, 0);
    (member, out)
}

fn disk(of: &str, led: Option<Term>) -> DiskState {
    DiskState {
        dir: Some(dir(of)),
        term: Term(1),
        following: Some(Term(1)),
        led,
        base: Position {
            term: Term(1),
            lsn: POINT,
        },
        ..DiskState::default()
    }
}

fn started(member: &mut Instance) {
    let (work, result) = (Work::Start, WorkResult::Ok { volume: None });
    member.step(Moment(10), Event::Done { work, result });
}

/// A leader whose engine ended and is being started again.
pub(super) fn comes_back() -> Instance {
    let (mut leader, out) = begins("a", disk("d1", Some(Term(1))));
    assert!(out.iter().any(|e| matches!(e, Effect::Start(_))), "{out:?}");
    started(&mut leader);
    leader
}

/// "b", which follows "a" and hears that it leads.
pub(super) fn follows() -> Instance {
    let (mut b, _) = begins("b", disk("d2", None));
    started(&mut b);
    b.step(Moment(20), standby(POINT, true));
    hears(&mut b, 30, "a", leader());
    b
}

/// A standby's engine whose log ends there.
pub(super) fn standby(flushed: Lsn, receiving: bool) -> Event {
    Event::Engine(Engine::Standby(StandbySeen {
        flushed,
        replayed: flushed,
        receiving,
        diverged: None,
        history: Vec::new(),
    }))
}

pub(super) fn hears(member: &mut Instance, at: u64, from: &str, beat: Heartbeat) -> Vec<Effect> {
    let (from, message) = (MemberName(from.into()), Message::Heartbeat(beat));
    member.step(Moment(at), Event::Message { from, message })
}

pub(super) fn leader() -> Heartbeat {
    Heartbeat {
        role: Role::Leader,
        dir: Some(dir("d1")),
        ..follower()
    }
}

/// What it does when its engine answers, with both standbys, that have all of its log, or none.
pub(super) fn looks(leader: &mut Instance, at: u64, backed: bool) -> Vec<Effect> {
    let standby = |own: &str| ReplicaSeen {
        dir: dir(own),
        streaming: true,
        flushed: POINT,
        replayed: POINT,
        counts: true,
    };
    let seen = PrimarySeen {
        term: Term(1),
        flushed: POINT,
        inserted: POINT,
        sync: SyncNames::Nobody,
        history: Vec::new(),
        replicas: ["d2", "d3"].into_iter().filter(|_| backed).map(standby).collect(),
        healthy: true,
    };
    leader.step(Moment(at), Event::Engine(Engine::Primary(seen)))
}

pub(super) fn follower() -> Heartbeat {
    let position = Position {
        term: Term(1),
        lsn: POINT,
    };
    Heartbeat {
        term: Term(1),
        role: Role::Replica,
        dir: Some(dir("d2")),
        gone: None,
        beside: Vec::new(),
        following: Some(Term(1)),
        position,
        replayed: POINT,
        healthy: true,
        hears_leader: true,
        history: Vec::new(),
        ready: false,
        takes_over: true,
        address: None,
    }
}

pub(super) fn written(leader: &mut Instance, at: u64) -> Vec<Effect> {
    let version = Version(at.to_string());
    leader.step(Moment(at), Event::Cas(CasOutcome::Written { version }))
}

pub(super) fn read(leader: &mut Instance, at: u64) -> Vec<Effect> {
    let found = RecordSeen::Found {
        record: record(),
        version: Version("1".into()),
    };
    leader.step(Moment(at), Event::Record(found))
}

pub(super) fn writes(out: &[Effect]) -> bool {
    out.iter().any(|effect| matches!(effect, Effect::WriteRecord { .. }))
}

pub(super) fn opens(out: &[Effect]) -> bool {
    out.iter().any(|effect| matches!(effect, Effect::Gate { open: true }))
}

pub(super) fn reads(out: &[Effect]) -> bool {
    out.iter().any(|effect| matches!(effect, Effect::ReadRecord))
}

pub(super) fn done(member: &mut Instance, at: u64, work: Work) -> Vec<Effect> {
    let result = WorkResult::Ok { volume: None };
    member.step(Moment(at), Event::Done { work, result })
}

pub(super) fn says(member: &mut Instance, at: u64, phase: Phase, leader: &str) -> Vec<Effect> {
    let record = Record {
        term: Term(2),
        phase,
        leader: MemberName(leader.into()),
        ..record()
    };
    let version = Version(at.to_string());
    member.step(Moment(at), Event::Record(RecordSeen::Found { record, version }))
}

pub(super) fn persists(out: &[Effect]) -> Option<&DiskState> {
    out.iter().find_map(|effect| match effect {
        Effect::Persist(disk) => Some(disk),
        _ => None,
    })
}
