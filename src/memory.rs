//! Memory of which a call's arrays decide how much: where it cannot be had, the call is refused.
//!
//! Rust ends the process where an allocation fails. So a thread that asks here unwinds instead, up to
//! [`caught`], at the entrance of threads: kernels need no way out of their own. What does not grow
//! with arrays, such as a message or a shape, is allocated as usual.

use crate::error::{Error, Result};
use crate::float::Real;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::OnceLock;

/// What a thread unwinds with: how many bytes could not be had.
struct Exhausted(usize);

/// Unwinds without a word: it is no panic.
#[cold]
fn exhausted<T>(len: usize) -> ! {
    resume_unwind(Box::new(Exhausted(len.saturating_mul(size_of::<T>()))))
}

/// So many zeros; of a large vector no memory is touched.
pub(crate) fn zeroed<F: Real>(len: usize) -> Vec<F> {
    F::new_vec_zeroed(len).unwrap_or_else(|_| exhausted::<F>(len))
}

/// Makes room for `more` elements.
pub(crate) fn reserve<T>(vec: &mut Vec<T>, more: usize) {
    if vec.try_reserve(more).is_err() {
        exhausted::<T>(more);
    }
}

/// [`Vec::resize`].
pub(crate) fn resize<T: Clone>(vec: &mut Vec<T>, len: usize, value: T) {
    reserve(vec, len.saturating_sub(vec.len()));
    vec.resize(len, value);
}

/// [`Iterator::collect`], of what knows its length.
pub(crate) fn collect<T>(all: impl ExactSizeIterator<Item = T>) -> Vec<T> {
    let mut vec = Vec::new();
    reserve(&mut vec, all.len());
    vec.extend(all);
    vec
}

/// A copy.
///
/// # Errors
/// Where memory could not be had.
pub(crate) fn copied<T: Copy>(slice: &[T]) -> Result<Vec<T>> {
    caught(|| collect(slice.iter().copied()))
}

/// A place for the result of each span.
///
/// # Errors
/// Where memory could not be had.
pub(crate) fn places<T: Clone>(spans: usize) -> Result<Vec<OnceLock<T>>> {
    caught(|| {
        let mut places = Vec::new();
        resize(&mut places, spans, OnceLock::new());
        places
    })
}

/// Calls `f`.
///
/// # Errors
/// Where memory could not be had.
pub(crate) fn caught<T>(f: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|thrown| match thrown.downcast::<Exhausted>() {
        Ok(exhausted) => Error::Memory(exhausted.0),
        Err(panic) => resume_unwind(panic),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    const MORE_THAN_THERE_IS: usize = isize::MAX as usize / 8;

    /// Asks for memory that nobody uses, which a compiler need not ask for.
    fn asked<T>(f: impl FnOnce() -> Vec<T>) -> Result<usize> {
        caught(|| black_box(f()).len())
    }

    #[test]
    fn what_cannot_be_had_is_an_error() {
        let bytes = MORE_THAN_THERE_IS * 8;
        let refused = |bytes| Err(Error::Memory(bytes));
        assert_eq!(asked(|| zeroed::<f64>(MORE_THAN_THERE_IS)), refused(bytes));
        let resized = || {
            let mut vec = Vec::new();
            resize(&mut vec, MORE_THAN_THERE_IS, 0_u64);
            vec
        };
        assert_eq!(asked(resized), refused(bytes));
        let reserved = || {
            let mut vec = vec![0_u64];
            reserve(&mut vec, usize::MAX);
            vec
        };
        assert_eq!(asked(reserved), refused(usize::MAX));
        let places = black_box(places::<[u64; 4]>(MORE_THAN_THERE_IS));
        assert!(matches!(places, Err(Error::Memory(_))));
        assert_eq!(caught(|| zeroed::<f32>(3)), Ok(vec![0.0; 3]));
    }

    #[test]
    #[should_panic(expected = "not about memory")]
    fn a_panic_stays_one() {
        let _ = caught(|| panic!("not about memory"));
    }
}
