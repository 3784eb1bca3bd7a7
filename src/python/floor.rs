//! What memory itself allows on this machine, for benchmarks to measure against.

use super::array::Array;
use super::call::{detached, guarded};
use crate::rows::floor;
use pyo3::prelude::*;

/// Reads a contiguous float32 array once with all threads; returns its largest value, or 0 where that is less.
#[pyfunction]
pub(super) fn _read_floor(py: Python<'_>, array: &Bound<'_, PyAny>) -> PyResult<f32> {
    guarded(|| {
        let array = Array::floats("array", array)?;
        let view = array.view()?;
        detached(py, |interrupted| floor::read(&view, interrupted))
    })
}

/// Reads a contiguous float32 array and streams it into another with all threads.
#[pyfunction]
pub(super) fn _copy_floor<'py>(
    py: Python<'py>,
    source: &Bound<'py, PyAny>,
    destination: &Bound<'py, PyAny>,
) -> PyResult<()> {
    guarded(|| {
        let source = Array::floats("source", source)?;
        let destination = source.output_like("destination", Some(destination))?;
        destination.refuse_overlap("destination", &[("source", &source)], false)?;
        let (from, to) = (source.view()?, destination.view_mut()?);
        detached(py, |interrupted| floor::copy(&from, to, interrupted))
    })
}
