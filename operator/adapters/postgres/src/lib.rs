//! holdfast-postgres
