//! A bed with the product installed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use holdfast_bed::Bed;
use holdfast_bed::bed::{Options, Owner};
use holdfast_bed::image::ImageSpec;

/// Where the operator lives.
pub const SYSTEM: &str = "holdfast-system";
/// The engine's image in every bed's registry.
pub const POSTGRES: &str = "registry.bed:5000/bed/postgres:17";

/// Patience for what takes a moment, unless a test beside kills the operator's Pods just then: none leads for up to 30 s.
pub const SOON: Duration = Duration::from_secs(120);

/// A bed with Holdfast installed on it.
#[derive(Clone, Debug)]
pub struct House {
    /// The ground.
    pub bed: Bed,
    /// The product's image, by digest.
    pub image: String,
}

/// The project's root, wherever a test is started from.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The program to be tested: `HOLDFAST_BINARY`, else what `make image` has built.
pub fn binary() -> Result<PathBuf> {
    let file = match std::env::var_os("HOLDFAST_BINARY") {
        Some(file) => PathBuf::from(file),
        None => {
            let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
            target.join("x86_64-unknown-linux-gnu/image/holdfast")
        }
    };
    ensure!(file.exists(), "{} is not there: run `make image` first", file.display());
    Ok(file)
}

/// The product's image: the operator's program, and beside it the agent's.
fn image(binary: &Path) -> ImageSpec {
    let mut image = ImageSpec::program(binary, 65532);
    image
        .files
        .push(("/bin/holdfast-agent".into(), binary.with_file_name("holdfast-agent")));
    image
}

/// Says what goes on and how long it usually takes.
pub fn say(text: &str) {
    eprintln!("demo: {text}");
}

impl House {
    /// Starts the bed `name` (or uses the one that is up), puts the product's image into its registry and installs both
    /// charts. Usually 25 s.
    pub fn open(name: &str, owner: Owner) -> Result<House> {
        let binary = binary()?;
        let bed = Bed::up(Options {
            name: name.into(),
            owner,
            ..Options::default()
        })?;
        say("putting Holdfast's image into the registry (usually 2 s)");
        let image = bed.push_image(&image(&binary), "holdfast/operator:dev")?;
        let house = House {
            bed,
            image: image.pinned,
        };
        house.install(&[])?;
        Ok(house)
    }

    /// This house with the same program under another digest, as a newer version of it: in the registry, not installed.
    pub fn next_version(&self) -> Result<House> {
        let mut next = image(&binary()?);
        next.labels
            .push(("org.opencontainers.image.version".into(), "next".into()));
        Ok(House {
            bed: self.bed.clone(),
            image: self.bed.push_image(&next, "holdfast/operator:next")?.pinned,
        })
    }

    /// The bed alone, without Holdfast: for what is compared with it.
    pub fn bare(name: &str, owner: Owner) -> Result<House> {
        let bed = Bed::up(Options {
            name: name.into(),
            owner,
            ..Options::default()
        })?;
        Ok(House {
            bed,
            image: String::new(),
        })
    }

    /// Installs both charts, or upgrades them, with these of the operator's values beside those that a bed needs: `NAME=VALUE`.
    /// Values of an earlier call are back at their defaults, and no operator that was started with them is there any more.
    pub fn install(&self, values: &[&str]) -> Result<()> {
        say("installing both charts with Helm (usually 10 s)");
        let (repository, digest) = self.image.rsplit_once('@').context("an image without a digest")?;
        let charts = root().join("charts");
        self.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {SYSTEM}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
        ))?;
        let helm = |release: &str, more: &[&str]| -> Result<()> {
            let mut command = self.program("helm")?;
            command
                .args(["upgrade", "--install", release])
                .arg(charts.join(release));
            command
                .args([
                    "--namespace",
                    SYSTEM,
                    "--create-namespace",
                    "--wait",
                    "--timeout",
                    "120s",
                ])
                .args(more);
            run(&mut command).map(drop)
        };
        helm("holdfast-crds", &[])?;
        let image = format!("image.repository={repository},image.digest={digest}");
        let all = [&[image.as_str()][..], values].concat().join(",");
        helm("holdfast", &["--set", &all])?;
        self.wait_for_old_operators_to_end()
    }

    /// Helm waits for new Pods only, and one from before may lead until it is gone.
    fn wait_for_old_operators_to_end(&self) -> Result<()> {
        let replicas = ["get", "deployment", "holdfast", "-o", "jsonpath={.spec.replicas}"];
        let replicas: usize = self
            .kubectl(&[["-n", SYSTEM].as_slice(), &replicas].concat())?
            .trim()
            .parse()?;
        wait_for("only new operators are there", Duration::from_secs(60), || {
            let select = ["-l", "app.kubernetes.io/component=operator", "-o", "name"];
            let pods = self.kubectl(&[["-n", SYSTEM, "get", "pods"].as_slice(), &select].concat())?;
            Ok(if pods.lines().count() == replicas {
                Ok(())
            } else {
                Err(pods)
            })
        })
    }

    /// One of the bed's programs (kubectl, helm), with its kubeconfig.
    pub fn program(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(self.bed.program(name)?);
        command.env("KUBECONFIG", self.bed.kubeconfig()?);
        Ok(command)
    }

    /// kubectl, its output.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        run(self.program("kubectl")?.args(args))
    }

    /// An object as JSON, if it is there.
    pub fn get(&self, namespace: &str, what: &str) -> Result<Option<serde_json::Value>> {
        let text = self.kubectl(&["-n", namespace, "get", what, "-o", "json", "--ignore-not-found"])?;
        if text.trim().is_empty() {
            Ok(None)
        } else {
            Ok(Some(serde_json::from_str(&text)?))
        }
    }

    /// `kubectl apply` of a text.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        let mut child = self
            .program("kubectl")?
            .args(["apply", "--server-side", "--force-conflicts", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            std::io::Write::write_all(&mut stdin, yaml.as_bytes())?;
        }
        let out = child.wait_with_output()?;
        ensure!(
            out.status.success(),
            "kubectl apply: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Makes an empty namespace of this name in which only restricted Pods may run; one of that name is removed first.
    pub fn namespace(&self, name: &str) -> Result<()> {
        self.kubectl(&[
            "delete",
            "namespace",
            name,
            "--ignore-not-found",
            "--wait",
            "--timeout=180s",
        ])?;
        self.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
        ))
        .map(drop)
    }

    /// Which operator leads and how often its containers started: another word means that one began anew meanwhile.
    pub fn operator_runs(&self) -> Result<String> {
        let lease = "jsonpath={.spec.holderIdentity} {.spec.leaseTransitions}";
        let lease = self.kubectl(&["-n", SYSTEM, "get", "lease", "holdfast-operator", "-o", lease])?;
        let starts = "jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[*].restartCount};{end}";
        Ok(format!(
            "{lease} {}",
            self.kubectl(&["-n", SYSTEM, "get", "pods", "-o", starts])?
        ))
    }

    /// What a person would want to see when something in a namespace went wrong.
    pub fn dump(&self, namespace: &str) {
        let operators = |more: &[&'static str]| {
            let logs = [
                "-n",
                SYSTEM,
                "logs",
                "-l",
                "app.kubernetes.io/name=holdfast",
                "--prefix",
            ];
            [&logs, more].concat()
        };
        for args in [
            vec![
                "-n",
                namespace,
                "get",
                "hrs,gs,pods,pvc,lease,endpointslices",
                "-o",
                "wide",
            ],
            vec!["-n", namespace, "get", "events", "--sort-by=.lastTimestamp"],
            operators(&["--tail=40"]),
            // An operator that ended took what it said last with it.
            vec!["-n", SYSTEM, "get", "pods,lease", "-o", "wide"],
            operators(&["--previous", "--ignore-errors", "--tail=20"]),
        ] {
            eprintln!(
                "--- kubectl {}\n{}",
                args.join(" "),
                self.kubectl(&args).unwrap_or_else(|e| format!("{e:#}"))
            );
        }
        let pods = self
            .kubectl(&["-n", namespace, "get", "pods", "-o", "name"])
            .unwrap_or_default();
        for pod in pods.lines() {
            let log = self.kubectl(&["-n", namespace, "logs", pod, "--all-containers", "--tail=60"]);
            eprintln!("--- log of {pod}\n{}", log.unwrap_or_else(|e| format!("{e:#}")));
        }
    }
}

/// Runs a command to its end; its standard output, or an error with what it said (but not its environment: secrets are
/// there).
pub fn run(command: &mut Command) -> Result<String> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {}", words(command)))?;
    if !out.status.success() {
        bail!(
            "{}: {}\n{}",
            words(command),
            out.status,
            String::from_utf8_lossy(&out.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn words(command: &Command) -> String {
    let all = std::iter::once(command.get_program()).chain(command.get_args());
    all.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Asks until `probe` gives something; what it last waited for is in the error.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Result<T, String>>) -> Result<T> {
    let start = Instant::now();
    let mut last = String::new();
    while start.elapsed() < limit {
        match probe() {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(waits)) => last = waits,
            Err(error) => last = format!("{error:#}"),
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    bail!("{what}: not within {} s; last: {last}", limit.as_secs())
}
