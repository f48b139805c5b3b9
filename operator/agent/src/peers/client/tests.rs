//! With real connections: whose end is told of, and how often one is made.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use holdfast_core::failover::{DirId, Lsn, Position, Term};
use holdfast_core::instance::{SealAnswer, Timings};
use holdfast_postgres::Layout;
use holdfast_wire::Bootstrap;
use http::Response;
use http_body_util::Empty;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_rustls::TlsAcceptor;

use super::super::{Known, tls};
use super::*;
use crate::metrics::Metrics;
use crate::options::{ClusterKind, Options};
use crate::shell::Input;

/// What the listening peer does.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    Answers,
    /// As one that does not accept the certificate: the client's handshake is done, then the connection ends.
    HangsUp,
    /// As a process that is being killed: its connections are closed, the kernel takes others that nobody serves.
    Dies,
}

/// A listening peer, `a-2`.
struct Listener {
    at: SocketAddr,
    does: watch::Sender<Does>,
    accepted: Arc<AtomicUsize>,
    answered: Arc<AtomicUsize>,
    socket: Option<Arc<TcpListener>>,
    task: tokio::task::JoinHandle<()>,
}

impl Listener {
    async fn begin(tls: &Tls) -> Listener {
        let socket = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let at = socket.local_addr().unwrap();
        let does = watch::Sender::new(Does::Answers);
        let (accepted, answered) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.server));
        let (listens, taken, served, will) = (
            Arc::clone(&socket),
            Arc::clone(&accepted),
            Arc::clone(&answered),
            does.subscribe(),
        );
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listens.accept().await.unwrap();
                taken.fetch_add(1, Ordering::Relaxed);
                let (acceptor, served, mut will) = (acceptor.clone(), Arc::clone(&served), will.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(|_| {
                        served.fetch_add(1, Ordering::Relaxed);
                        async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
                    });
                    tokio::select! {
                        biased;
                        _ = will.wait_for(|does| *does != Does::Answers) => {}
                        _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service) => {}
                    }
                });
            }
        });
        Listener {
            at,
            does,
            accepted,
            answered,
            socket: Some(socket),
            task,
        }
    }

    /// Its connections are closed before it stops listening, as the kernel may do it.
    async fn die(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
        self.does.send_replace(Does::Dies);
        tokio::time::sleep(Duration::from_millis(15)).await;
        self.socket = None;
    }
}

fn certificate(dir: &Path, name: &str, ca: &rcgen::CertifiedIssuer<'static, rcgen::KeyPair>) -> Tls {
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, ca).unwrap();
    std::fs::write(dir.join("tls.crt"), cert.pem()).unwrap();
    std::fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
    std::fs::write(dir.join("ca.crt"), ca.pem()).unwrap();
    tls::load(dir).unwrap()
}

/// A listening peer, and `a-1`, who sends to it.
struct Rig {
    peer: Listener,
    me: Arc<Peers>,
    told: UnboundedReceiver<Input>,
}

impl Rig {
    async fn new() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        let peer = Listener::begin(&certificate(dir.path(), "a-2", &ca)).await;
        let options = Options {
            member: MemberName("a-1".into()),
            set: "a".into(),
            namespace: "test".into(),
            address: "127.0.0.1".into(),
            pod_uid: "uid".into(),
            bootstrap: Bootstrap {
                database: "shop".into(),
                owner: "app".into(),
                encoding: "UTF8".into(),
                locale: "C.UTF-8".into(),
                data_checksums: true,
                wal_segment_mib: 4,
            },
            layout: Layout::default(),
            archive: None,
            listen: "127.0.0.1".into(),
            postgres_port: 0,
            peer_port: peer.at.port(),
            health_port: 0,
            cluster: ClusterKind::Kubernetes,
            timings: Timings::default(),
            path: String::new(),
        };
        let (inbox, told) = unbounded_channel();
        let me = Arc::new(Peers {
            options: Arc::new(options),
            inbox,
            metrics: Arc::new(Metrics::new()),
            known: Mutex::default(),
            senders: Mutex::default(),
            tls: watch::Sender::new(Some(certificate(dir.path(), "a-1", &ca))),
        });
        let rig = Rig { peer, me, told };
        rig.is_at("127.0.0.1");
        rig
    }

    fn is_at(&self, address: &str) {
        let address = Some(address.to_owned());
        self.me
            .known()
            .insert(MemberName("a-2".into()), Known { address, told: None });
    }

    /// Gives the peer time to take it, or to refuse.
    async fn say(&self) {
        self.send();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    fn send(&self) {
        let word = SealAnswer {
            term: Term(2),
            dir: DirId("d".into()),
            position: Position {
                term: Term(1),
                lsn: Lsn(1),
            },
            gone: false,
            led: None,
            beside: Vec::new(),
        };
        self.me.send(&MemberName("a-2".into()), Message::Sealed(word));
    }

    async fn say_and_be_answered(&self) {
        let answered = || self.peer.answered.load(Ordering::Relaxed);
        let before = answered();
        self.send();
        let begun = Instant::now();
        while answered() == before && begun.elapsed() < Duration::from_secs(20) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(answered(), before + 1, "taken once");
    }

    /// How many refusals were told since the last time.
    fn refusals(&mut self) -> usize {
        let mut n = 0;
        while let Ok(input) = self.told.try_recv() {
            match input {
                Input::Event(Event::Refused { by }) if by.0 == "a-2" => n += 1,
                other => panic!("{other:?}"),
            }
        }
        n
    }
}

#[tokio::test]
async fn a_peer_that_took_messages_and_is_gone_is_told_of_once() {
    let mut rig = Rig::new().await;
    rig.say_and_be_answered().await;
    rig.say_and_be_answered().await;
    assert_eq!(rig.peer.accepted.load(Ordering::Relaxed), 1, "one connection is kept");
    rig.peer.die().await;
    let (begun, mut told) = (Instant::now(), 0);
    while told == 0 && begun.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        told += rig.refusals();
    }
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(told + rig.refusals(), 1, "without a word to send");
    rig.say().await;
    rig.say().await;
    assert_eq!(rig.refusals(), 0, "it was not connected since");
}

#[tokio::test]
async fn a_peer_that_was_never_connected_is_not_told_of_however_often_it_refuses() {
    let mut rig = Rig::new().await;
    // Nobody listens there, as where a network policy rejects a new Pod's peers.
    rig.is_at("127.0.0.9");
    rig.say().await;
    rig.say().await;
    assert_eq!(rig.refusals(), 0);
    assert_eq!(rig.peer.accepted.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_refusal_at_another_address_than_that_of_the_lost_connection_is_not_told_of() {
    let mut rig = Rig::new().await;
    rig.say_and_be_answered().await;
    rig.is_at("127.0.0.9");
    rig.peer.does.send_replace(Does::HangsUp);
    tokio::time::sleep(Duration::from_millis(250)).await;
    rig.say().await;
    assert_eq!(rig.refusals(), 0);
}

#[tokio::test]
async fn a_peer_that_hangs_up_on_each_connection_is_not_called_all_the_time() {
    let mut rig = Rig::new().await;
    rig.say_and_be_answered().await;
    rig.peer.does.send_replace(Does::HangsUp);
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let accepted = rig.peer.accepted.load(Ordering::Relaxed);
    assert_eq!(accepted, 2, "the first connection, and one attempt when that ended");
    // Messages try by themselves, and get through once it accepts.
    rig.say().await;
    assert!(rig.peer.accepted.load(Ordering::Relaxed) <= accepted + 2);
    rig.peer.does.send_replace(Does::Answers);
    rig.say_and_be_answered().await;
    assert_eq!(rig.refusals(), 0);
}

#[tokio::test]
async fn what_is_to_be_said_goes_out_on_the_new_connection_when_the_kept_one_was_closed() {
    let mut rig = Rig::new().await;
    rig.say_and_be_answered().await;
    rig.peer.does.send_replace(Does::HangsUp);
    tokio::time::sleep(Duration::from_millis(2)).await;
    rig.peer.does.send_replace(Does::Answers);
    rig.say_and_be_answered().await;
    assert_eq!(rig.refusals(), 0);
}
