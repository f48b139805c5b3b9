//! `kubectl holdfast`: on the PATH as `kubectl-holdfast`, kubectl finds it as a plugin.

fn main() -> std::process::ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    holdfast_cli::main()
}
