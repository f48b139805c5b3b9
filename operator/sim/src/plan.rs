//! One history's plan: the set, and which faults strike when. Made from the seed alone, so that a shrunk plan replays.

use holdfast_core::failover::Phase;
use holdfast_core::instance::Durability;
use serde::{Deserialize, Serialize};

pub use crate::fault::Fault;
use crate::rng::Rng;

/// A history's plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Seeds the world's noise.
    pub seed: u64,
    /// How many members.
    pub members: usize,
    /// When a commit is acknowledged.
    pub durability: Durability,
    /// How many members hold a commit.
    pub copies: u16,
    /// Starts from empty volumes rather than from a set that runs.
    pub from_nothing: bool,
    /// Clocks run apart by up to so many thousandths.
    #[serde(default)]
    pub drift: u64,
    /// Slots hold at most so many records for a member that is away; 0: all.
    #[serde(default)]
    pub keeps: usize,
    /// Records have sizes, and flushes end in the midst of one.
    #[serde(default)]
    pub torn: bool,
    /// What strikes, in order of time (ms).
    pub faults: Vec<(u64, Fault)>,
}

/// Faults strike within this time, in milliseconds.
pub const FAULTY: u64 = 8_000;

/// A plan that failed once, shrunk, and what it showed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// What was wrong.
    pub why: String,
    /// The plan.
    pub plan: Plan,
}

impl Plan {
    /// When the last fault has ended, in milliseconds.
    pub fn ends(&self) -> u64 {
        self.faults
            .iter()
            .map(|(at, fault)| at + fault.lasts())
            .max()
            .unwrap_or(0)
    }

    /// The plan of this seed.
    pub fn new(seed: u64) -> Plan {
        let mut rng = Rng::new(seed ^ 0x005E_ED0F_1A17);
        let members = match rng.below(20) {
            0 => 1,
            1..=3 => 2,
            4..=14 => 3,
            15 => 4,
            16..=17 => 5,
            18 => 6,
            _ => 7,
        };
        let durability = match rng.below(10) {
            0..=5 => Durability::Quorum,
            6..=7 => Durability::Preferred,
            _ => Durability::Async,
        };
        let copies = match rng.below(4) {
            0..=2 => 2,
            _ => 1 + rng.below(members as u64) as u16,
        };
        let copies = copies.min(members as u16);
        let from_nothing = rng.chance(40);
        let drift = if rng.chance(300) { rng.range(1, 90) } else { 0 };
        // the last two seldom: they take long
        let style = match rng.below(26) {
            24 => 12,
            25 => 13,
            n => n / 2,
        };
        let count = if style < 6 { 1 + rng.below(7) } else { 3 + rng.below(8) };
        let mut faults: Vec<(u64, Fault)> = Vec::new();
        for _ in 0..count {
            // Close to another one, or to its end: that is where the interesting cases are.
            let near = faults
                .last()
                .filter(|_| rng.chance(500))
                .map(|(at, fault)| (*at, fault.lasts()));
            let at = match near {
                Some((at, lasts)) if rng.chance(400) => (at + lasts + rng.below(1_000)).min(FAULTY),
                Some((at, _)) => at + rng.below(400),
                None => rng.below(FAULTY),
            };
            let fault = match style {
                0..=5 => Plan::fault(&mut rng, members),
                6..=7 => Plan::crash(&mut rng, members),
                8 => Plan::wish(&mut rng, members),
                9 => Plan::ambush(&mut rng, members),
                12 => Plan::loss(&mut rng, members),
                13 => Plan::trap(&mut rng, members),
                _ => Plan::churn(&mut rng, members),
            };
            faults.push((at, fault));
        }
        faults.sort_by_key(|(at, _)| *at);
        let keeps = if rng.chance(300) { rng.range(5, 60) as usize } else { 0 };
        let torn = rng.chance(250);
        Plan {
            seed,
            members,
            durability,
            copies,
            from_nothing,
            drift,
            keeps,
            torn,
            faults,
        }
    }

    /// The rule changes again and again, while walsenders are slow to hear of it and standbys connect anew.
    fn churn(rng: &mut Rng, members: usize) -> Fault {
        let member = rng.index(members);
        let lasts = rng.range(100, 2_500);
        match rng.below(12) {
            0..=3 => Fault::Copies {
                copies: 1 + rng.below(members as u64) as u16,
            },
            4..=6 => Fault::Leaving { member, lasts },
            7..=8 => Fault::SlowReload { lasts: 6 * lasts },
            9 => Fault::KillEngine { member },
            10 => Fault::WatchLag { lasts: 4 * lasts },
            _ => Fault::SlowDisk { member, lasts },
        }
    }

    /// Crashes while a change of the rule is being written, of which nobody knows whether it was.
    fn trap(rng: &mut Rng, members: usize) -> Fault {
        if rng.chance(400) {
            return Plan::churn(rng, members);
        }
        let fault = match rng.below(4) {
            0 => Fault::KillEngine { member: 0 },
            _ => Plan::crash(rng, members),
        };
        let member = if rng.chance(700) { 0 } else { rng.index(members) };
        let fault = fault.aimed(|_| member);
        if rng.chance(200) {
            return fault;
        }
        let limbo = match rng.below(3) {
            0 => 0,
            1 => rng.range(1, 1_000),
            _ => rng.range(1, 4_000),
        };
        let after = if rng.chance(500) {
            rng.below(12)
        } else {
            rng.below(limbo + 300)
        };
        Fault::RuleTrap {
            after,
            limbo,
            fault: Box::new(fault),
        }
    }

    /// So many are away or have lost their volumes that a person must decide.
    fn loss(rng: &mut Rng, members: usize) -> Fault {
        let member = if rng.chance(400) { 0 } else { rng.index(members) };
        let (down, lasts) = (rng.range(500, 6_000), rng.range(500, 6_000));
        let down = if rng.chance(60) { down + 12_000 } else { down };
        match rng.below(12) {
            0..=2 => Fault::AcceptLoss {
                patience: rng.below(4_000),
            },
            3..=5 => Fault::LoseVolume { member, down },
            6..=8 => Fault::PowerCut { member, down },
            9 => Fault::SlowDisk { member, lasts },
            10 => Fault::Cut {
                one: member,
                other: rng.index(members),
                lasts,
            },
            _ => Plan::crash(rng, members),
        }
    }

    /// Crashes in a row, some of them in the midst of an election or a promotion.
    fn ambush(rng: &mut Rng, members: usize) -> Fault {
        let fault = Plan::crash(rng, members);
        if rng.chance(500) {
            return fault;
        }
        let phase = [Phase::Sealing, Phase::Promoting, Phase::Leading][rng.index(3)];
        let after = match rng.below(3) {
            0 => rng.below(20),
            1 => rng.below(200),
            _ => rng.below(1_000),
        };
        let member = if rng.chance(600) { 0 } else { rng.index(members) };
        let fault = fault.aimed(|_| member);
        Fault::Ambush {
            phase,
            after,
            fault: Box::new(fault),
        }
    }

    /// Crashes in a row, while some are slow: who is ahead of whom matters.
    fn crash(rng: &mut Rng, members: usize) -> Fault {
        let member = rng.index(members);
        let (down, lasts) = (rng.range(20, 2_500), rng.range(500, 6_000));
        let down = if rng.chance(250) { lasts } else { down };
        match rng.below(12) {
            0..=1 => Fault::KillAgent { member, down },
            2..=5 => Fault::PowerCut { member, down },
            6 => Fault::Freeze { member, lasts },
            7 => Fault::Isolate {
                member,
                api: rng.chance(700),
                lasts,
            },
            8..=9 => Fault::SlowDisk { member, lasts },
            10 => Fault::LoseVolume { member, down },
            _ => Fault::Cut {
                one: member,
                other: rng.index(members),
                lasts,
            },
        }
    }

    /// The rule is made to change, while news is old, answers are lost and disks are slow.
    fn wish(rng: &mut Rng, members: usize) -> Fault {
        let member = rng.index(members);
        let lasts = rng.range(300, 6_000);
        match rng.below(15) {
            12 => Fault::Scale {
                members: 1 + rng.index(7.min(members + 2)),
            },
            13 => Fault::Operators { lasts },
            14 => Fault::Parameter,
            0..=1 => Fault::Leaving { member, lasts },
            2..=3 => Fault::Copies {
                copies: 1 + rng.below(members as u64) as u16,
            },
            4 => Fault::SlowReload { lasts: 3 * lasts },
            5 => Fault::WatchLag { lasts: 3 * lasts },
            6 => Fault::ApiFlaky { lasts },
            7..=8 => Fault::SlowDisk { member, lasts },
            9 => Fault::StallDisk { member, lasts },
            10 => Fault::PowerCut {
                member,
                down: rng.range(20, 2_500),
            },
            _ => Fault::Freeze { member, lasts },
        }
    }

    fn fault(rng: &mut Rng, members: usize) -> Fault {
        // half of all faults strike the member that leads at first
        let member = if rng.chance(450) { 0 } else { rng.index(members) };
        let other = rng.index(members);
        let lasts = match rng.below(3) {
            0 => rng.range(50, 600),
            1 => rng.range(600, 4_000),
            _ => rng.range(3_000, 9_000),
        };
        match rng.below(39) {
            38 => Fault::Reject {
                from: other,
                to: member,
                lasts,
            },
            37 => Fault::Split {
                away: (0..members).filter(|m| *m == member || rng.chance(400)).collect(),
                lasts: rng.range(1_000, 15_000),
            },
            0..=1 => Fault::KillEngine { member },
            2..=3 => Fault::KillAgent {
                member,
                down: rng.range(50, 2_500),
            },
            4..=6 => Fault::PowerCut {
                member,
                down: rng.range(50, 6_000),
            },
            7 => Fault::LoseVolume {
                member,
                down: rng.range(50, 4_000),
            },
            8..=9 => Fault::Freeze { member, lasts },
            10 => Fault::CutOneWay {
                from: member,
                to: other,
                lasts,
            },
            11 => Fault::Cut {
                one: member,
                other,
                lasts,
            },
            12..=14 => Fault::Isolate {
                member,
                api: rng.chance(500),
                lasts,
            },
            15 => Fault::CutApi { member, lasts },
            16 => Fault::ApiDown { lasts },
            17 => Fault::ApiFlaky { lasts },
            18 => Fault::WatchLag { lasts },
            19 => Fault::Lossy { lasts },
            20 => Fault::StallDisk { member, lasts },
            21 => Fault::SlowDisk { member, lasts },
            22 => Fault::FullDisk { member, lasts },
            23 => Fault::SlowReload { lasts },
            24..=25 => Fault::Switchover {
                to: rng.chance(500).then_some(other),
            },
            26 => Fault::Restart { member },
            27 => Fault::DeletePod { member },
            28 => match rng.below(4) {
                0 => Fault::Durability {
                    durability: [Durability::Quorum, Durability::Preferred, Durability::Async][rng.index(3)],
                },
                _ => Fault::Copies {
                    copies: 1 + rng.below(members as u64) as u16,
                },
            },
            29 => Fault::Leaving { member, lasts },
            30..=31 => Fault::Scale {
                members: 1 + rng.index(7.min(members + 2)),
            },
            32 => Fault::Parameter,
            33 => Fault::ClockJump {
                member,
                by: rng.range(100, 12_000),
            },
            34 => Fault::OperatorAway { lasts },
            35 => Fault::Operators { lasts },
            _ => {
                if rng.chance(500) {
                    Fault::OldWish
                } else {
                    Fault::FenceByHand { member, lasts }
                }
            }
        }
    }
}
