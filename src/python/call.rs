//! One call of a loss: from Python's arguments to a detached kernel, and back.

use super::array::{Array, class_axis, numpy_attribute, wrong_type};
use crate::error::{Error, Result};
use crate::float::Kind;
use crate::losses::token_log_prob::{Answers, Gradient, Tokens, token_log_prob};
use crate::losses::{Elements, Inputs, Outputs};
use crate::memory;
use crate::reduce::{Reduce, Reduction};
use crate::warp::Warp;
use pyo3::exceptions::{
    PyIndexError, PyKeyboardInterrupt, PyMemoryError, PyOverflowError, PyRuntimeError, PyTypeError,
    PyValueError,
};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyTuple;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Value(_) => PyValueError::new_err(message),
            Error::Type(_) => PyTypeError::new_err(message),
            Error::Index(_) => PyIndexError::new_err(message),
            Error::Memory(_) => PyMemoryError::new_err(message),
            Error::Interrupted => PyKeyboardInterrupt::new_err(()),
        }
    }
}

/// Runs a function; a panic becomes a RuntimeError, which servers survive, and memory that cannot be
/// had a MemoryError.
pub(super) fn guarded<T>(f: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(|| memory::caught(f)?)).unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(PyRuntimeError::new_err(format!(
            "crossent failed inside ({what}); please report this with the call that did it"
        )))
    })
}

/// Runs a computation without the interpreter; it may ask whether a signal wants it to stop.
pub(super) fn detached<T: Send>(
    py: Python<'_>,
    f: impl FnOnce(&dyn Fn() -> bool) -> Result<T> + Send,
) -> PyResult<T> {
    let raised: Mutex<Option<PyErr>> = Mutex::new(None);
    let result = py.detach(|| {
        f(&|| match Python::attach(|py| py.check_signals()) {
            Ok(()) => false,
            Err(error) => {
                *raised.lock().expect("one thread asks") = Some(error);
                true
            }
        })
    });
    match raised.into_inner().expect("one thread asks") {
        Some(error) => Err(error),
        None => Ok(result?),
    }
}

/// A number of an array's type.
fn number<'py>(py: Python<'py>, kind: Kind, value: f64) -> PyResult<Bound<'py, PyAny>> {
    if kind == Kind::F64 {
        numpy_attribute!(py, "float64")?.call1((value,))
    } else {
        // Rounded here: NumPy would warn of an overflow, or raise, with the outputs written.
        numpy_attribute!(py, "float32")?.call1((value as f32,))
    }
}

/// The only element of an array, as a NumPy scalar.
pub(super) fn scalar<'py>(array: &Array<'py>) -> PyResult<Bound<'py, PyAny>> {
    number(array.as_any().py(), array.format().kind, array.to_vec()?[0])
}

/// The arguments about derivatives.
#[derive(Default)]
pub(super) struct Derivatives<'py> {
    return_grad: bool,
    grad_output: Option<Bound<'py, PyAny>>,
    grad_out: Option<Bound<'py, PyAny>>,
    return_hess: bool,
    hess_out: Option<Bound<'py, PyAny>>,
    /// Of a divergence, whether its second argument's gradient is wanted, too, and where.
    return_both: bool,
    second_out: Option<Bound<'py, PyAny>>,
}

impl<'py> Derivatives<'py> {
    /// Of a function with a gradient.
    pub(super) fn new(
        return_grad: bool,
        grad_output: Option<&Bound<'py, PyAny>>,
        grad_out: Option<&Bound<'py, PyAny>>,
    ) -> Self {
        let (grad_output, grad_out) = (grad_output.cloned(), grad_out.cloned());
        Self { return_grad, grad_output, grad_out, ..Self::default() }
    }

    /// Of one with the Hessian's diagonal besides.
    pub(super) fn with_hess(self, return_hess: bool, hess_out: Option<&Bound<'py, PyAny>>) -> Self {
        Self { return_hess, hess_out: hess_out.cloned(), ..self }
    }

    /// Of a function of two distributions: `return_grad` may be `'both'`, and `grad_out` is then a
    /// pair.
    pub(super) fn of_two(
        return_grad: &Bound<'py, PyAny>,
        grad_output: Option<&Bound<'py, PyAny>>,
        grad_out: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        if let Ok(return_grad) = return_grad.extract() {
            return Ok(Self::new(return_grad, grad_output, grad_out));
        }
        if !return_grad.extract::<String>().is_ok_and(|name| name == "both") {
            return Err(PyValueError::new_err(format!(
                "return_grad must be True, False or 'both', got {}",
                return_grad.repr()?
            )));
        }
        let both = Self { return_both: true, ..Self::new(true, grad_output, None) };
        let Some(given) = grad_out else { return Ok(both) };
        let Ok((first, second)) = given.extract() else {
            let want = "a pair of arrays where return_grad is 'both'";
            return Err(wrong_type("grad_out", want, given));
        };
        Ok(Self { grad_out: Some(first), second_out: Some(second), ..both })
    }

    fn upstream(&self) -> PyResult<Option<Array<'py>>> {
        self.grad_output.as_ref().map(|g| Array::numbers("grad_output", g)).transpose()
    }
}

/// An integer that fits; the error names the argument.
pub(super) fn integer<'py, T>(name: &str, given: &Bound<'py, PyAny>) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    given.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(given.py()) {
            PyValueError::new_err(format!("{name} must fit 64 bits, got {given}"))
        } else {
            wrong_type(name, "an integer", given)
        }
    })
}

/// A number; the error names the argument.
fn real(name: &str, given: &Bound<'_, PyAny>) -> PyResult<f64> {
    given.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(given.py()) {
            PyValueError::new_err(format!("{name} must fit a float, got {given}"))
        } else {
            wrong_type(name, "a number", given)
        }
    })
}

fn flag(name: &str, given: &Bound<'_, PyAny>) -> PyResult<bool> {
    given.extract().map_err(|_| wrong_type(name, "a bool", given))
}

/// Arguments whose errors name them.
macro_rules! arguments {
    ($($function:ident: $of:ident($name:literal) -> $type:ty;)*) => {$(
        pub(super) fn $function(given: &Bound<'_, PyAny>) -> PyResult<$type> {
            $of($name, given)
        }
    )*};
}

arguments! {
    label_smoothing_of: real("label_smoothing") -> f64;
    z_loss_of: real("z_loss") -> f64;
    alpha_of: real("alpha") -> f64;
    gamma_of: real("gamma") -> f64;
    ignore_index_of: integer("ignore_index") -> i64;
    axis_of: integer("axis") -> isize;
    return_grad_of: flag("return_grad") -> bool;
    return_hess_of: flag("return_hess") -> bool;
    log_target_of: flag("log_target") -> bool;
    keepdims_of: flag("keepdims") -> bool;
}

pub(super) fn reduction_of(given: &Bound<'_, PyAny>) -> PyResult<PyBackedStr> {
    given.extract().map_err(|_| wrong_type("reduction", "a string", given))
}

pub(super) fn some_axis_of(given: &Bound<'_, PyAny>) -> PyResult<Option<isize>> {
    if given.is_none() { Ok(None) } else { axis_of(given).map(Some) }
}

pub(super) fn base_of(given: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    if given.is_none() { Ok(None) } else { real("base", given).map(Some) }
}

/// What is said of a reduction besides its name: `(sample_weight, denominator, empty)`.
pub(super) struct Weighing<'py> {
    sample_weight: Option<Array<'py>>,
    denominator: Option<f64>,
    empty: f64,
}

pub(super) fn weighing_of<'py>(given: &Bound<'py, PyAny>) -> PyResult<Weighing<'py>> {
    type Given<'py> = (Option<Bound<'py, PyAny>>, Option<Bound<'py, PyAny>>, Bound<'py, PyAny>);
    let (sample_weight, denominator, empty): Given<'py> = given.extract()?;
    let denominator = denominator.map(|d| real("denominator", &d)).transpose()?;
    if let Some(d) = denominator
        && !(d > 0.0 && d.is_finite())
    {
        return Err(PyValueError::new_err(format!(
            "denominator must be positive and finite, got {d}"
        )));
    }
    Ok(Weighing {
        sample_weight: sample_weight.map(|w| Array::numbers("sample_weight", &w)).transpose()?,
        denominator,
        empty: real("empty", &empty)?,
    })
}

impl Weighing<'_> {
    /// Refuses what is of the mean alone where the reduction is another.
    pub(super) fn check(&self, reduction: &str) -> PyResult<()> {
        let of_mean =
            [("denominator", self.denominator.is_some()), ("empty", !self.empty.is_nan())];
        match of_mean.into_iter().find(|(_, given)| *given && reduction != "mean") {
            Some((name, _)) => Err(PyValueError::new_err(format!(
                "{name} must not be given where reduction is not 'mean', got {reduction:?}"
            ))),
            None => Ok(()),
        }
    }
}

/// What is done to logits first: `(temperature, softcap, class_mask)`.
pub(super) struct WarpCall<'py> {
    temperature: f64,
    softcap: Option<f64>,
    class_mask: Option<Array<'py>>,
}

pub(super) fn warp_of<'py>(given: &Bound<'py, PyAny>) -> PyResult<WarpCall<'py>> {
    type Given<'py> = (Bound<'py, PyAny>, Option<Bound<'py, PyAny>>, Option<Bound<'py, PyAny>>);
    let (temperature, softcap, class_mask): Given<'py> = given.extract()?;
    Ok(WarpCall {
        temperature: real("temperature", &temperature)?,
        softcap: softcap.map(|cap| real("softcap", &cap)).transpose()?,
        class_mask: class_mask.map(|mask| Array::booleans("class_mask", &mask)).transpose()?,
    })
}

impl<'py> WarpCall<'py> {
    pub(super) fn view<'a>(&self) -> PyResult<Warp<'a>> {
        Ok(Warp {
            temperature: self.temperature,
            softcap: self.softcap,
            class_mask: self.class_mask.as_ref().map(Array::view).transpose()?,
        })
    }

    /// The arrays in it, which outputs must not overlap.
    pub(super) fn arrays(&self) -> impl Iterator<Item = (&'static str, &Array<'py>)> {
        self.class_mask.as_ref().map(|mask| ("class_mask", mask)).into_iter()
    }
}

/// The arguments that every loss of class targets takes, checked.
pub(super) struct LossCall<'py> {
    input: Array<'py>,
    target: Array<'py>,
    weight: Option<Array<'py>>,
    axis: usize,
    /// The shape of the losses.
    rows: Vec<usize>,
    ignore_index: i64,
    reduction: Reduction,
    weighing: Weighing<'py>,
}

impl<'py> LossCall<'py> {
    #[allow(clippy::too_many_arguments, reason = "a loss's arguments")]
    pub(super) fn new(
        input: &Bound<'py, PyAny>,
        target: &Bound<'py, PyAny>,
        weight: Option<&Bound<'py, PyAny>>,
        ignore_index: i64,
        (reduction, weighing): (&str, Weighing<'py>),
        axis: Option<isize>,
        soft: bool,
    ) -> PyResult<Self> {
        weighing.check(reduction)?;
        let reduction = Reduction::parse(reduction)?;
        let input = Array::floats("input", input)?;
        let axis = class_axis("input", input.shape(), axis)?;
        let mut rows = input.shape().to_vec();
        rows.remove(axis);
        let target = Array::target(target, &rows, soft)?;
        if ignore_index == i64::MAX {
            // What class indices above it are read as.
            return Err(PyValueError::new_err(format!(
                "ignore_index must be less than 2^63 - 1, got {ignore_index}"
            )));
        }
        let weight = weight.map(|w| Array::numbers("weight", w)).transpose()?;
        if let Some(weight) = &weight
            && weight.shape().len() != 1
        {
            return Err(PyValueError::new_err(format!(
                "weight must have shape ({},), one per class, got {}",
                input.shape()[axis],
                super::array::show(weight.shape())
            )));
        }
        Ok(Self { input, target, weight, axis, rows, ignore_index, reduction, weighing })
    }

    /// Runs the loss and gives back what Python's caller asked for.
    pub(super) fn run(
        &self,
        derivatives: &Derivatives<'py>,
        warp: Option<&WarpCall<'py>>,
        loss: impl FnOnce(&Inputs<'_>, Outputs<'_>, &dyn Fn() -> bool) -> Result<f64> + Send,
    ) -> PyResult<Bound<'py, PyAny>> {
        let upstream = derivatives.upstream()?;
        let inputs = Inputs {
            input: self.input.view()?,
            target: self.target.view()?,
            axis: self.axis,
            weight: self.weight.as_ref().map(Array::to_vec).transpose()?,
            ignore_index: Some(self.ignore_index),
            reduce: reduce(self.reduction, &self.weighing, &upstream)?,
        };
        let mut fixed = vec![("input", &self.input), ("target", &self.target)];
        fixed.extend(self.weight.as_ref().map(|w| ("weight", w)));
        fixed.extend(self.weighing.sample_weight.as_ref().map(|w| ("sample_weight", w)));
        fixed.extend(warp.into_iter().flat_map(WarpCall::arrays));
        fixed.extend(upstream.as_ref().map(|g| ("grad_output", g)));

        let reduces = self.reduction != Reduction::None || self.rows.is_empty();
        let losses = (!reduces).then_some(&self.rows[..]);
        answer([&self.input, &self.target], &fixed, losses, derivatives, |outputs, interrupted| {
            loss(&inputs, outputs, interrupted)
        })
    }
}

/// The arguments that every loss of elements takes, checked.
pub(super) struct ElementCall<'py> {
    names: [&'static str; 2],
    input: Array<'py>,
    target: Option<Array<'py>>,
    weight: Option<Array<'py>>,
    pos_weight: Option<Array<'py>>,
    axis: Option<usize>,
    averages: bool,
    reduction: Reduction,
    weighing: Weighing<'py>,
}

impl<'py> ElementCall<'py> {
    pub(super) fn new(
        (input_name, input): (&'static str, &Bound<'py, PyAny>),
        (target_name, target): (&'static str, &Bound<'py, PyAny>),
        [weight, pos_weight]: [Option<&Bound<'py, PyAny>>; 2],
        (reduction, weighing): (&str, Weighing<'py>),
    ) -> PyResult<Self> {
        weighing.check(reduction)?;
        let reduction = Reduction::parse(reduction)?;
        let numbers = |name, given: Option<_>| given.map(|g| Array::numbers(name, g)).transpose();
        Ok(Self {
            names: [input_name, target_name],
            input: Array::floats(input_name, input)?,
            target: Some(Array::numbers(target_name, target)?),
            weight: numbers("weight", weight)?,
            pos_weight: numbers("pos_weight", pos_weight)?,
            axis: None,
            averages: false,
            reduction,
            weighing,
        })
    }

    /// Of an input alone, one number an element.
    pub(super) fn of(name: &'static str, input: &Bound<'py, PyAny>) -> PyResult<Self> {
        Ok(Self {
            names: [name, ""],
            input: Array::floats(name, input)?,
            target: None,
            weight: None,
            pos_weight: None,
            axis: None,
            averages: false,
            reduction: Reduction::None,
            weighing: Weighing { sample_weight: None, denominator: None, empty: f64::NAN },
        })
    }

    /// Of two distributions, one number a row of `axis`.
    pub(super) fn of_two(
        (p_name, p): (&'static str, &Bound<'py, PyAny>),
        (q_name, q): (&'static str, &Bound<'py, PyAny>),
        axis: isize,
    ) -> PyResult<Self> {
        let q = Array::floats(q_name, q)?;
        let of_p = Self { target: Some(q), names: [p_name, q_name], ..Self::of(p_name, p)? };
        of_p.by_rows(axis, false)
    }

    /// With one loss a row of `axis`: the sum over it, or the mean.
    pub(super) fn by_rows(mut self, axis: isize, averages: bool) -> PyResult<Self> {
        self.axis = Some(class_axis(self.names[0], self.input.shape(), Some(axis))?);
        self.averages = averages;
        Ok(self)
    }

    /// With a mean over the first axis alone: what `batchmean` is.
    pub(super) fn by_batch(mut self) -> PyResult<Self> {
        let Some(n) = self.input.shape().first() else {
            return Err(PyValueError::new_err(
                "reduction must not be 'batchmean' where input has no axis",
            ));
        };
        self.weighing.denominator = Some(*n as f64);
        Ok(self)
    }

    /// Runs the loss and gives back what Python's caller asked for.
    pub(super) fn run(
        &self,
        derivatives: &Derivatives<'py>,
        warp: Option<&WarpCall<'py>>,
        loss: impl FnOnce(&Elements<'_>, Outputs<'_>, &dyn Fn() -> bool) -> Result<f64> + Send,
    ) -> PyResult<Bound<'py, PyAny>> {
        let upstream = derivatives.upstream()?;
        let view = |array: &Option<Array<'py>>| array.as_ref().map(Array::view).transpose();
        let inputs = Elements {
            names: self.names,
            input: self.input.view()?,
            target: view(&self.target)?,
            weight: view(&self.weight)?,
            pos_weight: view(&self.pos_weight)?,
            axis: self.axis,
            averages: self.averages,
            reduce: reduce(self.reduction, &self.weighing, &upstream)?,
        };
        let [input_name, target_name] = self.names;
        let mut fixed = vec![(input_name, &self.input)];
        fixed.extend(self.target.as_ref().map(|t| (target_name, t)));
        fixed.extend(self.weight.as_ref().map(|w| ("weight", w)));
        fixed.extend(self.pos_weight.as_ref().map(|w| ("pos_weight", w)));
        fixed.extend(self.weighing.sample_weight.as_ref().map(|w| ("sample_weight", w)));
        fixed.extend(warp.into_iter().flat_map(WarpCall::arrays));
        fixed.extend(upstream.as_ref().map(|g| ("grad_output", g)));
        let mut shape = self.input.shape().to_vec();
        self.axis.map(|axis| shape.remove(axis));
        let reduces = self.reduction != Reduction::None || shape.is_empty();
        let losses = (!reduces).then_some(&shape[..]);
        let target = self.target.as_ref().unwrap_or(&self.input);
        answer([&self.input, target], &fixed, losses, derivatives, |outputs, interrupted| {
            loss(&inputs, outputs, interrupted)
        })
    }
}

/// Arrays, or numbers of one row, and a gradient.
pub(super) type Tokenwise<'py> = (Vec<Bound<'py, PyAny>>, Option<Bound<'py, PyAny>>);

/// Everything about the targets of rows: `log_prob`, `entropy`, `logsumexp`, `rank` and, if `with_top`,
/// the log-probability of the most likely class and how many classes have it; and the gradient where it
/// is wanted. Numbers are as the kernel has them, in `f64`, where they are `wide`.
pub(super) fn tokens<'py>(
    input: &Bound<'py, PyAny>,
    target: &Bound<'py, PyAny>,
    axis: Option<isize>,
    warp: &WarpCall<'py>,
    (return_grad, grad_output, grad_out): (
        bool,
        Option<&Bound<'py, PyAny>>,
        Option<&Bound<'py, PyAny>>,
    ),
    (wide, with_top): (bool, bool),
) -> PyResult<Tokenwise<'py>> {
    let py = input.py();
    let input = Array::floats("input", input)?;
    let axis = class_axis("input", input.shape(), axis)?;
    let mut rows = input.shape().to_vec();
    rows.remove(axis);
    let target = Array::target(target, &rows, false)?;
    let given = match grad_output {
        None => [None, None],
        Some(pair) => {
            let Ok((first, second)) = pair.extract::<(Bound<'py, PyAny>, Bound<'py, PyAny>)>()
            else {
                return Err(wrong_type("grad_output", "a pair, of log_prob and of entropy", pair));
            };
            [
                Some(Array::numbers("grad_output[0]", &first)?),
                Some(Array::numbers("grad_output[1]", &second)?),
            ]
        }
    };
    let gradient = |given: &Option<Array<'py>>, default: f64| -> PyResult<_> {
        Ok(match given {
            None => Gradient::Same(default),
            Some(g) if g.shape().is_empty() => Gradient::Same(g.to_vec()?[0]),
            Some(g) => Gradient::PerRow(g.view()?),
        })
    };
    let mut fixed = vec![("input", &input), ("target", &target)];
    fixed.extend(warp.arrays());
    fixed.extend(given[0].as_ref().map(|g| ("grad_output[0]", g)));
    fixed.extend(given[1].as_ref().map(|g| ("grad_output[1]", g)));
    let wants_grad = return_grad || grad_out.is_some();
    let grad = wants_grad.then(|| input.output_like("grad_out", grad_out)).transpose()?;
    if let Some(grad) = &grad {
        grad.refuse_overlap("grad_out", &fixed, true)?;
    }
    let [log_prob, entropy, logsumexp] =
        [input.losses(&rows, wide)?, input.losses(&rows, wide)?, input.losses(&rows, wide)?];
    let rank = Array::indices(py, &rows)?;
    let top = if with_top {
        Some([input.losses(&rows, wide)?, Array::indices(py, &rows)?])
    } else {
        None
    };
    let call = Tokens {
        input: input.view()?,
        target: target.view()?,
        axis,
        warp: warp.view()?,
        grad_output: [gradient(&given[0], 1.0)?, gradient(&given[1], 0.0)?],
    };
    let answers = Answers {
        log_prob: log_prob.view_mut()?,
        entropy: entropy.view_mut()?,
        logsumexp: logsumexp.view_mut()?,
        rank: rank.view_mut()?,
        top: match &top {
            Some([top, ties]) => Some([top.view_mut()?, ties.view_mut()?]),
            None => None,
        },
        grad: grad.as_ref().map(Array::view_mut).transpose()?,
    };
    detached(py, |interrupted| token_log_prob(&call, answers, interrupted))?;
    let grad = grad.map(|made| grad_out.cloned().unwrap_or_else(|| made.into_any()));
    let of_one = rows.is_empty();
    let value = |array: Array<'py>| -> PyResult<_> {
        if of_one {
            array.into_any().call_method1("__getitem__", ((),))
        } else {
            Ok(array.into_any())
        }
    };
    let all = [log_prob, entropy, logsumexp, rank].into_iter();
    let all = all.chain(top.into_iter().flatten()).map(value);
    Ok((all.collect::<PyResult<_>>()?, grad))
}

/// What a caller says of the answer.
fn reduce<'a>(
    reduction: Reduction,
    weighing: &Weighing<'_>,
    upstream: &Option<Array<'_>>,
) -> PyResult<Reduce<'a>> {
    let mut reduce = Reduce {
        reduction,
        sample_weight: weighing.sample_weight.as_ref().map(Array::view).transpose()?,
        denominator: weighing.denominator,
        empty: weighing.empty,
        ..Reduce::default()
    };
    match upstream {
        None => {}
        Some(g) if g.shape().is_empty() => reduce.grad_output = g.to_vec()?[0],
        Some(g) => reduce.grad_outputs = Some(g.view()?),
    }
    Ok(reduce)
}

/// Makes outputs or checks those that were given, fills them, and returns what Python's caller asked
/// for. The input is the first of what is `fixed`, a divergence's other argument the second; `losses`
/// is the shape of the losses where they are not reduced.
fn answer<'py>(
    [input, target]: [&Array<'py>; 2],
    fixed: &[(&str, &Array<'py>)],
    losses: Option<&[usize]>,
    derivatives: &Derivatives<'py>,
    loss: impl FnOnce(Outputs<'_>, &dyn Fn() -> bool) -> Result<f64> + Send,
) -> PyResult<Bound<'py, PyAny>> {
    let py = input.as_any().py();
    let wants_grad = derivatives.return_grad || derivatives.grad_out.is_some();
    let wants_hess = derivatives.return_hess || derivatives.hess_out.is_some();
    let name = if derivatives.return_both { "grad_out[0]" } else { "grad_out" };
    let grad =
        wants_grad.then(|| input.output_like(name, derivatives.grad_out.as_ref())).transpose()?;
    if let Some(grad) = &grad {
        grad.refuse_overlap(name, fixed, true)?;
    }
    let hess = wants_hess
        .then(|| input.output_like("hess_out", derivatives.hess_out.as_ref()))
        .transpose()?;
    if let Some(hess) = &hess {
        hess.refuse_overlap("hess_out", fixed, true)?;
        if let Some(grad) = &grad {
            hess.refuse_overlap("hess_out", &[("grad_out", grad)], false)?;
        }
    }
    let second = derivatives
        .return_both
        .then(|| target.output_like("grad_out[1]", derivatives.second_out.as_ref()))
        .transpose()?;
    if let (Some(second), Some(grad)) = (&second, &grad) {
        // It may be in its own argument's place, not in the other's.
        let (input, others) = fixed.split_at(1);
        second.refuse_overlap("grad_out[1]", input, false)?;
        second.refuse_overlap("grad_out[1]", others, true)?;
        second.refuse_overlap("grad_out[1]", &[("grad_out[0]", grad)], false)?;
    }
    let losses = losses.map(|shape| input.losses(shape, false)).transpose()?;
    let outputs = Outputs {
        losses: losses.as_ref().map(Array::view_mut).transpose()?,
        grad: grad.as_ref().map(Array::view_mut).transpose()?,
        hess: hess.as_ref().map(Array::view_mut).transpose()?,
        target_grad: second.as_ref().map(Array::view_mut).transpose()?,
    };
    let value = detached(py, |interrupted| loss(outputs, interrupted))?;
    let value = match losses {
        Some(losses) => losses.into_any(),
        None => number(py, input.format().kind, value)?,
    };
    // The caller's own object where one was given: it may be of a subclass, such as a memory map.
    let given = |given: &Option<Bound<'py, PyAny>>, made: Option<Array<'py>>| {
        made.map(|made| given.clone().unwrap_or_else(|| made.into_any()))
    };
    let grad = given(&derivatives.grad_out, grad);
    let hess = given(&derivatives.hess_out, hess);
    let second = given(&derivatives.second_out, second);
    let all: Vec<_> = [Some(value), grad, hess, second].into_iter().flatten().collect();
    Ok(match <[_; 1]>::try_from(all) {
        Ok([value]) => value,
        Err(all) => PyTuple::new(py, all)?.into_any(),
    })
}
