//! Buffers seen as rows of classes.
//!
//! A caller's array has any element type, byte order, alignment and strides. [`Rows`] sees it as
//! rows (every index but the class axis) of classes, and hands out blocks of it as contiguous
//! slices of a [`Real`] type: *lent* where the memory is that already, *staged* through a few KB of
//! scratch where it is not. [`RowsMut`] takes blocks back the same way. Kernels see slices alone,
//! and this file has the only pointer arithmetic.

#![allow(unsafe_code, reason = "the pointer arithmetic of the crate is here")]

mod copy;
mod rows;

pub use rows::{Layout, Lines, LinesMut, Order, Rows, RowsMut, Span, Spans};

use crate::float::{Format, Real};
use crate::memory;
use std::marker::PhantomData;

/// A strided buffer of any element type, borrowed for `'a`.
#[derive(Clone, Debug)]
pub struct View<'a> {
    pub(crate) data: *const u8,
    pub(crate) format: Format,
    pub(crate) shape: Vec<usize>,
    /// In bytes.
    pub(crate) strides: Vec<isize>,
    lifetime: PhantomData<&'a u8>,
}

/// Bytes of an output from which on little of it is still in the caches when it is next read.
pub(crate) const LARGE: usize = 8 << 20;

/// A [`View`] to write to.
#[derive(Debug)]
pub struct ViewMut<'a> {
    view: View<'a>,
    /// See [`Self::untouched`].
    untouched: bool,
    /// See [`Self::fresh`].
    fresh: bool,
    lifetime: PhantomData<&'a mut u8>,
}

// SAFETY: a view is a shared borrow of plain numbers.
unsafe impl Send for View<'_> {}
// SAFETY: as above.
unsafe impl Sync for View<'_> {}

impl<'a> View<'a> {
    /// The view of a slice in C order.
    ///
    /// # Panics
    /// Where the shape does not hold exactly the slice's elements.
    pub fn of<F: Real>(data: &'a [F], shape: &[usize]) -> Self {
        assert_eq!(Some(data.len()), elements(shape), "shape {shape:?}");
        // SAFETY: the slice holds the elements that C-order strides reach.
        unsafe {
            Self::from_raw(
                data.as_ptr().cast(),
                Format::native(F::KIND),
                shape.to_vec(),
                c_strides(shape, size_of::<F>()),
            )
        }
    }

    /// The view of class indices in C order.
    ///
    /// # Panics
    /// Where the shape does not hold exactly the slice's elements.
    pub fn of_indices(data: &'a [i64], shape: &[usize]) -> Self {
        assert_eq!(Some(data.len()), elements(shape), "shape {shape:?}");
        // SAFETY: the slice holds the elements that C-order strides reach.
        unsafe {
            Self::from_raw(
                data.as_ptr().cast(),
                Format::native(crate::float::Kind::I64),
                shape.to_vec(),
                c_strides(shape, 8),
            )
        }
    }

    /// The view of memory that something else keeps.
    ///
    /// # Safety
    /// For `'a`, every element that shape and strides (in bytes) reach from `data` must be
    /// readable memory, which nothing writes to but a [`ViewMut`] of the same elements at the same
    /// places. Alignment is not needed.
    pub unsafe fn from_raw(
        data: *const u8,
        format: Format,
        shape: Vec<usize>,
        strides: Vec<isize>,
    ) -> Self {
        assert_eq!(shape.len(), strides.len());
        Self { data, format, shape, strides, lifetime: PhantomData }
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its element type and byte order.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Elements in it.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the other view has the same elements at the same places.
    pub fn same_memory(&self, other: &View<'_>) -> bool {
        let steps = |v: &View<'_>| -> Vec<(usize, isize)> {
            let pairs = v.shape.iter().copied().zip(v.strides.iter().copied());
            pairs.filter(|(n, _)| *n != 1).collect()
        };
        self.data == other.data && self.format == other.format && steps(self) == steps(other)
    }

    /// The view repeated along axes that it lacks or has once, to `shape`; `None` where that does
    /// not fit.
    pub fn broadcast(&self, shape: &[usize]) -> Option<Self> {
        let missing = shape.len().checked_sub(self.shape.len())?;
        let mut strides = vec![0; shape.len()];
        for (a, (&n, &stride)) in self.shape.iter().zip(&self.strides).enumerate() {
            match shape[missing + a] {
                m if m == n => strides[missing + a] = stride,
                _ if n == 1 => {}
                _ => return None,
            }
        }
        Some(Self { shape: shape.to_vec(), strides, ..self.clone() })
    }

    /// The view repeated `n` times along a new axis.
    ///
    /// # Panics
    /// Where there is no place for the axis.
    #[must_use]
    pub fn with_axis(&self, axis: usize, n: usize) -> Self {
        let mut repeated = self.clone();
        repeated.shape.insert(axis, n);
        repeated.strides.insert(axis, 0);
        repeated
    }

    /// All elements in C order, as `F`.
    pub fn to_vec<F: Real>(&self) -> Vec<F> {
        let rows = Rows::new(self.clone(), None, &Order::c(self.shape.len()));
        let mut all = memory::zeroed(self.len());
        rows.stage_column(0..self.len(), &mut all);
        all
    }
}

impl<'a> ViewMut<'a> {
    /// The view of a slice in C order, to write to.
    ///
    /// # Panics
    /// Where the shape does not hold exactly the slice's elements.
    pub fn of<F: Real>(data: &'a mut [F], shape: &[usize]) -> Self {
        assert_eq!(Some(data.len()), elements(shape), "shape {shape:?}");
        // SAFETY: the slice, borrowed alone, holds the elements that C-order strides reach.
        unsafe {
            Self::from_raw(
                data.as_mut_ptr().cast(),
                Format::native(F::KIND),
                shape.to_vec(),
                c_strides(shape, size_of::<F>()),
            )
        }
    }

    /// The view of memory that something else keeps.
    ///
    /// # Safety
    /// For `'a`, every element that shape and strides reach from `data` must be memory that is
    /// written through this view alone, and no two indices may reach the same byte. Where another
    /// [`View`] covers the memory, it must be the same elements at the same places.
    pub unsafe fn from_raw(
        data: *mut u8,
        format: Format,
        shape: Vec<usize>,
        strides: Vec<isize>,
    ) -> Self {
        // SAFETY: passed on.
        let view = unsafe { View::from_raw(data, format, shape, strides) };
        Self { view, untouched: false, fresh: false, lifetime: PhantomData }
    }

    /// The same, of memory that the system has yet to supply, or not: such memory is in the caches when
    /// it is first written, so that there is nothing to gain from writing past them.
    pub fn untouched(mut self, untouched: bool) -> Self {
        self.untouched = untouched;
        self
    }

    /// The same, of memory that nobody has seen, or not: such memory may be written to by a call that is
    /// then refused.
    pub fn fresh(mut self, fresh: bool) -> Self {
        self.fresh = fresh;
        self
    }

    /// Whether nobody has seen the memory.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// What it would be to read.
    pub fn as_view(&self) -> &View<'_> {
        &self.view
    }
}

/// How many elements a shape has, if so many can be.
fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d))
}

/// The strides in bytes of an array in C order.
pub fn c_strides(shape: &[usize], size: usize) -> Vec<isize> {
    let mut strides = vec![0; shape.len()];
    let mut step = size;
    for (stride, &n) in strides.iter_mut().zip(shape).rev() {
        *stride = step as isize;
        step *= n.max(1);
    }
    strides
}

/// Text for a shape, as NumPy prints it.
pub(crate) fn show_shape(shape: &[usize]) -> String {
    match shape {
        [n] => format!("({n},)"),
        _ => format!("({})", shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    }
}
