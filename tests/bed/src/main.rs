//! The `bed` program: everything the library does, for people and scripts.

mod args;

use anyhow::{Context, Result};
use args::{Args, Command, Internal};
use clap::Parser;
use holdfast_bed::bed::{Bed, Options, Owner};
use holdfast_bed::net::Host;
use holdfast_bed::{ImageSpec, binaries, engine, flux, image, init, packages, provision, remove, status};
use nix::sys::signal::Signal;
use std::os::unix::process::CommandExt;
use std::time::Duration;

fn main() -> Result<()> {
    let args = Args::parse();
    let name = args.name.as_str();
    let bed = || Bed::attach(name);
    match args.command {
        Command::Build => {
            packages::ensure()?;
            for dir in binaries::build()? {
                println!("{}", dir.display());
            }
        }
        Command::Images { postgres, flux } => {
            packages::need_root()?;
            packages::ensure()?;
            println!("{}", image::pause()?.display());
            for major in postgres {
                println!("{}", engine::postgres(major)?.display());
            }
            if flux {
                for controller in flux::controllers()? {
                    println!("{}", controller.layout.display());
                }
            }
        }
        Command::Up { nodes, postgres } => {
            let bed = Bed::up(Options {
                name: name.into(),
                nodes,
                postgres,
                owner: Owner::Nobody,
            })?;
            println!("export KUBECONFIG={}", bed.kubeconfig()?.display());
        }
        Command::Down { all: true } => remove::down_all()?,
        Command::Down { all: false } => bed()?.down()?,
        Command::Status => print!("{}", status::all()?),
        Command::Kubeconfig => println!("{}", bed()?.kubeconfig()?.display()),
        Command::Env => {
            let bed = bed()?;
            let bin = bed.program("kubectl")?;
            println!("export KUBECONFIG={}", bed.kubeconfig()?.display());
            println!(
                "export PATH={}:$PATH",
                bin.parent().context("a program without folder")?.display()
            );
        }
        Command::Push { archive, image } => println!("{}", bed()?.push_archive(&archive, &image)?.pinned),
        Command::Image {
            program,
            image,
            uid,
            file,
            entrypoint,
        } => {
            let mut spec = ImageSpec::program(&program, uid);
            spec.files.extend(file);
            if !entrypoint.is_empty() {
                spec.entrypoint = entrypoint;
            }
            println!("{}", bed()?.push_image(&spec, &image)?.pinned);
        }
        Command::Postgres { major } => println!("{}", bed()?.push_postgres(major)?.pinned),
        Command::GitRepo { repository } => {
            let git = bed()?.git()?;
            git.create(&repository)?;
            println!("{}\n{}", git.ssh_url(&repository), git.https_url(&repository));
        }
        Command::Git => {
            let git = bed()?.git()?;
            println!("ssh         {}", git.ssh_url("NAME"));
            println!("ssh key     {}", git.ssh_key.display());
            println!("known hosts {}", git.known_hosts.display());
            println!("https       {}", git.https_url("NAME"));
            println!("authority   {}", git.ca.display());
            println!("user        {}\ntoken       {}", git.user, git.token);
        }
        Command::Exec { host, argv } => {
            return Err(bed()?.command_on(host, &argv)?.exec()).context("cannot start the command");
        }
        Command::Off { node } => bed()?.power_off(node)?,
        Command::On { node } => bed()?.power_on(node)?,
        Command::Freeze { host, seconds } => bed()?.freeze(host, seconds.map(Duration::from_secs_f64))?,
        Command::Hang { host } => bed()?.hang(host)?,
        Command::Thaw { host } => bed()?.thaw(host)?,
        Command::Cut { at, from } => bed()?.cut(at, from)?,
        Command::CutBoth { a, b } => bed()?.cut_both(a, b)?,
        Command::CutApi { host } => bed()?.cut_api(host)?,
        Command::Isolate { host } => bed()?.isolate(host)?,
        Command::Lose { at, from, percent } => bed()?.lose(at, from, percent)?,
        Command::Heal { all: false } => bed()?.heal()?,
        Command::Heal { all: true } => bed()?.heal_all()?,
        Command::Rate { host, kbit } => bed()?.limit_rate(host, (kbit > 0).then_some(kbit))?,
        Command::Cpu { node, percent } => bed()?.limit_cpu(node, (percent > 0).then_some(percent))?,
        Command::Memory { node, mib } => bed()?.limit_memory(node, (mib > 0).then_some(mib))?,
        Command::ApiDown => bed()?.api_down()?,
        Command::ApiPause { seconds } => bed()?.freeze(Host::Cp, seconds.map(Duration::from_secs_f64))?,
        Command::ApiUp => {
            let bed = bed()?;
            bed.thaw(Host::Cp)?;
            bed.api_up()?;
        }
        Command::Stall { claim, seconds } => {
            let bed = bed()?;
            bed.stall(
                &bed.volume(&claim.namespace, &claim.claim)?,
                Duration::from_secs_f64(seconds),
            )?;
        }
        Command::Fill { claim, leave } => {
            let bed = bed()?;
            bed.fill(&bed.volume(&claim.namespace, &claim.claim)?, leave)?;
        }
        Command::Unfill { claim } => {
            let bed = bed()?;
            bed.unfill(&bed.volume(&claim.namespace, &claim.claim)?)?;
        }
        Command::Kill {
            namespace,
            pod,
            pattern,
        } => {
            println!("{}", bed()?.signal(&namespace, &pod, &pattern, Signal::SIGKILL)?);
        }
        Command::Internal(Internal::Node { dir }) => init::main(&dir)?,
        Command::Internal(Internal::Provision { bed }) => {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(provision::main(&bed))?;
        }
    }
    Ok(())
}
