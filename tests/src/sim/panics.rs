//! Panics of simulated tasks: the runtime swallows them, and a process whose task is gone must not pass for a sound one.
//!
//! A run stays on its thread, so what panics there is its own.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

static HOOKED: Once = Once::new();

/// A new run begins on this thread.
pub fn forget() {
    HOOKED.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            SEEN.with_borrow_mut(|seen| seen.push(panic.to_string()));
            others(panic);
        }));
    });
    SEEN.take();
}

/// What panicked on this thread since.
pub fn seen() -> Vec<String> {
    SEEN.take()
}
