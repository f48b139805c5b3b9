//! holdfast-bed
