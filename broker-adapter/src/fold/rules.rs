//! A test-only switch that turns rules of the fold off, to show that the simulation finds what they prevent.

/// Which rules hold. Outside tests: all of them, always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A fence counts only under the current epoch plus one.
    pub fence: bool,
    /// A message counts only as its session's last counted sequence plus one.
    pub session: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Rules { fence: true, session: true }
    }
}
