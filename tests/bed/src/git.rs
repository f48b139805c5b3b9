//! Git servers, over ssh and over https, each on a host of its own so that each can be cut off. Both serve the same
//! repositories: `ssh://git@git-ssh.bed/srv/git/NAME.git` and `https://git-https.bed/NAME.git`.

use crate::net::Host;
use crate::pki::{self, Authority};
use crate::run::{Proc, command, output, run};
use crate::state::State;
use crate::{control, paths};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The user that owns the repositories, inside the Git hosts only: the machine's own list of users stays as it is.
const UID: &str = "64990";

/// How to reach the Git servers of a bed.
#[derive(Debug, Clone)]
pub struct GitServers {
    dir: PathBuf,
    https_ip: String,
    /// Private key of the user `git`, OpenSSH format. Read and write.
    pub ssh_key: PathBuf,
    /// The ssh server's keys, for `UserKnownHostsFile`.
    pub known_hosts: PathBuf,
    /// Certificate of the authority behind the https server, PEM.
    pub ca: PathBuf,
    /// User name for https.
    pub user: String,
    /// Token (password) for https.
    pub token: String,
}

impl GitServers {
    /// The servers of a bed, whether or not they run.
    pub fn of(state: &State) -> Result<GitServers> {
        let dir = state.dir()?.join("git");
        Ok(GitServers {
            https_ip: state.net.ip(Host::GitHttps).to_string(),
            ssh_key: dir.join("id_ed25519"),
            known_hosts: dir.join("known_hosts"),
            ca: dir.join("git-ca.crt"),
            user: "git".into(),
            token: state.git_token.clone(),
            dir,
        })
    }

    /// Address of a repository for ssh.
    pub fn ssh_url(&self, name: &str) -> String {
        format!("ssh://git@{}.bed/srv/git/{name}.git", Host::GitSsh.name())
    }

    /// Address of a repository for https. The user and token are not in it.
    pub fn https_url(&self, name: &str) -> String {
        format!("https://{}.bed/{name}.git", Host::GitHttps.name())
    }

    /// The bare repository as a folder on this machine: writing to it works whatever is cut.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join("repos").join(format!("{name}.git"))
    }

    /// Makes an empty repository with the branch `main`.
    pub fn create(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        ensure!(!path.exists(), "there is already a repository '{name}'");
        output(command(&["git", "init", "-q", "--bare", "-b", "main"]).arg(&path))?;
        run(&["git", "-C", paths::text(&path)?, "config", "http.receivepack", "true"])?;
        own(&path)
    }

    /// A `git` that runs on this machine and reaches the https server by its name, with user and token.
    pub fn command(&self) -> Command {
        let settings = [
            (
                "http.curloptResolve",
                format!("{}.bed:443:{}", Host::GitHttps.name(), self.https_ip),
            ),
            (
                "credential.helper",
                format!("!printf 'username={}\\npassword={}\\n';:", self.user, self.token),
            ),
            ("safe.directory", "*".into()),
            ("user.name", "Bed".into()),
            ("user.email", "bed@example.org".into()),
        ];
        let mut git = command(&["git"]);
        git.env("GIT_CONFIG_COUNT", settings.len().to_string())
            .env("GIT_TERMINAL_PROMPT", "0");
        // By environment, as some machines set this variable for everybody, and it wins over configuration.
        git.env("GIT_SSL_CAINFO", &self.ca);
        for (n, (name, value)) in settings.into_iter().enumerate() {
            git.env(format!("GIT_CONFIG_KEY_{n}"), name)
                .env(format!("GIT_CONFIG_VALUE_{n}"), value);
        }
        git
    }
}

fn own(path: &Path) -> Result<()> {
    output(command(&["chown", "-R", &format!("{UID}:{UID}")]).arg(path))?;
    Ok(())
}

/// Makes keys, certificates and configuration. Fills in the state's Git token.
pub fn prepare(state: &mut State) -> Result<()> {
    state.git_token = pki::token()?;
    let servers = GitServers::of(state)?;
    let dir = &servers.dir;
    fs::create_dir_all(dir.join("repos"))?;
    own(&dir.join("repos"))?;
    let text = |name: &str| pki::file(dir, name);

    for key in ["host_ed25519", "id_ed25519"] {
        run(&[
            "ssh-keygen",
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            "bed",
            "-f",
            &text(key)?,
        ])?;
    }
    let host_key = fs::read_to_string(dir.join("host_ed25519.pub"))?;
    let name = format!("{}.bed", Host::GitSsh.name());
    fs::write(
        &servers.known_hosts,
        format!("{name},{} {host_key}", state.net.ip(Host::GitSsh)),
    )?;
    fs::copy(dir.join("id_ed25519.pub"), dir.join("authorized_keys"))?;
    fs::write(
        dir.join("sshd_config"),
        format!(
            "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPidFile none\nAllowUsers git\nDisableForwarding yes\nUseDNS no\n",
            text("host_ed25519")?,
            "/srv/authorized_keys",
        ),
    )?;

    let authority = Authority::create(dir, "git-ca")?;
    let names = vec![
        format!("{}.bed", Host::GitHttps.name()),
        state.net.ip(Host::GitHttps).to_string(),
    ];
    authority.sign(dir, "https", "git-https.bed", names)?;
    fs::write(
        dir.join("htpasswd"),
        format!("{}:{{PLAIN}}{}\n", servers.user, servers.token),
    )?;
    fs::write(dir.join("nginx.conf"), NGINX)?;
    for (file, base, line) in [
        (
            "passwd",
            "/etc/passwd",
            format!("git:x:{UID}:{UID}::/srv/git:/usr/bin/git-shell\n"),
        ),
        ("group", "/etc/group", format!("git:x:{UID}:\n")),
        ("shadow", "/etc/shadow", "git:*:19000:0:99999:7:::\n".to_string()),
    ] {
        let text = fs::read_to_string(base).with_context(|| format!("cannot read {base}"))?;
        pki::write_secret(&dir.join(file), &(text + &line))?;
    }
    run(&["chmod", "644", &text("passwd")?, &text("group")?])?;
    Ok(())
}

const NGINX: &str = r#"
user root;
daemon off;
pid /run/nginx.pid;
error_log stderr;
events {}
http {
  upstream fcgi { server unix:/run/fcgi1.socket; server unix:/run/fcgi2.socket; server unix:/run/fcgi3.socket; }
  access_log off;
  client_max_body_size 0;
  client_body_temp_path /run/body; proxy_temp_path /run/proxy; fastcgi_temp_path /run/fastcgi;
  uwsgi_temp_path /run/uwsgi; scgi_temp_path /run/scgi;
  server {
    listen 443 ssl;
    ssl_certificate /srv/conf/https.crt;
    ssl_certificate_key /srv/conf/https.key;
    auth_basic "Git";
    auth_basic_user_file /srv/conf/htpasswd;
    location / {
      fastcgi_pass fcgi;
      fastcgi_param SCRIPT_FILENAME /usr/lib/git-core/git-http-backend;
      fastcgi_param GIT_PROJECT_ROOT /srv/git;
      fastcgi_param GIT_HTTP_EXPORT_ALL 1;
      fastcgi_param PATH_INFO $uri;
      fastcgi_param QUERY_STRING $query_string;
      fastcgi_param REQUEST_METHOD $request_method;
      fastcgi_param CONTENT_TYPE $content_type;
      fastcgi_param CONTENT_LENGTH $content_length;
      fastcgi_param HTTP_CONTENT_ENCODING $http_content_encoding;
      fastcgi_param HTTP_GIT_PROTOCOL $http_git_protocol;
      fastcgi_param REMOTE_USER $remote_user;
      fastcgi_param REMOTE_ADDR $remote_addr;
      fastcgi_read_timeout 300s;
    }
  }
}
"#;

/// File systems of a Git host: memory over what the servers write to, the user `git`, and the repositories.
const MOUNTS: &str = r#"set -e
mount --make-rprivate /
for f in passwd group shadow; do mount --bind "$1/$f" /etc/$f; done
mount -t tmpfs tmpfs /srv; mkdir /srv/git /srv/conf
mount --bind "$1" /srv/conf; mount --bind "$1/repos" /srv/git
cp "$1/authorized_keys" /srv/authorized_keys
mount -t tmpfs tmpfs /run; mkdir -m 755 /run/sshd
"#;

/// Starts both servers.
pub fn start(state: &State) -> Result<[(&'static str, Proc); 2]> {
    let dir = state.dir()?.join("git");
    let dir = paths::text(&dir)?;
    let server = |host: Host, name: &'static str, then: &str| -> Result<(&'static str, Proc)> {
        let script = format!("{MOUNTS}{then}");
        let argv = ["unshare", "--mount", "bash", "-c", &script, "bash", dir]
            .map(String::from)
            .to_vec();
        Ok((name, control::launch(state, host, name, argv, Vec::new())?))
    };
    Ok([
        server(
            Host::GitSsh,
            "git-ssh",
            "exec /usr/sbin/sshd -D -e -f /srv/conf/sshd_config",
        )?,
        server(
            Host::GitHttps,
            "git-https",
            // One process each: the parent of several (`-c`) spins for ever once a child has ended.
            "chmod 777 /run\n\
             for n in 1 2 3; do setpriv --reuid git --regid git --clear-groups env HOME=/srv/git \
             fcgiwrap -s unix:/run/fcgi$n.socket & done\n\
             exec nginx -c /srv/conf/nginx.conf",
        )?,
    ])
}
