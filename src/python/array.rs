//! NumPy arrays as views: element types, checks, outputs.

#![allow(unsafe_code, reason = "views are made of NumPy's raw pointers here")]

use crate::error::Error;
use crate::float::{Format, Kind};
use crate::memory;
use crate::view::{LARGE, View, ViewMut};
use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods, npyffi};
use pyo3::exceptions::{PyBufferError, PyMemoryError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::borrow::Cow;

/// An array, kept alive, and its element type.
pub(super) struct Array<'py> {
    array: Bound<'py, PyUntypedArray>,
    format: Format,
    /// Whether it was made for this call.
    fresh: bool,
}

/// An attribute of `numpy`, looked up once.
macro_rules! numpy_attribute {
    ($py:expr, $name:literal) => {{
        static CELL: pyo3::sync::PyOnceLock<Py<PyAny>> = pyo3::sync::PyOnceLock::new();
        CELL.get_or_try_init($py, || -> PyResult<Py<PyAny>> {
            let mut at = $py.import("numpy")?.into_any();
            for part in $name.split('.') {
                at = at.getattr(part)?;
            }
            Ok(at.unbind())
        })
        .map(|cell| cell.bind($py).clone())
    }};
}
pub(super) use numpy_attribute;

/// The error of an argument of another type than it must have.
pub(super) fn wrong_type(name: &str, want: &str, given: &Bound<'_, PyAny>) -> PyErr {
    let kind = given.get_type().name().map_or_else(|e| e.to_string(), |n| n.to_string());
    PyTypeError::new_err(format!("{name} must be {want}, got {kind}"))
}

/// Whether the object is an ndarray itself, none of its subclasses.
fn is_plain(object: &Bound<'_, PyAny>) -> bool {
    object.is_exact_instance_of::<PyUntypedArray>()
}

/// Any array-like as an array: itself where it is one.
fn as_array<'py>(name: &str, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    let py = object.py();
    if is_plain(object) {
        return Ok(object.cast::<PyUntypedArray>()?.clone());
    }
    if object.is_instance_of::<PyUntypedArray>()
        && object.is_instance(&numpy_attribute!(py, "ma.MaskedArray")?)?
    {
        return Err(PyTypeError::new_err(format!(
            "{name} must not be a masked array: its mask would be lost; fill it, or use \
             ignore_index"
        )));
    }
    // NumPy's `asarray` knows nothing of DLPack.
    let by_dlpack =
        !object.hasattr(intern!(py, "__array__"))? && object.hasattr(intern!(py, "__dlpack__"))?;
    let convert = if by_dlpack {
        numpy_attribute!(py, "from_dlpack")?
    } else {
        numpy_attribute!(py, "asarray")?
    };
    let array = convert.call1((object,)).map_err(|e| {
        // What is not about the object, such as an interrupt, is not ours to rename.
        let is_about_it = e.is_instance_of::<PyTypeError>(py)
            || e.is_instance_of::<PyValueError>(py)
            || e.is_instance_of::<PyRuntimeError>(py)
            || e.is_instance_of::<PyBufferError>(py);
        if !is_about_it {
            return e;
        }
        let what = format!("{name} must be an array or array-like: {}", e.value(py));
        let error = PyTypeError::new_err(what);
        error.set_cause(py, Some(e));
        error
    })?;
    Ok(array.cast_into::<PyUntypedArray>()?)
}

/// The element type of an array, or its name where it is none of ours.
fn format_of(array: &Bound<'_, PyUntypedArray>) -> Result<Format, String> {
    let dtype = array.dtype();
    let kind = match (dtype.kind(), dtype.itemsize()) {
        (b'f', 4) => Kind::F32,
        (b'f', 8) => Kind::F64,
        (b'f', 2) => Kind::F16,
        (b'i', 1) => Kind::I8,
        (b'i', 2) => Kind::I16,
        (b'i', 4) => Kind::I32,
        (b'i', 8) => Kind::I64,
        (b'u', 1) => Kind::U8,
        (b'u', 2) => Kind::U16,
        (b'u', 4) => Kind::U32,
        (b'u', 8) => Kind::U64,
        // ml_dtypes registers its types with NumPy by name alone.
        (b'V', 2) if dtype.typeobj().name().is_ok_and(|n| n == "bfloat16") => Kind::Bf16,
        _ => return Err(dtype.to_string()),
    };
    let swapped = !matches!(dtype.byteorder(), b'=' | b'|')
        && dtype.byteorder() != if cfg!(target_endian = "little") { b'<' } else { b'>' };
    Ok(Format { kind, swapped })
}

impl<'py> Array<'py> {
    /// An array of floats.
    pub(super) fn floats(name: &str, object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let array = as_array(name, object)?;
        match format_of(&array) {
            Ok(format) if format.kind.is_float() => Ok(Self { array, format, fresh: false }),
            _ => Err(PyTypeError::new_err(format!(
                "{name} must be a floating-point array, got {}",
                array.dtype()
            ))),
        }
    }

    /// An array of class indices, one for each of `rows`, or, where `soft`, of probabilities.
    pub(super) fn target(object: &Bound<'py, PyAny>, rows: &[usize], soft: bool) -> PyResult<Self> {
        let array = as_array("target", object)?;
        match format_of(&array) {
            // An empty list has no type of its own.
            Ok(format)
                if format.kind.is_float()
                    && array.len() == 0
                    && (!soft || array.shape() == rows) =>
            {
                Ok(Self { array, format: Format::native(Kind::I64), fresh: false })
            }
            Ok(format) if soft || !format.kind.is_float() => {
                Ok(Self { array, format, fresh: false })
            }
            _ => Err(PyTypeError::new_err(format!(
                "target must be an array of integers{}, got {}",
                if soft { " (class indices) or of floats (probabilities)" } else { "" },
                array.dtype()
            ))),
        }
    }

    /// An array of real numbers, floats or integers.
    pub(super) fn numbers(name: &str, object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let array = as_array(name, object)?;
        match format_of(&array) {
            Ok(format) => Ok(Self { array, format, fresh: false }),
            Err(dtype) => Err(PyTypeError::new_err(format!(
                "{name} must be an array of real numbers, got {dtype}"
            ))),
        }
    }

    /// An array of booleans, seen as bytes.
    pub(super) fn booleans(name: &str, object: &Bound<'py, PyAny>) -> PyResult<Self> {
        let array = as_array(name, object)?;
        if array.dtype().kind() != b'b' {
            return Err(PyTypeError::new_err(format!(
                "{name} must be an array of booleans, got {}",
                array.dtype()
            )));
        }
        Ok(Self { array, format: Format::native(Kind::U8), fresh: false })
    }

    pub(super) fn shape(&self) -> &[usize] {
        self.array.shape()
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    pub(super) fn into_any(self) -> Bound<'py, PyAny> {
        self.array.into_any()
    }

    pub(super) fn as_any(&self) -> &Bound<'py, PyAny> {
        self.array.as_any()
    }

    fn raw(&self) -> *const npyffi::PyArrayObject {
        self.array.as_array_ptr()
    }

    fn address(&self) -> *mut u8 {
        // SAFETY: the array is alive.
        unsafe { (*self.raw()).fields.data.cast() }
    }

    /// The array as a view. It borrows for as long as the call: callers keep the array beside it.
    pub(super) fn view<'a>(&self) -> PyResult<View<'a>> {
        let reach = self.shape().iter().try_fold(self.format.kind.size(), |n, d| n.checked_mul(*d));
        if reach.is_none_or(|n| n > isize::MAX as usize) {
            return Err(PyValueError::new_err(format!(
                "arrays of shape {:?} are larger than memory can be",
                self.shape()
            )));
        }
        // SAFETY: NumPy vouches for shape and strides; the caller keeps the array alive. That no other
        // thread writes to it during the call is for Python's caller to keep, as with NumPy itself;
        // where one does, results are as undefined as the numbers, but no address is made of what
        // was read: targets are read once, and checked as they are.
        Ok(unsafe {
            View::from_raw(
                self.address(),
                self.format,
                self.shape().to_vec(),
                self.array.strides().to_vec(),
            )
        })
    }

    /// The array as a view to write to; it must have come from [`Self::output_like`] or
    /// [`Self::losses`].
    pub(super) fn view_mut<'a>(&self) -> PyResult<ViewMut<'a>> {
        self.view()?;
        // SAFETY: outputs are fresh, or were checked: writeable, not overlapping themselves, and
        // overlapping no input but one that is the same memory.
        let view = unsafe {
            ViewMut::from_raw(
                self.address(),
                self.format,
                self.shape().to_vec(),
                self.array.strides().to_vec(),
            )
        };
        Ok(view.untouched(self.is_untouched()).fresh(self.fresh))
    }

    /// Whether the system has yet to supply a large array's memory, going by its middle.
    #[cfg(target_os = "linux")]
    fn is_untouched(&self) -> bool {
        let Some((first, last)) = self.extent().filter(|(a, b)| b - a >= LARGE) else {
            return false;
        };
        // SAFETY: asks for a number.
        let Ok(page) = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }) else {
            return false;
        };
        let middle = first.midpoint(last) / page * page;
        let mut resident = 1;
        let start = std::ptr::with_exposed_provenance_mut(middle);
        // SAFETY: the call reads no memory of ours, whatever is there, and writes a byte for one page.
        unsafe { libc::mincore(start, 1, &raw mut resident) == 0 && resident & 1 == 0 }
    }

    /// Nothing tells.
    #[cfg(not(target_os = "linux"))]
    fn is_untouched(&self) -> bool {
        false
    }

    /// A new array of the losses' type, or of `f64` where that is `wide`.
    pub(super) fn losses(&self, shape: &[usize], wide: bool) -> PyResult<Self> {
        let py = self.array.py();
        let kind = if wide || self.format.kind == Kind::F64 { Kind::F64 } else { Kind::F32 };
        let dtype = if kind == Kind::F64 {
            numpy_attribute!(py, "float64")?
        } else {
            numpy_attribute!(py, "float32")?
        };
        let shape = PyTuple::new(py, shape)?;
        // Of what no memory can hold NumPy says that it is no value.
        let array = numpy_attribute!(py, "empty")?.call1((&shape, dtype)).map_err(|e| {
            if e.is_instance_of::<PyValueError>(py) {
                PyMemoryError::new_err(format!("out of memory: losses of shape {shape}"))
            } else {
                e
            }
        })?;
        Ok(Self { array: array.cast_into()?, format: Format::native(kind), fresh: true })
    }

    /// A new array of class indices.
    pub(super) fn indices(py: Python<'py>, shape: &[usize]) -> PyResult<Self> {
        let dtype = numpy_attribute!(py, "int64")?;
        let array = numpy_attribute!(py, "empty")?.call1((PyTuple::new(py, shape)?, dtype))?;
        Ok(Self { array: array.cast_into()?, format: Format::native(Kind::I64), fresh: true })
    }

    /// `given`, checked to take an output of this array's shape and type; a new array without it.
    pub(super) fn output_like(
        &self,
        name: &str,
        given: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        let py = self.array.py();
        let Some(given) = given else {
            let keywords = PyDict::new(py);
            keywords.set_item(intern!(py, "subok"), false)?;
            let array =
                numpy_attribute!(py, "empty_like")?.call((&self.array,), Some(&keywords))?;
            return Ok(Self { array: array.cast_into()?, format: self.format, fresh: true });
        };
        let fits = given.is_instance_of::<PyUntypedArray>();
        if !fits {
            return Err(wrong_type(name, "a NumPy array", given));
        }
        let array = as_array(name, given)?;
        let format = format_of(&array).ok().filter(|f| f.kind == self.format.kind);
        let Some(format) = format else {
            return Err(PyTypeError::new_err(format!(
                "{name} must have the input's type {}, got {}",
                self.array.dtype(),
                array.dtype()
            )));
        };
        if array.shape() != self.shape() {
            return Err(PyValueError::new_err(format!(
                "{name} must have the input's shape {}, got {}",
                show(self.shape()),
                show(array.shape())
            )));
        }
        let out = Self { array, format, fresh: false };
        // SAFETY: the array is alive.
        if unsafe { (*out.raw()).fields.flags } & npyffi::NPY_ARRAY_WRITEABLE == 0 {
            return Err(PyValueError::new_err(format!(
                "{name} must be writeable, got a read-only array"
            )));
        }
        if overlaps_itself(out.shape(), out.array.strides(), out.format.kind.size()) {
            return Err(PyValueError::new_err(format!(
                "{name} must not overlap itself, got shape {} with strides {:?}",
                show(out.shape()),
                out.array.strides()
            )));
        }
        Ok(out)
    }

    /// The first and the last byte, as addresses, of what the array reaches.
    fn extent(&self) -> Option<(usize, usize)> {
        let (mut low, mut high) = (0, 0);
        for (&n, &step) in self.shape().iter().zip(self.array.strides()) {
            let reach = step * (n.checked_sub(1)? as isize);
            if reach < 0 { low += reach } else { high += reach }
        }
        let at = self.address().addr();
        Some((
            at.wrapping_add_signed(low),
            at.wrapping_add_signed(high) + self.format.kind.size() - 1,
        ))
    }

    /// Refuses an output that shares memory with other arrays; where `in_place`, it may be the
    /// first of them, element for element.
    pub(super) fn refuse_overlap(
        &self,
        name: &str,
        others: &[(&str, &Array<'py>)],
        in_place: bool,
    ) -> PyResult<()> {
        let py = self.array.py();
        let Some((low, high)) = self.extent() else { return Ok(()) };
        for (i, (other_name, other)) in others.iter().enumerate() {
            let Some((other_low, other_high)) = other.extent() else { continue };
            if high < other_low || other_high < low {
                continue;
            }
            if i == 0 && in_place && self.view()?.same_memory(&other.view()?) {
                continue;
            }
            let shares = numpy_attribute!(py, "may_share_memory")?.call1((
                &self.array,
                &other.array,
                100_000,
            ))?;
            if shares.extract::<bool>()? {
                let exception = if i == 0 && in_place {
                    format!(" unless it is {other_name} itself")
                } else {
                    String::new()
                };
                return Err(PyValueError::new_err(format!(
                    "{name} must not overlap {other_name}{exception}"
                )));
            }
        }
        Ok(())
    }

    /// The elements in C order.
    pub(super) fn to_vec(&self) -> PyResult<Vec<f64>> {
        Ok(self.view()?.to_vec())
    }
}

/// A shape as Python prints it.
pub(super) fn show(shape: &[usize]) -> Cow<'static, str> {
    crate::view::show_shape(shape).into()
}

/// Whether two indices reach the same byte.
fn overlaps_itself(shape: &[usize], strides: &[isize], size: usize) -> bool {
    let mut axes: Vec<(usize, usize)> = shape
        .iter()
        .zip(strides)
        .filter(|(n, _)| **n != 1)
        .map(|(n, s)| (s.unsigned_abs(), *n))
        .collect();
    if axes.iter().any(|(_, n)| *n == 0) {
        return false;
    }
    axes.sort_unstable();
    let mut reach = size;
    let nested = axes.iter().all(|&(step, n)| {
        let clear = step >= reach;
        reach += step * (n - 1);
        clear
    });
    if nested {
        return false;
    }
    // Strides that interleave: look at every element, where there are not too many.
    let count: usize = axes.iter().map(|(_, n)| n).product();
    if count > 1 << 20 || axes.iter().any(|(step, _)| *step == 0) {
        return true;
    }
    let mut offsets = Vec::new();
    memory::reserve(&mut offsets, count);
    offsets.push(0);
    for (step, n) in axes {
        let so_far = offsets.len();
        for i in 1..n {
            offsets.extend_from_within(..so_far);
            let new = i * so_far;
            offsets[new..].iter_mut().for_each(|at| *at += i * step);
        }
    }
    offsets.sort_unstable();
    offsets.windows(2).any(|pair| pair[1] - pair[0] < size)
}

/// Which axis holds the classes; `None` is torch's: the second, or the only one.
pub(super) fn class_axis(
    name: &str,
    shape: &[usize],
    axis: Option<isize>,
) -> crate::error::Result<usize> {
    let rank = shape.len();
    if rank == 0 {
        return Err(Error::Value(format!("{name} must have at least one axis, got a number")));
    }
    let Some(axis) = axis else { return Ok(usize::from(rank > 1)) };
    let from_start = if axis < 0 { axis + rank as isize } else { axis };
    usize::try_from(from_start).ok().filter(|a| *a < rank).ok_or_else(|| {
        Error::Value(format!(
            "axis must be in [{}, {rank}) for {name} of shape {}, got {axis}",
            -(rank as isize),
            show(shape)
        ))
    })
}
