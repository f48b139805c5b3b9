//! `kubectl holdfast`: what a person types.

/// Entry point of the plugin.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
