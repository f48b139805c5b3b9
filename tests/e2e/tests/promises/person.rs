//! What a person sees of a set, and what is in its Pods.

use std::process::Command;
use std::time::Duration;

use holdfast_e2e::house::{SOON, binary, run, wait_for};
use holdfast_e2e::sql::Access;
use holdfast_e2e::{House, Set};

use crate::support::in_namespace;

const START: Duration = Duration::from_secs(240);
/// KiB that an agent may have resident.
const AGENT_KIB: u64 = 15 * 1024;

/// A database as it was asked for, and everything that people and programs read of it.
#[test]
#[ignore = "needs root and a bed: make test"]
fn a_set_is_as_it_was_asked_for_and_tells_of_itself() {
    in_namespace("person", |house, ns| {
        let initdb = "{database: register, owner: clerk, encoding: LATIN1, locale: C, sql: ['create table made(x int)', 'insert into made values (7)', 'grant select on made to clerk']}";
        let more = format!("bootstrap: {{initdb: {initdb}}}, durability: {{mode: Quorum}}");
        let set = Set::apply(house, ns, "db", 2, &more).unwrap();
        set.wait_ready(START).unwrap();
        is_as_asked_for(&set);
        the_secret_leads_to_it(&set);
        is_confined(&set);
        tells_of_itself(house, &set);
    });
}

fn is_as_asked_for(set: &Set<'_>) {
    let rw = Access::to(set, "rw").unwrap();
    for (sql, wanted) in [
        ("select current_database() || ' ' || current_user", "register clerk"),
        (
            "select pg_encoding_to_char(encoding) || ' ' || datcollate from pg_database where datname = 'register'",
            "LATIN1 C",
        ),
        (
            "select pg_get_userbyid(datdba) from pg_database where datname = 'register'",
            "clerk",
        ),
        ("select x from made", "7"),
        ("show data_checksums", "on"),
    ] {
        assert_eq!(rw.query(sql).unwrap(), wanted, "{sql}");
    }
    let pod = pod(set, "db-1");
    let asked = pod.pointer("/spec/containers/0/resources/requests/cpu").unwrap();
    assert_eq!(asked, "200m");
    let budgets = set.house.kubectl(&[
        "-n",
        &set.namespace,
        "get",
        "pdb",
        "-o",
        "jsonpath={.items[*].spec.minAvailable}",
    ]);
    assert_eq!(budgets.unwrap(), "1", "one member may be evicted at a time");
}

fn pod(set: &Set<'_>, name: &str) -> serde_json::Value {
    set.house.get(&set.namespace, &format!("pod/{name}")).unwrap().unwrap()
}

/// Every key of the application's Secret, used by the program that it is meant for.
fn the_secret_leads_to_it(set: &Set<'_>) {
    let key = |key: &str| set.secret(key).unwrap();
    let (host, user, password) = (key("host"), key("username"), key("password"));
    assert_eq!(host, format!("db-rw.{}.svc", set.namespace));
    assert_eq!(
        (key("port"), key("dbname"), user.clone()),
        ("5432".into(), "register".into(), "clerk".into())
    );
    let by_psql = |address: &str| {
        let sql = "select 'in ' || current_database()";
        exec(set, "db-2", &["psql", "-XAtc", sql, address])
    };
    let words = format!("host={host} user={user} password={password} dbname=register sslmode=require");
    for address in [key("uri"), words.clone()] {
        // Each node's proxy takes a new Service up in its own time.
        wait_for("psql connects", SOON, || {
            let said = by_psql(&address)?;
            Ok(if said.trim() == "in register" {
                Ok(())
            } else {
                Err(said)
            })
        })
        .unwrap();
    }
    let refused = by_psql(&words.replace(&password, "wrong")).unwrap_err().to_string();
    assert!(refused.contains("password authentication failed"), "{refused}");
    let jdbc = key("jdbc-uri");
    assert!(
        jdbc.starts_with(&format!("jdbc:postgresql://{host}:5432/register?")),
        "{jdbc}"
    );
    // The server's names are in its certificate, and its authority in the Secret.
    let rw = Access::to(set, "rw").unwrap();
    assert_eq!(rw.trusting(&key("ca.crt")).unwrap().query("select 1").unwrap(), "1");
}

/// A program in a member's container.
fn exec(set: &Set<'_>, pod: &str, program: &[&str]) -> anyhow::Result<String> {
    let to = ["-n", &set.namespace, "exec", pod, "-c", "postgresql", "--"];
    set.house.kubectl(&[&to[..], program].concat())
}

/// Nothing of the image can be written, nobody is root, and the agent is small, and the first process.
fn is_confined(set: &Set<'_>) {
    for folder in ["/", "/usr", "/etc", "/var/lib/postgresql"] {
        let file = format!("{folder}/touched");
        let error = exec(set, "db-1", &["touch", &file]).unwrap_err().to_string();
        assert!(error.contains("Read-only file system"), "{folder}: {error}");
    }
    let status = exec(set, "db-1", &["cat", "/proc/1/status"]).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().to_owned())
            .unwrap_or_else(|| panic!("no {name} in {status}"))
    };
    assert_eq!(field("Name:"), "holdfast-agent");
    assert_eq!(field("Uid:").split_whitespace().next(), Some("26"));
    assert_eq!(
        (field("CapEff:"), field("NoNewPrivs:")),
        ("0000000000000000".into(), "1".into())
    );
    let resident: u64 = field("VmRSS:").trim_end_matches(" kB").parse().unwrap();
    eprintln!("  the agent has {resident} KiB resident");
    assert!(resident < AGENT_KIB, "{resident} KiB");
    let zombies = "for p in /proc/[0-9]*; do grep -l '^State:.Z' $p/status 2>/dev/null; done | wc -l";
    assert_eq!(exec(set, "db-1", &["sh", "-c", zombies]).unwrap().trim(), "0");
}

fn tells_of_itself(house: &House, set: &Set<'_>) {
    let ns = ["-n", set.namespace.as_str()];
    let kubectl = |args: &[&str]| house.kubectl(&[&ns[..], args].concat()).unwrap();
    // kstatus, which kubectl, Helm and Argo CD go by.
    for condition in [
        "condition=Ready",
        "condition=Serving",
        "condition=Reconciling=False",
        "condition=Stalled=False",
    ] {
        kubectl(&["wait", "hrs/db", &format!("--for={condition}"), "--timeout=30s"]);
    }
    let table = kubectl(&["get", "hrs", "db"]);
    let (heads, row) = table.split_once('\n').unwrap();
    let heads: Vec<&str> = heads.split_whitespace().collect();
    assert_eq!(heads, ["NAME", "PHASE", "PRIMARY", "TERM", "READY", "AGE"]);
    let primary = set.primary().unwrap();
    let row: Vec<&str> = row.split_whitespace().collect();
    assert!(row.starts_with(&["db", "Ready", &primary, "1", "2/2"]), "{row:?}");

    let program = binary().unwrap().with_file_name("kubectl-holdfast");
    let drawn = run(Command::new(program)
        .env("KUBECONFIG", house.bed.kubeconfig().unwrap())
        .args([&ns[..], &["status", "db"]].concat()))
    .unwrap();
    for word in ["db-1", "db-2", &primary, "Ready", "2/2"] {
        assert!(drawn.contains(word), "{word}: {drawn}");
    }
    let explained = kubectl(&["explain", "hrs.spec.durability.mode"]);
    assert!(explained.contains("acknowledged"), "{explained}");
    let told = || house.kubectl(&[&ns[..], &["get", "events", "-o", "jsonpath={.items[*].reason}"]].concat());
    wait_for("each step of its making has an Event", SOON, || {
        let told = told()?;
        let steps = ["MakingMember", "AsWanted", "Leading"];
        let missing: Vec<&str> = steps.into_iter().filter(|step| !told.contains(step)).collect();
        Ok(if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("{missing:?} of {told}"))
        })
    })
    .unwrap();
    let log = kubectl(&["logs", &primary, "-c", "postgresql"]);
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    assert!(
        lines.iter().any(|line| line["target"] == "postgres"),
        "the engine's own log is forwarded"
    );
}
