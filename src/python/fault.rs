//! A panic on demand, to see what becomes of one: `make fault`. In no wheel.

use super::call::{detached, guarded};
use crate::pool::{self, Crew};
use crate::view::Spans;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Panics on a thread of the pool, or on the calling one where `worker` is false.
#[pyfunction]
pub(super) fn _panic(py: Python<'_>, worker: bool) -> PyResult<()> {
    guarded(|| {
        let caller = thread::current().id();
        let panics = AtomicBool::new(false);
        let spans = Spans::new(64, 1, Vec::new());
        detached(py, |interrupted| {
            pool::run(&spans, Crew::All, interrupted, |_, (): &mut ()| {
                if worker == (thread::current().id() == caller) {
                    // Leaves the panic to the other.
                    while !panics.load(Ordering::Relaxed) {
                        thread::yield_now();
                    }
                    return;
                }
                panics.store(true, Ordering::Relaxed);
                panic!("on purpose");
            })
        })
    })
}
