//! Figures of `make bench-git`, as a table for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::report::percentile;
use crate::requests::Request;

/// What a system asked of the API server for one thing, and how long that took.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    /// From the news to the last answer.
    pub seconds: f64,
    /// When the API server had answered the last request (s since 1970).
    #[serde(skip)]
    pub done: f64,
    /// How many requests.
    pub requests: usize,
    /// Of which kinds.
    pub by: BTreeMap<String, usize>,
    /// What of it was after the commit had been fetched: seconds and requests.
    pub after_fetch: Option<(f64, usize)>,
    /// What it cost its programs meanwhile.
    pub cost: BTreeMap<String, Cost>,
}

/// What a program cost over some time, all its processes together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// Processor time (s).
    pub cpu: f64,
    /// The most that one of its processes has had resident so far (KiB).
    pub peak_kib: u64,
}

/// Nothing moved for a while.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Quiet {
    /// How long.
    pub seconds: u64,
    /// How often the Git server was asked.
    pub polls: usize,
    /// Requests to the API server.
    pub requests: usize,
    /// Of which kinds.
    pub by: BTreeMap<String, usize>,
    /// What it cost.
    pub cost: BTreeMap<String, Cost>,
}

/// All figures of one system.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Objects in the repository.
    pub objects: usize,
    /// From the source's creation to everything in force.
    pub first: Measured,
    /// Polls without news.
    pub quiet: Quiet,
    /// A look at all objects without news, if the system does such a thing.
    pub again: Option<Measured>,
    /// Requests until its controllers, started anew, are quiet.
    pub restart: usize,
    /// One object changes, again and again.
    pub changes: Vec<Measured>,
}

/// Requests of one thing that began at `started`. Events are counted, but nobody waits for them.
pub fn measure(requests: &[Request], namespace: &str, started: f64) -> Measured {
    let awaited = requests.iter().filter(|r| !r.uri.contains("/events"));
    let done = awaited.map(|r| r.done).fold(started, f64::max);
    let mut by: BTreeMap<String, usize> = BTreeMap::new();
    for request in requests {
        *by.entry(kind(request, namespace)).or_default() += 1;
    }
    Measured {
        seconds: done - started,
        done,
        requests: requests.len(),
        by,
        ..Measured::default()
    }
}

fn kind(request: &Request, namespace: &str) -> String {
    let (path, query) = request.uri.split_once('?').unwrap_or((&request.uri, ""));
    let tried = if query.contains("dryRun=All") { ", tried" } else { "" };
    let what = match path.rsplit_once(&format!("/namespaces/{namespace}/")) {
        None => path.to_owned(),
        Some((_, rest)) => match rest.split('/').collect::<Vec<_>>().as_slice() {
            [kind, name, ..] if name.contains("-inventory-") => format!("{kind} (inventory)"),
            [kind, _, sub] => format!("{kind}/{sub}"),
            [kind, ..] => (*kind).to_owned(),
            [] => String::new(),
        },
    };
    format!("{} {what}{tried}", request.verb)
}

/// A Markdown table with a column for each system.
pub fn table(systems: &BTreeMap<String, Figures>) -> String {
    let mut text = format!(
        "| What | {} |\n|---|{}\n",
        systems.keys().cloned().collect::<Vec<_>>().join(" | "),
        "---|".repeat(systems.len())
    );
    let mut row = |what: &str, of: &dyn Fn(&Figures) -> String| {
        let cells: Vec<String> = systems.values().map(of).collect();
        let _ = writeln!(text, "| {what} | {} |", cells.join(" | "));
    };
    row("objects", &|f| f.objects.to_string());
    row("first commit: all objects made", &|f| one(&f.first));
    row("nothing moves", &|f| {
        let q = &f.quiet;
        format!("{} polls in {} s, {} requests", q.polls, q.seconds, q.requests)
    });
    row("looks at all objects again without news", &|f| {
        f.again.as_ref().map_or_else(|| "never: it watches".into(), one)
    });
    row("its controllers restart", &|f| format!("{} requests", f.restart));
    row("one object changes", &|f| {
        let requests: Vec<String> = f.changes.iter().map(|c| c.requests.to_string()).collect();
        format!(
            "{}; requests in each of {} rounds: {}",
            spread(f.changes.iter().map(|c| c.seconds)),
            requests.len(),
            requests.join(", ")
        )
    });
    row("of that, after the commit was fetched", &|f| {
        let after: Vec<(f64, usize)> = f.changes.iter().filter_map(|c| c.after_fetch).collect();
        let requests: Vec<String> = after.iter().map(|(_, n)| n.to_string()).collect();
        match spread(after.iter().map(|(seconds, _)| *seconds)) {
            unknown if after.is_empty() => unknown,
            seconds => format!("{seconds}; requests: {}", requests.join(", ")),
        }
    });
    row("processor time: first commit", &|f| {
        cost(&f.first.cost, |c| format!("{:.1} s", c.cpu))
    });
    row("processor time: nothing moves", &|f| {
        let seconds = f.quiet.seconds.max(1) as f64;
        cost(&f.quiet.cost, |c| format!("{:.2} % of a core", 100.0 * c.cpu / seconds))
    });
    row("processor time: one object changes (mean)", &|f| {
        cost(&rounds(&f.changes), |c| {
            format!("{:.2} s", c.cpu / f.changes.len().max(1) as f64)
        })
    });
    row("most memory resident", &|f| {
        cost(&peaks(f), |c| format!("{} MiB", c.peak_kib / 1024))
    });
    text
}

fn one(m: &Measured) -> String {
    format!("{:.1} s, {} requests", m.seconds, m.requests)
}

fn spread(seconds: impl Iterator<Item = f64>) -> String {
    let mut sorted: Vec<f64> = seconds.collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.last() {
        None => "not known".into(),
        Some(longest) => format!("median {:.2} s, longest {longest:.2} s", percentile(&sorted, 0.5)),
    }
}

fn cost(of: &BTreeMap<String, Cost>, say: impl Fn(&Cost) -> String) -> String {
    let all: Vec<String> = of.iter().map(|(program, c)| format!("{program} {}", say(c))).collect();
    all.join(", ")
}

/// All rounds together.
fn rounds(changes: &[Measured]) -> BTreeMap<String, Cost> {
    let mut all: BTreeMap<String, Cost> = BTreeMap::new();
    for (program, cost) in changes.iter().flat_map(|c| &c.cost) {
        let sum = all.entry(program.clone()).or_default();
        sum.cpu += cost.cpu;
        sum.peak_kib = sum.peak_kib.max(cost.peak_kib);
    }
    all
}

/// The most of each program at any time. Its processes were other ones before the restart.
fn peaks(figures: &Figures) -> BTreeMap<String, Cost> {
    let again = figures.again.iter();
    let all: Vec<Measured> = again.chain([&figures.first]).chain(&figures.changes).cloned().collect();
    rounds(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(verb: &str, uri: &str, done: f64) -> Request {
        Request {
            verb: verb.into(),
            uri: uri.into(),
            acts_as: String::new(),
            code: 200,
            done,
            ended: true,
        }
    }

    #[test]
    fn an_event_is_counted_and_not_waited_for() {
        let asked = [
            request(
                "patch",
                "/api/v1/namespaces/bench/configmaps/c1?dryRun=All&force=true",
                11.0,
            ),
            request("patch", "/api/v1/namespaces/bench/configmaps/c1?force=true", 12.0),
            request("patch", "/apis/x/v1/namespaces/bench/kustomizations/git/status", 13.0),
            request("create", "/api/v1/namespaces/bench/events", 15.0),
            request("get", "/apis", 10.5),
        ];
        let measured = measure(&asked, "bench", 10.0);
        assert_eq!(measured.seconds, 3.0);
        assert_eq!(measured.requests, 5);
        let kinds: Vec<&str> = measured.by.keys().map(String::as_str).collect();
        assert_eq!(
            kinds,
            [
                "create events",
                "get /apis",
                "patch configmaps",
                "patch configmaps, tried",
                "patch kustomizations/status"
            ]
        );
    }

    #[test]
    fn nothing_asked_is_no_time() {
        assert_eq!(measure(&[], "bench", 10.0).seconds, 0.0);
    }

    #[test]
    fn each_system_has_a_column() {
        let change = |seconds: f64, cpu: f64| Measured {
            seconds,
            requests: 4,
            after_fetch: Some((seconds / 4.0, 3)),
            cost: [("holdfast".to_owned(), Cost { cpu, peak_kib: 2048 })].into(),
            ..Measured::default()
        };
        let holdfast = Figures {
            objects: 300,
            changes: vec![change(0.4, 0.1), change(0.6, 0.3)],
            ..Figures::default()
        };
        let flux = Figures {
            again: Some(Measured {
                seconds: 2.0,
                requests: 302,
                ..Measured::default()
            }),
            ..Figures::default()
        };
        let text = table(&[("flux".to_owned(), flux), ("holdfast".to_owned(), holdfast)].into());
        assert!(
            text.starts_with("| What | flux | holdfast |\n|---|---|---|\n"),
            "{text}"
        );
        for row in [
            "| looks at all objects again without news | 2.0 s, 302 requests | never: it watches |",
            "| one object changes | not known; requests in each of 0 rounds:  | median 0.40 s, longest 0.60 s; requests in each of 2 rounds: 4, 4 |",
            "| of that, after the commit was fetched | not known | median 0.10 s, longest 0.15 s; requests: 3, 3 |",
            "| processor time: one object changes (mean) |  | holdfast 0.20 s |",
            "| most memory resident |  | holdfast 2 MiB |",
        ] {
            assert!(text.contains(row), "{row} is not in\n{text}");
        }
    }
}
