//! The one entrance to threads.
//!
//! The calling thread works from the first moment and the pool's threads join it; all draw
//! [`Span`]s until none is left. What a span computes depends on the span alone and results are
//! combined in the order of spans, so the number of threads never shows in a result. That makes
//! the fallback simple, too: where threads cannot be had, the caller does the work alone.
//!
//! A forked child has the pool's memory but not its threads: it builds a pool of its own.

use crate::error::{Error, Result};
use crate::memory;
use crate::view::{Span, Spans};
use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, TryLockError};
use std::time::{Duration, Instant};

/// How often the caller asks whether it should stop.
const PATIENCE: Duration = Duration::from_millis(50);

/// More threads than these no call may use: each has memory of its own.
pub const MOST_THREADS: usize = 1024;

/// 0 until somebody asks or sets.
static THREADS: AtomicUsize = AtomicUsize::new(0);
static POOL: Mutex<Option<Pool>> = Mutex::new(None);

struct Pool {
    process: u32,
    workers: usize,
    threads: Arc<rayon::ThreadPool>,
}

/// How many threads a call may use, the calling one included: what [`set_num_threads`] said, else
/// the environment variable `CROSSENT_NUM_THREADS`, else what the machine, the affinity mask and
/// the container's quota allow.
pub fn num_threads() -> usize {
    match THREADS.load(Ordering::Relaxed) {
        0 => {
            let asked = std::env::var("CROSSENT_NUM_THREADS").ok();
            let n = asked.and_then(|n| n.parse().ok()).filter(|n| *n > 0).unwrap_or_else(|| {
                std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
            });
            let n = n.min(MOST_THREADS);
            THREADS.store(n, Ordering::Relaxed);
            n
        }
        n => n,
    }
}

/// Sets how many threads a call may use; at least one, at most [`MOST_THREADS`].
pub fn set_num_threads(n: usize) {
    THREADS.store(n.clamp(1, MOST_THREADS), Ordering::Relaxed);
}

/// The pool with so many workers, or none where it cannot be had at once.
fn pool(workers: usize) -> Option<Arc<rayon::ThreadPool>> {
    // A fork may have copied the lock while it was held: never wait for it.
    let mut pool = match POOL.try_lock() {
        Ok(pool) => pool,
        Err(TryLockError::Poisoned(pool)) => pool.into_inner(),
        Err(TryLockError::WouldBlock) => return None,
    };
    let process = std::process::id();
    if let Some(p) = &*pool
        && p.process == process
        && p.workers == workers
    {
        return Some(p.threads.clone());
    }
    let threads = rayon::ThreadPoolBuilder::new()
        .num_threads(workers)
        .thread_name(|i| format!("crossent-{i}"))
        .build()
        .ok()?;
    let threads = Arc::new(threads);
    let old = pool.replace(Pool { process, workers, threads: threads.clone() });
    if let Some(old) = old
        && old.process != process
    {
        // Its threads stayed in the parent: nothing here can join them.
        std::mem::forget(old);
    }
    Some(threads)
}

/// Who does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crew {
    /// The calling thread, in memory that it keeps for the next such call.
    Kept,
    /// The calling thread.
    Alone,
    /// As many threads as there may be.
    All,
}

/// Elements up to which a call keeps its memory: what it takes costs more than what is done in it.
const KEPT: usize = 8 << 10;

impl Crew {
    /// For so many elements, where threads pay from `many` on.
    pub(crate) fn of(elements: usize, many: usize) -> Self {
        match elements {
            0..=KEPT => Self::Kept,
            _ if elements < many => Self::Alone,
            _ => Self::All,
        }
    }
}

/// What a thread works in.
pub(crate) trait Memory: Default + 'static {
    /// Leaves nothing of the last call but room, and buffers that are written before they are read.
    fn forget(&mut self);
}

impl Memory for () {
    fn forget(&mut self) {}
}

impl<T: 'static> Memory for Vec<T> {
    fn forget(&mut self) {
        self.clear();
    }
}

impl<A: Memory, B: Memory> Memory for (A, B) {
    fn forget(&mut self) {
        self.0.forget();
        self.1.forget();
    }
}

thread_local! {
    /// Memory of [`Crew::Kept`], by its type.
    static MEMORY: RefCell<HashMap<TypeId, Box<dyn Any>>> = RefCell::default();
}

/// Calls `f` with the memory that the last such call on this thread left, or with new one.
fn with_kept<T: Memory>(f: impl FnOnce(&mut T)) {
    let key = TypeId::of::<T>();
    let kept = MEMORY.with_borrow_mut(|kept| kept.remove(&key));
    let mut memory: Box<T> = kept.and_then(|memory| memory.downcast().ok()).unwrap_or_default();
    f(&mut memory);
    memory.forget();
    MEMORY.with_borrow_mut(|kept| kept.insert(key, memory));
}

/// Calls `work` once for each span, on up to [`num_threads`] threads where the crew is all of them,
/// each in memory of its own.
///
/// # Errors
/// [`Error::Interrupted`] where `interrupted`, asked now and then on the calling thread, says so;
/// [`Error::Memory`] where a thread could not have what `work` takes.
pub(crate) fn run<T: Memory>(
    spans: &Spans<'_>,
    crew: Crew,
    interrupted: &dyn Fn() -> bool,
    work: impl Fn(&mut Span<'_>, &mut T) + Sync,
) -> Result<()> {
    let stop = AtomicBool::new(false);
    let failed = OnceLock::new();
    let work = |span: &mut Span<'_>, scratch: &mut T| {
        if let Err(error) = memory::caught(|| work(span, scratch)) {
            stop.store(true, Ordering::Relaxed);
            // The first to fail speaks for all.
            let _ = failed.set(error);
        }
    };
    let stopped = || stop.load(Ordering::Relaxed);
    let draw = |home: f64| {
        let mut scratch = T::default();
        while !stopped()
            && let Some(span) = spans.claim(home)
        {
            work(&mut span.until(&stopped), &mut scratch);
        }
    };
    let asked = Cell::new(Instant::now());
    let asks = || {
        if asked.get().elapsed() > PATIENCE {
            if interrupted() {
                stop.store(true, Ordering::Relaxed);
            }
            asked.set(Instant::now());
        }
        stopped()
    };
    let draw_and_ask = |scratch: &mut T| {
        while !asks()
            && let Some(span) = spans.claim(0.0)
        {
            work(&mut span.until(&asks), scratch);
        }
    };
    let most = if crew == Crew::All { num_threads() } else { 1 };
    let workers = most.min(spans.count()).saturating_sub(1);
    // The pool keeps its size whatever a call needs: building one costs more than idling one.
    let pool = if workers > 0 { pool(num_threads() - 1) } else { None };
    match pool {
        Some(pool) => pool.in_place_scope(|scope| {
            for worker in 1..=workers {
                let home = worker as f64 / (workers + 1) as f64;
                let draw = &draw;
                scope.spawn(move |_| draw(home));
            }
            draw_and_ask(&mut T::default());
        }),
        None if crew == Crew::Kept => with_kept(draw_and_ask),
        None => draw_and_ask(&mut T::default()),
    }
    match (failed.into_inner(), stop.into_inner()) {
        (Some(error), _) => Err(error),
        (None, true) => Err(Error::Interrupted),
        (None, false) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;

    /// Draws every span; how many there were.
    fn drawn(crew: Crew) -> usize {
        let spans = Spans::new(64, 1, Vec::new());
        let count = AtomicUsize::new(0);
        run(&spans, crew, &|| false, |_, seen: &mut Vec<f64>| {
            assert!(seen.is_empty(), "memory of a call that failed");
            count.fetch_add(1, Ordering::Relaxed);
        })
        .expect("nobody interrupts");
        count.into_inner()
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_next_call_works() {
        set_num_threads(3);
        let caller = thread::current().id();
        for crew in [Crew::All, Crew::Alone, Crew::Kept] {
            for _ in 0..20 {
                let spans = Spans::new(64, 1, Vec::new());
                let panics = AtomicBool::new(false);
                let call = || {
                    run(&spans, crew, &|| false, |_, seen: &mut Vec<f64>| {
                        seen.push(1.0);
                        if crew != Crew::All || thread::current().id() != caller {
                            panics.store(true, Ordering::Relaxed);
                            panic!("on purpose");
                        }
                        // Leaves the panic to a worker.
                        while !panics.load(Ordering::Relaxed) {
                            thread::yield_now();
                        }
                        seen.clear();
                    })
                };
                let panic = catch_unwind(AssertUnwindSafe(call)).expect_err("it panics");
                assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
                assert_eq!(drawn(crew), 64);
            }
        }
    }
}
