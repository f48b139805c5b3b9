//! Each fault is real. Run with `cargo test -p holdfast-bed -- --ignored`, as root.

#![allow(clippy::unwrap_used, reason = "a panic in a test is its verdict")]

mod support;

use holdfast_bed::Host;
use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};
use support::{Probe, attempt, bed, heard, inside, kubectl, out, reaches, reaches_address, until, within};

#[test]
#[ignore = "needs root and a bed"]
fn a_power_cut_loses_what_was_not_fsynced_and_only_that() {
    let (bed, _alone) = bed();
    let probe = Probe::on(&bed, 2);
    let write = "cd /data; rm -f kept lost; dd if=/dev/zero of=kept bs=1k count=100 conv=fsync && sync /data; \
                 dd if=/dev/urandom of=lost bs=1k count=100";
    out(&mut inside(&bed, &probe.name, write));
    // A client that is connected when the power goes hears nothing: no FIN, no RST.
    let address = kubectl(&bed, "get pod -n probe probe2 -o jsonpath={.status.podIP}");
    let read = format!("exec 3<>/dev/tcp/{address}/7000; read -r line <&3; echo $line; read -r -t 4 line <&3; echo $?");
    let mut client = bed
        .command_on(Host::Client, &["bash", "-c", &read])
        .unwrap()
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(client.stdout.take().unwrap());
    let mut heard = String::new();
    said.read_line(&mut heard).unwrap();
    assert_eq!(heard, "hello\n", "the client is connected");

    let start = Instant::now();
    bed.power_off(2).unwrap();
    println!("power off took {:?}", start.elapsed());
    said.read_to_string(&mut heard).unwrap();
    client.wait().unwrap();
    assert_eq!(
        heard, "hello\n142\n",
        "142 is bash's word for a time-out; 1 would be an end of stream"
    );
    assert!(!reaches(&bed, Host::Client, Host::Node(2), 10250));

    let start = Instant::now();
    bed.power_on(2).unwrap();
    // Ready is stale until the kubelet is back: the pod is what shows it.
    let until = Instant::now() + Duration::from_secs(90);
    while !inside(&bed, "probe2", "true").output().unwrap().status.success() {
        assert!(Instant::now() < until, "the probe does not come back");
        std::thread::sleep(Duration::from_millis(300));
    }
    println!("back after {:?}", start.elapsed());
    bed.wait_nodes(Duration::from_secs(60)).unwrap();
    let found = out(&mut inside(
        &bed,
        "probe2",
        "cd /data; stat -c %s kept; cat lost 2>/dev/null | wc -c",
    ));
    assert_eq!(found, "102400\n0");
    // As while a node boots: it has no bridge for its pods yet. Who speaks to them then must find them afterwards.
    let on = |host, argv: &[&str]| out(&mut bed.command_on(host, argv).unwrap());
    on(Host::Node(2), &["ip", "link", "set", "cni0", "down"]);
    assert!(!reaches_address(&bed, Host::Cp, &address, 7000));
    on(Host::Node(2), &["ip", "link", "set", "cni0", "up"]);
    let way = on(Host::Cp, &["ip", "route", "get", &address]);
    let node = bed.state().unwrap().net.ip(Host::Node(2)).to_string();
    assert!(way.contains(&format!("via {node} ")), "a detour: {way}");
}

#[test]
#[ignore = "needs root and a bed"]
fn a_one_way_cut_is_one_way_and_heals() {
    let (bed, _alone) = bed();
    let (one, two) = (Host::Node(1), Host::Node(2));
    bed.cut(one, two).unwrap();
    assert!(!heard(&bed, one, two), "node1 still hears node2");
    until("node2 to hear node1 still", || heard(&bed, two, one));
    until("node1 to hear node3 still", || heard(&bed, one, Host::Node(3)));
    bed.heal().unwrap();
    until("node1 to hear node2 again", || heard(&bed, one, two));
    bed.cut_both(one, Host::Client).unwrap();
    assert!(!heard(&bed, one, Host::Client) && !heard(&bed, Host::Client, one));
    bed.heal().unwrap();
}

#[test]
#[ignore = "needs root and a bed"]
fn a_cut_hits_pods_and_connections_under_way() {
    let (bed, _alone) = bed();
    Probe::on(&bed, 2);
    let read = "exec 3<>/dev/tcp/probe2.probe/7000; read -r -t 2 line <&3; echo $line$?";
    let greeted = || {
        let mut client = bed
            .command_on(Host::Client, &["timeout", "4", "bash", "-c", read])
            .unwrap();
        attempt(&mut client).1 == "hello0"
    };
    until("the pod to greet a client", greeted);
    bed.cut(Host::Client, Host::Node(2)).unwrap();
    assert!(
        !greeted(),
        "the pod's answers come from its node's range: they must be lost"
    );
    bed.heal().unwrap();
    until("the pod to greet a client again", greeted);
}

#[test]
#[ignore = "needs root and a bed"]
fn a_frozen_node_stands_still_and_goes_on() {
    let (bed, _alone) = bed();
    let probe = Probe::on(&bed, 3);
    let node = Host::Node(3);
    until("the pod to count", || probe.counts());
    until("the node to answer", || reaches(&bed, Host::Client, node, 10250));
    bed.freeze(node, None).unwrap();
    assert!(!probe.counts(), "a frozen pod counts");
    assert!(!reaches(&bed, Host::Client, Host::Node(3), 10250));
    bed.thaw(node).unwrap();
    until("a thawed pod to count", || probe.counts());
    // Time enough to freeze it and see that it stands still.
    bed.freeze(node, Some(Duration::from_secs(15))).unwrap();
    assert!(!probe.counts());
    within(Duration::from_secs(40), "the armed thaw", || probe.counts());
    bed.hang(node).unwrap();
    assert!(!probe.counts());
    until("its kernel to answer", || reaches(&bed, Host::Client, node, 10250));
    bed.thaw(node).unwrap();
}

#[test]
#[ignore = "needs root and a bed"]
fn pods_go_on_while_the_api_server_is_down_or_unheard() {
    let (bed, _alone) = bed();
    let probe = Probe::on(&bed, 2);
    bed.api_down().unwrap();
    assert!(!attempt(bed.kubectl().unwrap().args(["get", "nodes", "--request-timeout=2s"])).0);
    until("the pod to count without the API server", || probe.counts());
    bed.api_up().unwrap();
    kubectl(&bed, "get nodes");
    bed.cut_api(Host::Node(2)).unwrap();
    let reach = |host| reaches(&bed, host, Host::Cp, 6443);
    assert!(!reach(Host::Node(2)));
    until("another node to reach the API server", || reach(Host::Node(1)));
    until("the pod to count unheard", || probe.counts());
    bed.heal().unwrap();
    until("the node to reach the API server again", || reach(Host::Node(2)));
}

#[test]
#[ignore = "needs root and a bed"]
fn a_full_disk_is_full_and_a_stalled_disk_stalls() {
    let (bed, _alone) = bed();
    let probe = Probe::on(&bed, 2);
    bed.fill(&probe.volume, 0).unwrap();
    let write = "dd if=/dev/zero of=/data/more bs=4k count=16 conv=fsync";
    let (written, said) = attempt(&mut inside(&bed, &probe.name, write));
    assert!(!written && said.contains("No space left on device"), "{said}");
    bed.unfill(&probe.volume).unwrap();
    out(&mut inside(&bed, &probe.name, write));

    // So long that a read that is slow for other reasons is told from one that waits for the end of the stall.
    let start = Instant::now();
    bed.stall(&probe.volume, Duration::from_secs(20)).unwrap();
    out(&mut inside(&bed, &probe.name, "cat /data/more > /dev/null"));
    assert!(start.elapsed() < Duration::from_secs(15), "reads must go on");
    out(&mut inside(&bed, &probe.name, write));
    assert!(
        start.elapsed() > Duration::from_secs(19),
        "a write came through after {:?}",
        start.elapsed()
    );
    // A power cut in the middle of a stall must not hang on the frozen file system.
    bed.stall(&probe.volume, Duration::from_secs(30)).unwrap();
    let start = Instant::now();
    bed.power_off(2).unwrap();
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    bed.power_on(2).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    Probe::wait(&bed, 2);
}

#[test]
#[ignore = "needs root and a bed"]
fn a_killed_process_is_killed() {
    let (bed, _alone) = bed();
    Probe::on(&bed, 1);
    let restarts = || {
        kubectl(
            &bed,
            "get pod -n probe probe1 -o jsonpath={.status.containerStatuses[0].restartCount}",
        )
    };
    let before: u32 = restarts().parse().unwrap();
    assert!(bed.kill("probe", "probe1", "no such program").is_err());
    bed.kill("probe", "probe1", "count/new").unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while restarts().parse::<u32>().unwrap() == before {
        assert!(Instant::now() < until, "the container was not started again");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
#[ignore = "needs root and a bed"]
fn heal_all_takes_everything_back() {
    let (bed, _alone) = bed();
    bed.isolate(Host::Node(1)).unwrap();
    bed.power_off(2).unwrap();
    bed.freeze(Host::Node(3), None).unwrap();
    bed.limit_cpu(3, Some(10)).unwrap();
    bed.limit_memory(3, Some(2048)).unwrap();
    bed.limit_rate(Host::Client, Some(100)).unwrap();
    bed.api_down().unwrap();
    let status = holdfast_bed::status::one(&bed).unwrap();
    for shown in [
        "node1 loses 100 %",
        "node2       off",
        "node3       frozen",
        "down on purpose",
        "10 % of a processor",
        "2048 MiB",
        "100 kbit/s",
    ] {
        assert!(status.contains(shown), "{shown} is not in\n{status}");
    }
    bed.heal_all().unwrap();
    let status = holdfast_bed::status::one(&bed).unwrap();
    assert!(!status.contains("fault"), "{status}");
    std::thread::sleep(Duration::from_secs(3));
    bed.wait_nodes(Duration::from_secs(60)).unwrap();
    for n in 1..=3 {
        until("the node to hear the client", || {
            heard(&bed, Host::Node(n), Host::Client)
        });
    }
}
