//! OpenSSH's sshd on a free port, as whoever runs the test.

use std::{
    fs,
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use holdfast_core::source::url::{RepositoryUrl, Scheme};
use holdfast_git::Access;

use super::{Repository, access, free_port, repository::keygen};

pub struct SshServer {
    folder: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl SshServer {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        keygen(&at("host"));
        keygen(&at("client"));
        keygen(&at("stranger"));
        fs::copy(at("client.pub"), at("authorized")).unwrap();
        let port = free_port();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n",
            at("host").display(),
            at("authorized").display(),
        );
        fs::write(at("config"), config).unwrap();
        // sshd's separated child is jailed here; root's packages make it at boot.
        let _ = fs::create_dir_all("/run/sshd");
        let sshd = ["/usr/sbin/sshd", "/usr/bin/sshd"]
            .into_iter()
            .find(|p| Path::new(p).exists())
            .expect("sshd: install openssh-server");
        let child = Command::new(sshd)
            .args(["-D", "-e", "-f"])
            .arg(at("config"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "sshd did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        SshServer { folder, port, child }
    }

    pub fn url(&self, repository: &Repository) -> RepositoryUrl {
        RepositoryUrl {
            scheme: Scheme::Ssh,
            user: Some(
                String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout)
                    .unwrap()
                    .trim()
                    .to_owned(),
            ),
            host: "127.0.0.1".into(),
            port: Some(self.port),
            path: repository.bare().display().to_string(),
        }
    }

    pub fn known_hosts(&self) -> String {
        format!("[127.0.0.1]:{} {}", self.port, self.read("host.pub"))
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    pub fn access(&self, repository: &Repository) -> Access {
        access(
            &self.url(repository),
            &[("identity", &self.read("client")), ("known_hosts", &self.known_hosts())],
        )
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
