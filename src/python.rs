//! The extension module `crossent._core`: the only code, with what is under it, that knows Python.
//!
//! Each function checks its arguments, sees arrays as views ([`array`]), releases the interpreter
//! and calls a loss. Documentation for users is in `python/crossent/functional.py`.

mod array;
mod call;
#[cfg(feature = "fault")]
mod fault;
mod floor;

use crate::error::Error;
use crate::losses as compute;
use crate::reduce::Reduction;
use crate::view::{View, ViewMut};
use crate::warp::Warp;
use crate::{pool, simd};
use array::{Array, class_axis};
use call::{
    Derivatives, ElementCall, LossCall, Tokenwise, WarpCall, alpha_of, axis_of, base_of, detached,
    gamma_of, guarded, ignore_index_of, integer, keepdims_of, label_smoothing_of, log_target_of,
    reduction_of, return_grad_of, return_hess_of, scalar, some_axis_of, tokens, warp_of,
    weighing_of, z_loss_of,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;

#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the signature is torch's and ours")]
fn cross_entropy<'py>(
    input: &Bound<'py, PyAny>,
    target: &Bound<'py, PyAny>,
    weight: Option<&Bound<'py, PyAny>>,
    #[pyo3(from_py_with = ignore_index_of)] ignore_index: i64,
    #[pyo3(from_py_with = reduction_of)] reduction: PyBackedStr,
    weighing: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = label_smoothing_of)] label_smoothing: f64,
    warp: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = z_loss_of)] z_loss: f64,
    #[pyo3(from_py_with = some_axis_of)] axis: Option<isize>,
    #[pyo3(from_py_with = return_grad_of)] return_grad: bool,
    grad_output: Option<&Bound<'py, PyAny>>,
    grad_out: Option<&Bound<'py, PyAny>>,
    #[pyo3(from_py_with = return_hess_of)] return_hess: bool,
    hess_out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let call = LossCall::new(
            input,
            target,
            weight,
            ignore_index,
            (&reduction, weighing_of(weighing)?),
            axis,
            true,
        )?;
        let derivatives =
            Derivatives::new(return_grad, grad_output, grad_out).with_hess(return_hess, hess_out);
        let warp = warp_of(warp)?;
        let options =
            compute::cross_entropy::Options { label_smoothing, z_loss, warp: warp.view()? };
        call.run(&derivatives, Some(&warp), |inputs, outputs, interrupted| {
            compute::cross_entropy::cross_entropy(inputs, &options, outputs, interrupted)
        })
    })
}

#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the signature is torch's and ours")]
fn nll_loss<'py>(
    input: &Bound<'py, PyAny>,
    target: &Bound<'py, PyAny>,
    weight: Option<&Bound<'py, PyAny>>,
    #[pyo3(from_py_with = ignore_index_of)] ignore_index: i64,
    #[pyo3(from_py_with = reduction_of)] reduction: PyBackedStr,
    weighing: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = some_axis_of)] axis: Option<isize>,
    #[pyo3(from_py_with = return_grad_of)] return_grad: bool,
    grad_output: Option<&Bound<'py, PyAny>>,
    grad_out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let call = LossCall::new(
            input,
            target,
            weight,
            ignore_index,
            (&reduction, weighing_of(weighing)?),
            axis,
            false,
        )?;
        let derivatives = Derivatives::new(return_grad, grad_output, grad_out);
        call.run(&derivatives, None, compute::nll_loss::nll_loss)
    })
}

#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the signature is torch's and ours")]
fn binary_cross_entropy<'py>(
    input: &Bound<'py, PyAny>,
    target: &Bound<'py, PyAny>,
    weight: Option<&Bound<'py, PyAny>>,
    #[pyo3(from_py_with = reduction_of)] reduction: PyBackedStr,
    weighing: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = return_grad_of)] return_grad: bool,
    grad_output: Option<&Bound<'py, PyAny>>,
    grad_out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let call = ElementCall::new(
            ("input", input),
            ("target", target),
            [weight, None],
            (&reduction, weighing_of(weighing)?),
        )?;
        let derivatives = Derivatives::new(return_grad, grad_output, grad_out);
        call.run(&derivatives, None, compute::binary_cross_entropy::binary_cross_entropy)
    })
}

#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the signature is torch's and ours")]
fn binary_cross_entropy_with_logits<'py>(
    input: &Bound<'py, PyAny>,
    target: &Bound<'py, PyAny>,
    weight: Option<&Bound<'py, PyAny>>,
    #[pyo3(from_py_with = reduction_of)] reduction: PyBackedStr,
    weighing: &Bound<'py, PyAny>,
    pos_weight: Option<&Bound<'py, PyAny>>,
    #[pyo3(from_py_with = return_grad_of)] return_grad: bool,
    grad_output: Option<&Bound<'py, PyAny>>,
    grad_out: Option<&Bound<'py, PyAny>>,
    #[pyo3(from_py_with = return_hess_of)] return_hess: bool,
    hess_out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let call = ElementCall::new(
            ("input", input),
            ("target", target),
            [weight, pos_weight],
            (&reduction, weighing_of(weighing)?),
        )?;
        let derivatives =
            Derivatives::new(return_grad, grad_output, grad_out).with_hess(return_hess, hess_out);
        call.run(
            &derivatives,
            None,
            compute::binary_cross_entropy_with_logits::binary_cross_entropy_with_logits,
        )
    })
}

#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the signature is torch's and ours")]
fn multilabel_soft_margin_loss<'py>(
    input: &Bound<'py, PyAny>,
    target: &Bound<'py, PyAny>,
    weight: Option<&Bound<'py, PyAny>>,
    #[pyo3(from_py_with = reduction_of)] reduction: PyBackedStr,
    weighing: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = return_grad_of)] return_grad: bool,
    grad_output: Option<&Bound<'py, PyAny>>,
    grad_out: Option<&Bound<'py, PyAny>>,
    #[pyo3(from_py_with = return_hess_of)] return_hess: bool,
    hess_out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let call = ElementCall::new(
            ("input", input),
            ("target", target),
            [weight, None],
            (&reduction, weighing_of(weighing)?),
        )?
        .by_rows(-1, true)?;
        let derivatives =
            Derivatives::new(return_grad, grad_output, grad_out).with_hess(return_hess, hess_out);
        call.run(
            &derivatives,
            None,
            compute::multilabel_soft_margin_loss::multilabel_soft_margin_loss,
        )
    })
}

#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the signature is torch's and ours")]
fn soft_margin_loss<'py>(
    input: &Bound<'py, PyAny>,
    target: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = reduction_of)] reduction: PyBackedStr,
    weighing: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = return_grad_of)] return_grad: bool,
    grad_output: Option<&Bound<'py, PyAny>>,
    grad_out: Option<&Bound<'py, PyAny>>,
    #[pyo3(from_py_with = return_hess_of)] return_hess: bool,
    hess_out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let call = ElementCall::new(
            ("input", input),
            ("target", target),
            [None, None],
            (&reduction, weighing_of(weighing)?),
        )?;
        let derivatives =
            Derivatives::new(return_grad, grad_output, grad_out).with_hess(return_hess, hess_out);
        call.run(&derivatives, None, compute::soft_margin_loss::soft_margin_loss)
    })
}

#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the signature is torchvision's and ours")]
fn sigmoid_focal_loss<'py>(
    inputs: &Bound<'py, PyAny>,
    targets: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = alpha_of)] alpha: f64,
    #[pyo3(from_py_with = gamma_of)] gamma: f64,
    #[pyo3(from_py_with = reduction_of)] reduction: PyBackedStr,
    weighing: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = return_grad_of)] return_grad: bool,
    grad_output: Option<&Bound<'py, PyAny>>,
    grad_out: Option<&Bound<'py, PyAny>>,
    #[pyo3(from_py_with = return_hess_of)] return_hess: bool,
    hess_out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let call = ElementCall::new(
            ("inputs", inputs),
            ("targets", targets),
            [None, None],
            (&reduction, weighing_of(weighing)?),
        )?;
        let derivatives =
            Derivatives::new(return_grad, grad_output, grad_out).with_hess(return_hess, hess_out);
        let options = compute::sigmoid_focal_loss::Options { alpha, gamma };
        call.run(&derivatives, None, |inputs, outputs, interrupted| {
            compute::sigmoid_focal_loss::sigmoid_focal_loss(inputs, options, outputs, interrupted)
        })
    })
}

#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the signature is torch's and ours")]
fn kl_div<'py>(
    input: &Bound<'py, PyAny>,
    target: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = reduction_of)] reduction: PyBackedStr,
    weighing: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = log_target_of)] log_target: bool,
    #[pyo3(from_py_with = base_of)] base: Option<f64>,
    #[pyo3(from_py_with = return_grad_of)] return_grad: bool,
    grad_output: Option<&Bound<'py, PyAny>>,
    grad_out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let by_batch = &*reduction == "batchmean";
        if !by_batch && Reduction::parse(&reduction).is_err() {
            return Err(PyValueError::new_err(format!(
                "reduction must be 'none', 'mean', 'batchmean' or 'sum', got {:?}",
                &*reduction
            )));
        }
        let weighing = weighing_of(weighing)?;
        weighing.check(&reduction)?;
        let reduction = if by_batch { "mean" } else { &reduction };
        let call = ElementCall::new(
            ("input", input),
            ("target", target),
            [None, None],
            (reduction, weighing),
        )?;
        let call = if by_batch { call.by_batch()? } else { call };
        let derivatives = Derivatives::new(return_grad, grad_output, grad_out);
        call.run(&derivatives, None, |inputs, outputs, interrupted| {
            compute::kl_div::kl_div(inputs, log_target, base, outputs, interrupted)
        })
    })
}

type Information = fn(
    &compute::Elements<'_>,
    Option<f64>,
    compute::Outputs<'_>,
    &dyn Fn() -> bool,
) -> Result<f64, Error>;

/// What is measured in units of information.
fn information<'py>(
    call: &ElementCall<'py>,
    derivatives: &Derivatives<'py>,
    base: Option<f64>,
    of: Information,
) -> PyResult<Bound<'py, PyAny>> {
    call.run(derivatives, None, |inputs, outputs, interrupted| {
        of(inputs, base, outputs, interrupted)
    })
}

#[pyfunction]
fn entropy<'py>(
    p: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = axis_of)] axis: isize,
    #[pyo3(from_py_with = base_of)] base: Option<f64>,
    #[pyo3(from_py_with = return_grad_of)] return_grad: bool,
    grad_output: Option<&Bound<'py, PyAny>>,
    grad_out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let call = ElementCall::of("p", p)?.by_rows(axis, false)?;
        let derivatives = Derivatives::new(return_grad, grad_output, grad_out);
        information(&call, &derivatives, base, compute::entropy::entropy)
    })
}

#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the signature is ours")]
fn entropy_with_logits<'py>(
    logits: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = axis_of)] axis: isize,
    #[pyo3(from_py_with = base_of)] base: Option<f64>,
    warp: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = return_grad_of)] return_grad: bool,
    grad_output: Option<&Bound<'py, PyAny>>,
    grad_out: Option<&Bound<'py, PyAny>>,
    #[pyo3(from_py_with = return_hess_of)] return_hess: bool,
    hess_out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let call = ElementCall::of("logits", logits)?.by_rows(axis, false)?;
        let derivatives =
            Derivatives::new(return_grad, grad_output, grad_out).with_hess(return_hess, hess_out);
        let of = compute::entropy_with_logits::entropy_with_logits;
        information_of_logits(&call, &derivatives, base, warp, of)
    })
}

#[pyfunction]
fn binary_entropy<'py>(
    p: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = base_of)] base: Option<f64>,
    #[pyo3(from_py_with = return_grad_of)] return_grad: bool,
    grad_output: Option<&Bound<'py, PyAny>>,
    grad_out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let call = ElementCall::of("p", p)?;
        let derivatives = Derivatives::new(return_grad, grad_output, grad_out);
        information(&call, &derivatives, base, compute::binary_entropy::binary_entropy)
    })
}

#[pyfunction]
fn kl_divergence<'py>(
    p: &Bound<'py, PyAny>,
    q: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = axis_of)] axis: isize,
    #[pyo3(from_py_with = base_of)] base: Option<f64>,
    return_grad: &Bound<'py, PyAny>,
    grad_output: Option<&Bound<'py, PyAny>>,
    grad_out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let call = ElementCall::of_two(("p", p), ("q", q), axis)?;
        let derivatives = Derivatives::of_two(return_grad, grad_output, grad_out)?;
        information(&call, &derivatives, base, compute::kl_divergence::kl_divergence)
    })
}

#[pyfunction]
fn js_divergence<'py>(
    p: &Bound<'py, PyAny>,
    q: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = axis_of)] axis: isize,
    #[pyo3(from_py_with = base_of)] base: Option<f64>,
    return_grad: &Bound<'py, PyAny>,
    grad_output: Option<&Bound<'py, PyAny>>,
    grad_out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let call = ElementCall::of_two(("p", p), ("q", q), axis)?;
        let derivatives = Derivatives::of_two(return_grad, grad_output, grad_out)?;
        information(&call, &derivatives, base, compute::js_divergence::js_divergence)
    })
}

type OfLogits = fn(
    &compute::Elements<'_>,
    Option<f64>,
    &Warp<'_>,
    compute::Outputs<'_>,
    &dyn Fn() -> bool,
) -> Result<f64, Error>;

/// What is measured of logits.
fn information_of_logits<'py>(
    call: &ElementCall<'py>,
    derivatives: &Derivatives<'py>,
    base: Option<f64>,
    warp: &Bound<'py, PyAny>,
    of: OfLogits,
) -> PyResult<Bound<'py, PyAny>> {
    let warp = warp_of(warp)?;
    let view = warp.view()?;
    call.run(derivatives, Some(&warp), |inputs, outputs, interrupted| {
        of(inputs, base, &view, outputs, interrupted)
    })
}

#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the signature is ours")]
fn kl_divergence_with_logits<'py>(
    p_logits: &Bound<'py, PyAny>,
    q_logits: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = axis_of)] axis: isize,
    #[pyo3(from_py_with = base_of)] base: Option<f64>,
    warp: &Bound<'py, PyAny>,
    return_grad: &Bound<'py, PyAny>,
    grad_output: Option<&Bound<'py, PyAny>>,
    grad_out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let call = ElementCall::of_two(("p_logits", p_logits), ("q_logits", q_logits), axis)?;
        let derivatives = Derivatives::of_two(return_grad, grad_output, grad_out)?;
        let of = compute::kl_divergence_with_logits::kl_divergence_with_logits;
        information_of_logits(&call, &derivatives, base, warp, of)
    })
}

#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the signature is ours")]
fn js_divergence_with_logits<'py>(
    p_logits: &Bound<'py, PyAny>,
    q_logits: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = axis_of)] axis: isize,
    #[pyo3(from_py_with = base_of)] base: Option<f64>,
    warp: &Bound<'py, PyAny>,
    return_grad: &Bound<'py, PyAny>,
    grad_output: Option<&Bound<'py, PyAny>>,
    grad_out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let call = ElementCall::of_two(("p_logits", p_logits), ("q_logits", q_logits), axis)?;
        let derivatives = Derivatives::of_two(return_grad, grad_output, grad_out)?;
        let of = compute::js_divergence_with_logits::js_divergence_with_logits;
        information_of_logits(&call, &derivatives, base, warp, of)
    })
}

#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "the signature is ours")]
fn token_log_prob<'py>(
    input: &Bound<'py, PyAny>,
    target: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = some_axis_of)] axis: Option<isize>,
    warp: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = return_grad_of)] return_grad: bool,
    grad_output: Option<&Bound<'py, PyAny>>,
    grad_out: Option<&Bound<'py, PyAny>>,
    wide: bool,
    with_top: bool,
) -> PyResult<Tokenwise<'py>> {
    guarded(|| {
        let gradient = (return_grad, grad_output, grad_out);
        tokens(input, target, axis, &warp_of(warp)?, gradient, (wide, with_top))
    })
}

/// A map of each element, into `out` where it is given.
fn mapped<'py>(
    py: Python<'py>,
    input: &Bound<'py, PyAny>,
    warp: Option<&WarpCall<'py>>,
    out: Option<&Bound<'py, PyAny>>,
    map: impl FnOnce(View<'_>, ViewMut<'_>, &dyn Fn() -> bool) -> Result<(), Error> + Send,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let input = Array::floats("input", input)?;
        let given = out;
        let out = input.output_like("out", given)?;
        let mut fixed = vec![("input", &input)];
        fixed.extend(warp.into_iter().flat_map(WarpCall::arrays));
        out.refuse_overlap("out", &fixed, true)?;
        let (view, to) = (input.view()?, out.view_mut()?);
        detached(py, |interrupted| map(view, to, interrupted))?;
        Ok(given.cloned().unwrap_or_else(|| out.into_any()))
    })
}

#[pyfunction]
fn sigmoid<'py>(
    py: Python<'py>,
    input: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    mapped(py, input, None, out, compute::sigmoid::sigmoid)
}

#[pyfunction]
fn logsigmoid<'py>(
    py: Python<'py>,
    input: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    mapped(py, input, None, out, compute::sigmoid::logsigmoid)
}

/// Softmax or its logarithm, by `log`.
fn normalised<'py>(
    py: Python<'py>,
    input: &Bound<'py, PyAny>,
    axis: isize,
    warp: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
    log: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let warp = warp_of(warp)?;
    let view = warp.view()?;
    mapped(py, input, Some(&warp), out, |input, out, interrupted| {
        let axis = class_axis("input", input.shape(), Some(axis))?;
        if log {
            compute::softmax::log_softmax(input, axis, &view, out, interrupted)
        } else {
            compute::softmax::softmax(input, axis, &view, out, interrupted)
        }
    })
}

#[pyfunction]
fn softmax<'py>(
    py: Python<'py>,
    input: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = axis_of)] axis: isize,
    warp: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    normalised(py, input, axis, warp, out, false)
}

#[pyfunction]
fn log_softmax<'py>(
    py: Python<'py>,
    input: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = axis_of)] axis: isize,
    warp: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    normalised(py, input, axis, warp, out, true)
}

#[pyfunction]
fn logsumexp<'py>(
    py: Python<'py>,
    input: &Bound<'py, PyAny>,
    #[pyo3(from_py_with = axis_of)] axis: isize,
    #[pyo3(from_py_with = keepdims_of)] keepdims: bool,
    warp: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(|| {
        let input = Array::floats("input", input)?;
        let axis = class_axis("input", input.shape(), Some(axis))?;
        let mut shape = input.shape().to_vec();
        shape.remove(axis);
        let out = input.losses(&shape, false)?;
        let warp = warp_of(warp)?;
        let (view, warp, to) = (input.view()?, warp.view()?, out.view_mut()?);
        detached(py, |interrupted| {
            compute::softmax::logsumexp(view, axis, &warp, to, interrupted)
        })?;
        if keepdims {
            shape.insert(axis, 1);
            return out.into_any().call_method1("reshape", (shape,));
        }
        if shape.is_empty() { scalar(&out) } else { Ok(out.into_any()) }
    })
}

/// The losses: pairs of the names of a function and of its class.
#[pyfunction]
fn losses() -> Vec<(&'static str, Option<&'static str>)> {
    compute::TABLE.iter().map(|entry| (entry.function, entry.class)).collect()
}

/// Set how many threads a call may use, the calling one included.
///
/// Results are the same bit for bit at any number. Small inputs stay on the calling thread.
///
/// Arguments:
///     n: At least 1. Before it is set, CROSSENT_NUM_THREADS in the environment says it.
///
/// Errors:
///     ValueError: `n` is below 1.
///
/// Example:
///     >>> import crossent
///     >>> before = crossent.get_num_threads()
///     >>> crossent.set_num_threads(1)
///     >>> crossent.get_num_threads()
///     1
///     >>> crossent.set_num_threads(before)
#[pyfunction]
fn set_num_threads(n: &Bound<'_, PyAny>) -> PyResult<()> {
    let n: i64 = integer("n", n)?;
    match usize::try_from(n) {
        Ok(n @ 1..=pool::MOST_THREADS) => pool::set_num_threads(n),
        _ => {
            let most = pool::MOST_THREADS;
            return Err(PyValueError::new_err(format!("n must be in [1, {most}], got {n}")));
        }
    }
    Ok(())
}

/// How many threads a call may use, the calling one included.
///
/// What `set_num_threads` said, else the environment variable CROSSENT_NUM_THREADS, else what the
/// machine, the affinity mask and the container's quota allow.
///
/// Example:
///     >>> import crossent
///     >>> crossent.get_num_threads() >= 1
///     True
#[pyfunction]
fn get_num_threads() -> usize {
    pool::num_threads()
}

/// The instruction set that kernels use: 'avx512', 'avx2' or 'baseline'.
///
/// It is the machine's best, unless the environment variable CROSSENT_SIMD names a lower one.
///
/// Example:
///     >>> import crossent
///     >>> crossent.simd_level() in ("avx512", "avx2", "baseline")
///     True
#[pyfunction]
fn simd_level() -> &'static str {
    simd::level().name()
}

#[pymodule(gil_used = false)]
#[pyo3(name = "_core")]
fn core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // A level that does not exist is said at import, not in the midst of a call.
    if let Ok(name) = std::env::var("CROSSENT_SIMD")
        && simd::Level::at_most(&name).is_none()
    {
        return Err(PyValueError::new_err(format!(
            "CROSSENT_SIMD must be 'avx512', 'avx2' or 'baseline', got {name:?}"
        )));
    }
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    for function in [
        wrap_pyfunction!(cross_entropy, module)?,
        wrap_pyfunction!(nll_loss, module)?,
        wrap_pyfunction!(binary_cross_entropy, module)?,
        wrap_pyfunction!(binary_cross_entropy_with_logits, module)?,
        wrap_pyfunction!(multilabel_soft_margin_loss, module)?,
        wrap_pyfunction!(soft_margin_loss, module)?,
        wrap_pyfunction!(sigmoid_focal_loss, module)?,
        wrap_pyfunction!(kl_div, module)?,
        wrap_pyfunction!(entropy, module)?,
        wrap_pyfunction!(entropy_with_logits, module)?,
        wrap_pyfunction!(binary_entropy, module)?,
        wrap_pyfunction!(kl_divergence, module)?,
        wrap_pyfunction!(js_divergence, module)?,
        wrap_pyfunction!(kl_divergence_with_logits, module)?,
        wrap_pyfunction!(js_divergence_with_logits, module)?,
        wrap_pyfunction!(token_log_prob, module)?,
        wrap_pyfunction!(sigmoid, module)?,
        wrap_pyfunction!(logsigmoid, module)?,
        wrap_pyfunction!(softmax, module)?,
        wrap_pyfunction!(log_softmax, module)?,
        wrap_pyfunction!(logsumexp, module)?,
        wrap_pyfunction!(losses, module)?,
        wrap_pyfunction!(set_num_threads, module)?,
        wrap_pyfunction!(get_num_threads, module)?,
        wrap_pyfunction!(simd_level, module)?,
        wrap_pyfunction!(floor::_read_floor, module)?,
        wrap_pyfunction!(floor::_copy_floor, module)?,
    ] {
        module.add_function(function)?;
    }
    #[cfg(feature = "fault")]
    module.add_function(wrap_pyfunction!(fault::_panic, module)?)?;
    Ok(())
}
