//! Two-dimensional strided copies between a buffer of any format and a slice of a [`Real`].

use super::super::float::{Format, Kind, Real, Stored};
use half::{bf16, f16};

/// One direction of a copy: how many elements, and how far apart on either side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) len: usize,
    /// In the buffer, in bytes.
    pub(super) far: isize,
    /// In the slice, in elements.
    pub(super) near: usize,
}

/// The axis with the smaller steps in the buffer comes second, as the inner loop.
fn ordered(a: Axis, b: Axis) -> (Axis, Axis) {
    if b.len == 1 || (a.len > 1 && a.far.unsigned_abs() < b.far.unsigned_abs()) {
        (b, a)
    } else {
        (a, b)
    }
}

/// Panics unless a slice of `len` holds what both axes reach.
fn check(len: usize, a: Axis, b: Axis) {
    let last = |axis: Axis| (axis.len - 1).checked_mul(axis.near);
    let reach = || last(a)?.checked_add(last(b)?);
    assert!(a.len == 0 || b.len == 0 || reach().is_some_and(|at| at < len));
}

/// Calls a function generic over [`Stored`] and the byte order for the format at hand.
macro_rules! with_stored {
    ($format:expr, $function:ident($($arg:expr),*)) => {
        match ($format.kind, $format.swapped) {
            (Kind::F16, false) => $function::<f16, _, false>($($arg),*),
            (Kind::F16, true) => $function::<f16, _, true>($($arg),*),
            (Kind::Bf16, false) => $function::<bf16, _, false>($($arg),*),
            (Kind::Bf16, true) => $function::<bf16, _, true>($($arg),*),
            (Kind::F32, false) => $function::<f32, _, false>($($arg),*),
            (Kind::F32, true) => $function::<f32, _, true>($($arg),*),
            (Kind::F64, false) => $function::<f64, _, false>($($arg),*),
            (Kind::F64, true) => $function::<f64, _, true>($($arg),*),
            (Kind::I8, _) => $function::<i8, _, false>($($arg),*),
            (Kind::I16, false) => $function::<i16, _, false>($($arg),*),
            (Kind::I16, true) => $function::<i16, _, true>($($arg),*),
            (Kind::I32, false) => $function::<i32, _, false>($($arg),*),
            (Kind::I32, true) => $function::<i32, _, true>($($arg),*),
            (Kind::I64, false) => $function::<i64, _, false>($($arg),*),
            (Kind::I64, true) => $function::<i64, _, true>($($arg),*),
            (Kind::U8, _) => $function::<u8, _, false>($($arg),*),
            (Kind::U16, false) => $function::<u16, _, false>($($arg),*),
            (Kind::U16, true) => $function::<u16, _, true>($($arg),*),
            (Kind::U32, false) => $function::<u32, _, false>($($arg),*),
            (Kind::U32, true) => $function::<u32, _, true>($($arg),*),
            (Kind::U64, false) => $function::<u64, _, false>($($arg),*),
            (Kind::U64, true) => $function::<u64, _, true>($($arg),*),
        }
    };
}

/// Reads `a` by `b` elements from `src` on into `dst`.
///
/// # Safety
/// Every element that the axes reach from `src` must be readable and of the format.
pub(super) unsafe fn gather<F: Real>(
    format: Format,
    src: *const u8,
    a: Axis,
    b: Axis,
    dst: &mut [F],
) {
    check(dst.len(), a, b);
    let (outer, inner) = ordered(a, b);
    // SAFETY: the slice was checked, the buffer is the caller's promise.
    unsafe { with_stored!(format, gather_as(src, outer, inner, dst)) }
}

unsafe fn gather_as<T: Stored, F: Real, const SWAPPED: bool>(
    src: *const u8,
    outer: Axis,
    inner: Axis,
    dst: &mut [F],
) {
    let packed = inner.near == 1 && inner.far == size_of::<T>() as isize && !SWAPPED;
    for i in 0..outer.len {
        let row = src.wrapping_offset(i as isize * outer.far);
        let dst = &mut dst[i * outer.near..];
        if packed && row.addr().is_multiple_of(align_of::<T>()) {
            // SAFETY: aligned, and `inner.len` elements of it are the caller's promise.
            let row = unsafe { std::slice::from_raw_parts(row.cast::<T>(), inner.len) };
            T::read_slice(row, &mut dst[..inner.len]);
            continue;
        }
        for j in 0..inner.len {
            // SAFETY: within the axes; unaligned reads need no alignment.
            let x =
                unsafe { row.wrapping_offset(j as isize * inner.far).cast::<T>().read_unaligned() };
            let x = if SWAPPED { x.swap_bytes() } else { x };
            // SAFETY: `check` has seen the last index.
            unsafe { *dst.get_unchecked_mut(j * inner.near) = x.to() };
        }
    }
}

/// Writes `a` by `b` elements of `src` to `dst` and on.
///
/// # Safety
/// Every element that the axes reach from `dst` must be writable, by this call alone.
pub(super) unsafe fn scatter<F: Real>(format: Format, dst: *mut u8, a: Axis, b: Axis, src: &[F]) {
    check(src.len(), a, b);
    let (outer, inner) = ordered(a, b);
    // SAFETY: the slice was checked, the buffer is the caller's promise.
    unsafe { with_stored!(format, scatter_as(dst, outer, inner, src)) }
}

unsafe fn scatter_as<T: Stored, F: Real, const SWAPPED: bool>(
    dst: *mut u8,
    outer: Axis,
    inner: Axis,
    src: &[F],
) {
    let packed = inner.near == 1 && inner.far == size_of::<T>() as isize && !SWAPPED;
    for i in 0..outer.len {
        let row = dst.wrapping_offset(i as isize * outer.far);
        let src = &src[i * outer.near..];
        if packed && row.addr().is_multiple_of(align_of::<T>()) {
            // SAFETY: aligned, and `inner.len` elements of it are the caller's promise.
            let row = unsafe { std::slice::from_raw_parts_mut(row.cast::<T>(), inner.len) };
            T::write_slice(&src[..inner.len], row);
            continue;
        }
        for j in 0..inner.len {
            // SAFETY: `check` has seen the last index.
            let x = T::rounded(unsafe { *src.get_unchecked(j * inner.near) });
            let x = if SWAPPED { x.swap_bytes() } else { x };
            // SAFETY: within the axes; unaligned writes need no alignment.
            unsafe {
                row.wrapping_offset(j as isize * inner.far).cast::<T>().write_unaligned(x);
            }
        }
    }
}

/// Reads one integer of any kind, widened.
///
/// # Safety
/// The element must be readable and of the format.
#[inline(always)]
pub(super) unsafe fn read_index(format: Format, src: *const u8) -> i128 {
    macro_rules! read {
        ($type:ty) => {{
            // SAFETY: the caller's promise; unaligned reads need no alignment.
            let x = unsafe { src.cast::<$type>().read_unaligned() };
            i128::from(if format.swapped { x.swap_bytes() } else { x })
        }};
    }
    match format.kind {
        Kind::I8 => read!(i8),
        Kind::I16 => read!(i16),
        Kind::I32 => read!(i32),
        Kind::I64 => read!(i64),
        Kind::U8 => read!(u8),
        Kind::U16 => read!(u16),
        Kind::U32 => read!(u32),
        Kind::U64 => read!(u64),
        kind => unreachable!("{kind:?} holds no integers"),
    }
}

/// Reads `len` integers `step` bytes apart; what `i64` cannot hold becomes its maximum, which is
/// no class.
///
/// # Safety
/// Every element must be readable and of the format.
pub(super) unsafe fn gather_indices(format: Format, src: *const u8, step: isize, dst: &mut [i64]) {
    macro_rules! read {
        ($type:ty) => {
            if step == size_of::<$type>() as isize && !format.swapped {
                // The same loop, with the step known: it becomes a copy.
                read_indices::<$type>(src, size_of::<$type>() as isize, dst, |x| x)
            } else if format.swapped {
                read_indices::<$type>(src, step, dst, <$type>::swap_bytes)
            } else {
                read_indices::<$type>(src, step, dst, |x| x)
            }
        };
    }
    #[inline(always)]
    fn read_indices<T: Copy + TryInto<i64>>(
        src: *const u8,
        step: isize,
        dst: &mut [i64],
        swap: impl Fn(T) -> T,
    ) {
        for (i, dst) in dst.iter_mut().enumerate() {
            let at = src.wrapping_offset(i as isize * step);
            // SAFETY: the caller's promise; unaligned reads need no alignment.
            let x = unsafe { at.cast::<T>().read_unaligned() };
            *dst = swap(x).try_into().unwrap_or(i64::MAX);
        }
    }
    match format.kind {
        Kind::I8 => read!(i8),
        Kind::I16 => read!(i16),
        Kind::I32 => read!(i32),
        Kind::I64 => read!(i64),
        Kind::U8 => read!(u8),
        Kind::U16 => read!(u16),
        Kind::U32 => read!(u32),
        Kind::U64 => read!(u64),
        kind => unreachable!("{kind:?} holds no integers"),
    }
}
