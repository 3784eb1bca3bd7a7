//! What every loss of class targets takes and gives.

use crate::error::{Error, Result};
use crate::reduce::{Census, NO_INDEX, Reduce, Upstream, census};
use crate::rows::settle::{IGNORED, NO_CLASS, Term, Terms};
use crate::rows::{Field, ROWS};
use crate::simd;
use crate::view::{Order, Rows, View, ViewMut, show_shape};
use std::ops::Range;

/// The arguments that losses share.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// Logits or log-probabilities.
    pub input: View<'a>,
    /// Class indices, or probabilities shaped as the input.
    pub target: View<'a>,
    /// Which axis of the input holds the classes.
    pub axis: usize,
    /// One weight a class.
    pub weight: Option<Vec<f64>>,
    /// The class index of rows that do not count, if there is one.
    pub ignore_index: Option<i64>,
    /// What becomes of the losses of rows.
    pub reduce: Reduce<'a>,
}

/// Where answers go.
#[derive(Debug, Default)]
pub struct Outputs<'a> {
    /// One loss a row, shaped as the input without its class axis.
    pub losses: Option<ViewMut<'a>>,
    /// The gradient with respect to the input, shaped as it; may be its memory.
    pub grad: Option<ViewMut<'a>>,
    /// The Hessian's diagonal, shaped as the input; may be its memory.
    pub hess: Option<ViewMut<'a>>,
    /// Of a divergence, the gradient with respect to its second argument.
    pub target_grad: Option<ViewMut<'a>>,
}

impl<'a> Inputs<'a> {
    /// Cross-checks shapes; `soft` where targets are probabilities.
    pub(crate) fn check(&self, soft: bool, outputs: &Outputs<'_>) -> Result<()> {
        let shape = self.input.shape();
        if self.axis >= shape.len() {
            return Err(Error::Value(format!(
                "input must have a class axis {}, got shape {}",
                self.axis,
                show_shape(shape)
            )));
        }
        let mut rows = shape.to_vec();
        rows.remove(self.axis);
        let (want, what) =
            if soft { (shape, "probabilities") } else { (&rows[..], "class indices") };
        if self.target.shape() != want {
            return Err(Error::Value(format!(
                "target must have shape {} ({what} for input of shape {}), got {}",
                show_shape(want),
                show_shape(shape),
                show_shape(self.target.shape())
            )));
        }
        if let Some(weight) = &self.weight
            && weight.len() != shape[self.axis]
        {
            return Err(Error::Value(format!(
                "weight must have shape ({},), one per class, got ({},)",
                shape[self.axis],
                weight.len()
            )));
        }
        self.reduce.check(&rows)?;
        for (name, output) in [("grad_out", &outputs.grad), ("hess_out", &outputs.hess)] {
            if let Some(output) = output
                && output.as_view().shape() != shape
            {
                return Err(Error::Value(format!(
                    "{name} must have the input's shape {}, got {}",
                    show_shape(shape),
                    show_shape(output.as_view().shape())
                )));
            }
        }
        Ok(())
    }

    /// The order of rows that suits the input's memory.
    pub(crate) fn order(&self) -> Order {
        Order::of(&self.input, Some(self.axis))
    }

    /// An array that lacks the class axis, as rows.
    pub(crate) fn column(&self, view: View<'a>, order: &Order) -> Rows<'a> {
        Rows::new(view, None, &order.without(self.axis))
    }

    /// The upstream gradient by rows.
    pub(crate) fn upstream(&self, order: &Order) -> Upstream<'a> {
        self.reduce.upstream(|g| self.column(g, order))
    }

    /// The weights of rows.
    pub(crate) fn sample_weight(&self, order: &Order) -> Option<Rows<'a>> {
        self.reduce.sample_weight.as_ref().map(|w| self.column(w.clone(), order))
    }

    /// The least magnitude but 0 that the upstream gradient of a row may have.
    pub(crate) fn least_upstream(&self, upstream: &Upstream<'_>) -> f64 {
        let weights = self.weight.iter().flatten().fold(1.0, |most: f64, w| most.max(w.abs()));
        let rows = self.input.len() / self.input.shape()[self.axis].max(1);
        self.reduce.least(upstream, rows, weights)
    }

    /// Looks at every target class.
    ///
    /// # Errors
    /// Where `interrupted` says so.
    pub(crate) fn census(
        &self,
        target: &Rows<'a>,
        sample: Option<&Rows<'a>>,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Census> {
        let classes = self.input.shape()[self.axis];
        census(target, classes, self.ignore_index, self.weight.as_deref(), sample, interrupted)
    }

    /// The sum of the weights of the rows that count.
    ///
    /// # Errors
    /// Where a target class was out of range.
    pub(crate) fn counted(&self, census: &Census, target: &Rows<'a>, order: &Order) -> Result<f64> {
        let Some((row, class)) = census.wrong else { return Ok(census.counted()) };
        let index = order.without(self.axis).index_of(self.target.shape(), row);
        let index: Vec<_> = index.iter().map(ToString::to_string).collect();
        let place =
            if index.is_empty() { String::new() } else { format!("[{}]", index.join(", ")) };
        // One that i64 cannot hold was read as its maximum.
        let class = if class == i64::MAX { target.index(row) } else { class.into() };
        Err(Error::Index(format!(
            "target{place} = {class} is out of range for {} classes",
            self.input.shape()[self.axis]
        )))
    }
}

/// Rows' target classes, their weights and upstream gradients.
#[derive(Debug)]
pub(crate) struct Targets<'a> {
    pub(crate) target: Rows<'a>,
    pub(crate) classes: usize,
    pub(crate) ignore_index: Option<i64>,
    pub(crate) weight: Option<Vec<f64>>,
    /// Each row's own weight.
    pub(crate) sample: Option<Rows<'a>>,
    /// The upstream gradient and what to divide it by, where there are derivatives.
    pub(crate) upstream: Option<(Upstream<'a>, f64)>,
    /// Whether every class was looked at before.
    pub(crate) checked: bool,
}

impl Targets<'_> {
    /// Fills the terms of some rows; says what it found where nobody has looked before.
    pub(crate) fn fill(&self, rows: Range<usize>, terms: &mut Terms) -> Census {
        let (first, n) = (rows.start, rows.len());
        self.target.stage_indices(rows.clone(), &mut terms.target[..n]);
        if let Some((upstream, denominator)) = &self.upstream {
            fill_upstream(upstream, rows.clone(), *denominator, &mut terms.rows);
        }
        let ignore_index = self.ignore_index.or(self.sample.as_ref().map(|_| NO_INDEX));
        let classes = self.classes as u64;
        if let (Some(sample), Some(ignored)) = (&self.sample, ignore_index) {
            terms.take_weights(sample, rows, ignored);
        }
        let census = if self.checked {
            Census::default()
        } else {
            let (targets, weight) = (&terms.target[..n], self.weight.as_deref());
            let own = self.sample.is_some().then_some(&terms.own[..]);
            Census::of(targets, first, self.classes, ignore_index, weight, own)
        };
        let (ignores, ignored) = (ignore_index.is_some(), ignore_index.unwrap_or_default());
        let groups = terms.target.as_chunks_mut::<ROWS>().0.iter_mut().zip(&mut terms.rows);
        simd::vectorized(
            #[inline(always)]
            || {
                for (targets, term) in groups {
                    for (i, target) in targets.iter_mut().enumerate() {
                        let counts = !(ignores & (*target == ignored));
                        let known = (*target as u64) < classes;
                        // A class that another thread has changed since it was checked is NaN.
                        let hard = if known { 1.0 } else { f64::NAN };
                        term.hard.0[i] = if counts { hard } else { 0.0 };
                        term.live.0[i] = if counts { 1.0 } else { 0.0 };
                        let class = if known { *target } else { NO_CLASS };
                        *target = if counts { class } else { IGNORED };
                    }
                }
            },
        );
        if self.sample.is_some() {
            terms.weigh();
        }
        if let Some(weight) = &self.weight {
            for (target, term) in terms.target.chunks_exact(ROWS).zip(&mut terms.rows) {
                for (target, hard) in target.iter().zip(&mut term.hard.0) {
                    if let Ok(class) = usize::try_from(*target) {
                        *hard *= weight[class];
                    }
                }
            }
        }
        census
    }
}

/// Fills the upstream gradients of some rows' losses, divided by the denominator.
pub(crate) fn fill_upstream(
    upstream: &Upstream<'_>,
    rows: Range<usize>,
    denominator: f64,
    terms: &mut [Term<Field>],
) {
    // Where nothing counts there is nothing to differentiate.
    let over = |g: f64| if denominator == 0.0 { 0.0 } else { g / denominator };
    match upstream {
        Upstream::Same(g) => {
            let mut same = Term::<Field>::default();
            same.set_upstream(Field([over(*g); ROWS]));
            for term in terms {
                (term.upstream, term.exponent) = (same.upstream, same.exponent);
            }
        }
        Upstream::PerRow(from) => {
            for (start, term) in rows.clone().step_by(ROWS).zip(terms) {
                let mut g = [0.0; ROWS];
                from.stage_column(start..(start + ROWS).min(rows.end), &mut g);
                term.set_upstream(Field(if denominator == 1.0 { g } else { g.map(over) }));
            }
        }
    }
}
