//! holdfast-controllers
