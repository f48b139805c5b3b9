//! A replica set as a picture: a pure function of what was read.

use holdfast_api::HAReplicaSet;
use holdfast_api::replica_set::{HAReplicaSetStatus, MemberView, Phase};
use holdfast_core::failover;
use jiff::Timestamp;
use kube::ResourceExt;

use super::gather::{EventLine, Picture};
use crate::paint::{Paint, Tone};
use crate::table::{Cell, layout};

/// Draws.
pub fn draw(picture: &Picture, paint: Paint) -> String {
    let set = &picture.set;
    let Some(status) = &set.status else {
        return format!(
            "{}  the operator has not seen it yet; is it running? `helm test holdfast -n holdfast`\n",
            paint.text(Tone::Strong, &title(set))
        );
    };
    let sections = [
        head(set, status, paint),
        old_news(picture, status, paint),
        members(status, paint),
        problems(set, status, paint),
        services(picture, paint),
        events(picture, paint),
    ];
    let full: Vec<&str> = sections.iter().map(String::as_str).filter(|s| !s.is_empty()).collect();
    full.join("\n")
}

fn title(set: &HAReplicaSet) -> String {
    format!("{}/{}", set.namespace().unwrap_or_default(), set.name_any())
}

/// How a phase is meant.
pub fn tone(phase: Option<Phase>) -> Tone {
    match phase {
        Some(Phase::Ready) => Tone::Good,
        Some(Phase::Creating | Phase::Updating | Phase::Electing | Phase::Degraded) => Tone::Busy,
        Some(Phase::Unavailable | Phase::Unknown) => Tone::Bad,
        Some(Phase::Deleting) | None => Tone::Faint,
    }
}

/// A phase as text.
pub fn word(phase: Option<Phase>) -> String {
    phase.map_or_else(|| "Unknown".to_owned(), |p| format!("{p:?}"))
}

fn head(set: &HAReplicaSet, status: &HAReplicaSetStatus, paint: Paint) -> String {
    let mut out = format!(
        "{}  {}  {} members fit\n  {}\n",
        paint.text(Tone::Strong, &title(set)),
        paint.text(tone(status.phase), &word(status.phase)),
        status.ready.as_deref().unwrap_or("no"),
        status.message.as_deref().unwrap_or("nothing to say yet"),
    );
    if set.metadata.generation != status.observed_generation {
        let text = "  the spec was changed after this was seen; the operator has not answered yet\n";
        out.push_str(&paint.text(Tone::Busy, text));
    }
    let mut facts = Vec::new();
    let mut fact = |what: &str, value: Option<String>| {
        if let Some(value) = value {
            facts.push(vec![Cell::faint(what), Cell::plain(value)]);
        }
    };
    fact(
        "primary",
        Some(status.primary.clone().unwrap_or_else(|| "nobody".into())),
    );
    fact("term", status.term.map(|t| t.to_string()));
    fact("a commit is held by", status.rule.clone());
    fact("image", status.image.clone());
    fact("authority ends", status.ca_expires.clone());
    let fenced = &set.spec.fenced;
    fact("fenced", (!fenced.is_empty()).then(|| fenced.join(", ")));
    out.push_str(&layout(&facts, 2, paint));
    out
}

/// The members elect without the operator: what it said last may be of before.
fn old_news(picture: &Picture, status: &HAReplicaSetStatus, paint: Paint) -> String {
    let Some(record) = &picture.record else {
        return String::new();
    };
    if status.term.is_none_or(|term| term >= record.term) {
        return String::new();
    }
    let (leader, term) = (&record.leader, record.term);
    let who = match record.phase {
        failover::Phase::Sealing => format!("an election for term {term} is open and nobody leads yet"),
        failover::Phase::Promoting => format!("{leader} was elected for term {term} and is being promoted"),
        failover::Phase::Leading => format!("{leader} leads term {term}"),
    };
    let text = format!(
        "  what follows is old: by the authority record {who}, and the operator has not said so yet; is it running? \
         `kubectl get pods -A -l app.kubernetes.io/name=holdfast`\n"
    );
    paint.text(Tone::Bad, &text)
}

/// The primary on top, those that follow it below; without a primary, all side by side.
fn members(status: &HAReplicaSetStatus, paint: Paint) -> String {
    let leads = |m: &&MemberView| status.primary.as_ref() == Some(&m.name);
    let primary = status.members.iter().find(leads);
    let others: Vec<&MemberView> = status.members.iter().filter(|m| !leads(m)).collect();
    let mut rows = vec![
        ["MEMBER", "ROLE", "STATE", "LAG", "LSN", "NODE", "VERSION", ""]
            .iter()
            .map(|h| Cell::faint(*h))
            .collect::<Vec<_>>(),
    ];
    rows.extend(primary.map(|m| row("", m)));
    for (i, member) in others.iter().enumerate() {
        let branch = match (primary, i + 1 == others.len()) {
            (None, _) => "",
            (_, true) => "└─ ",
            (_, false) => "├─ ",
        };
        rows.push(row(branch, member));
    }
    layout(&rows, 2, paint)
}

fn row(branch: &str, m: &MemberView) -> Vec<Cell> {
    let (mark, tone) = match (m.role.as_str(), m.ready) {
        ("Primary", true) => ("●", Tone::Good),
        (_, true) => ("○", Tone::Good),
        _ if m.state == "Failed" || m.role == "Unknown" => ("✗", Tone::Bad),
        _ => ("◌", Tone::Busy),
    };
    let dash = |text: &Option<String>| Cell::plain(text.clone().unwrap_or_else(|| "-".into()));
    // What a healthy member says of itself is what its columns say already.
    let message = m.message.clone().filter(|_| !m.ready).unwrap_or_default();
    vec![
        Cell(Tone::Plain, format!("{branch}{mark} {}", m.name)),
        Cell(tone, m.role.clone()),
        Cell(tone, m.state.clone()),
        Cell::plain(m.lag_bytes.map_or_else(|| "-".into(), bytes)),
        dash(&m.lsn),
        dash(&m.node),
        // "17.12 (Debian 17.12-0+deb13u1)": the first word is what people compare.
        dash(
            &m.version
                .as_ref()
                .and_then(|v| v.split_whitespace().next())
                .map(str::to_owned),
        ),
        Cell::faint(message),
    ]
}

/// Bytes as people read them.
fn bytes(count: i64) -> String {
    const UNITS: [(&str, i64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, size) in UNITS {
        if count >= size {
            return format!("{}.{} {unit}", count / size, count % size * 10 / size);
        }
    }
    format!("{count} B")
}

/// Conditions that are not as they should be, refused parameters, and restarts that are due.
fn problems(set: &HAReplicaSet, status: &HAReplicaSetStatus, paint: Paint) -> String {
    let mut rows = Vec::new();
    for c in &status.conditions {
        let healthy = matches!(
            (c.type_.as_str(), c.status.as_str()),
            ("Stalled" | "Reconciling", "False")
        ) || (!matches!(c.type_.as_str(), "Stalled" | "Reconciling") && c.status == "True");
        // Said in the head already, in the same words.
        let said = matches!(c.type_.as_str(), "Ready" | "Reconciling") && status.message.as_ref() == Some(&c.message);
        if !healthy && !said {
            let tone = if c.type_ == "Reconciling" {
                Tone::Busy
            } else {
                Tone::Bad
            };
            let what = format!("{}={}", c.type_, c.status);
            rows.push(vec![
                Cell(tone, what),
                Cell::plain(c.reason.clone()),
                Cell::plain(c.message.clone()),
            ]);
        }
    }
    for member in &status.members {
        if !member.pending_restart.is_empty() {
            let text = format!(
                "{} waits for `kubectl holdfast restart`: {}",
                member.name,
                member.pending_restart.join(", ")
            );
            rows.push(vec![
                Cell(Tone::Busy, "restart due".into()),
                Cell::plain(""),
                Cell::plain(text),
            ]);
        }
    }
    for name in &set.spec.fenced {
        if !status.members.iter().any(|m| m.name == *name) {
            let text = format!("spec.fenced names {name}, which is no member");
            rows.push(vec![
                Cell(Tone::Bad, "fenced".into()),
                Cell::plain(""),
                Cell::plain(text),
            ]);
        }
    }
    section("Not as it should be", &rows, paint)
}

fn section(title: &str, rows: &[Vec<Cell>], paint: Paint) -> String {
    if rows.is_empty() {
        return String::new();
    }
    format!("{}\n{}", paint.text(Tone::Strong, title), layout(rows, 2, paint))
}

fn services(picture: &Picture, paint: Paint) -> String {
    let name = picture.set.name_any();
    let Some(services) = &picture.services else {
        return format!(
            "{}\n  not yet there, or you may not read EndpointSlices here\n",
            paint.text(Tone::Strong, "Connect to")
        );
    };
    let mut rows: Vec<Vec<Cell>> = services
        .iter()
        .map(|s| {
            let behind = match s.behind.as_slice() {
                [] => Cell(Tone::Bad, "→ nobody".into()),
                all => Cell::plain(format!("→ {}", all.join(", "))),
            };
            vec![Cell::faint(s.purpose.clone()), Cell::plain(s.address.clone()), behind]
        })
        .collect();
    rows.push(vec![
        Cell::faint("credentials"),
        Cell::plain(format!("Secret {}", holdfast_wire::Names(&name).app())),
        Cell::plain(format!("`kubectl holdfast connect {name}` shows how")),
    ]);
    section("Connect to", &rows, paint)
}

fn events(picture: &Picture, paint: Paint) -> String {
    let Some(events) = &picture.events else {
        return String::new();
    };
    let row = |e: &EventLine| {
        vec![
            Cell::faint(e.at.map_or_else(|| "?".into(), |at| ago(at, picture.now))),
            Cell::plain(e.about.clone()),
            Cell(if e.warning { Tone::Bad } else { Tone::Plain }, e.reason.clone()),
            Cell::plain(e.message.clone()),
        ]
    };
    let rows: Vec<Vec<Cell>> = events.iter().map(row).collect();
    section("Lately", &rows, paint)
}

/// How long ago, in one number.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;
