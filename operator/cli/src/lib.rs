//! holdfast-cli
