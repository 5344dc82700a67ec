//! The fold (placeholder while the crate is founded).
