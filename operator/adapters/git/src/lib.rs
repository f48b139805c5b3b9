//! holdfast-git
