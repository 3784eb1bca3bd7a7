//! Softmax, log-softmax and log-sum-exp: members of the family that are no losses.
//!
//! With `m` the largest logit and `R = sum exp(x_c - m)` over all classes but one at the maximum,
//! `p_i = exp(x_i - m) / (1 + R)`, `log p_i = (x_i - m) - log1p(R)`, `lse = m + log1p(R)`.

use crate::error::Result;
use crate::float::Kind;
use crate::reduce::Census;
use crate::rows::settle::{Coefficients, Factors, Settle, Settled, Softmax, Terms};
use crate::rows::{Emission, Field, Job, ROWS};
use crate::simd::{self, Element, Isa};
use crate::view::{Order, Rows, RowsMut, View, ViewMut};
use std::ops::Range;

struct Distribution;

impl Settle for Distribution {
    fn terms(&self, _: Range<usize>, terms: &mut Terms) -> Census {
        terms.without_targets();
        for term in &mut terms.rows {
            term.set_upstream(Field([1.0; ROWS]));
        }
        Census::default()
    }

    #[inline(always)]
    fn settle<S: Isa>(&self, simd: S, row: &Softmax<S>) -> Settled<S::f64s> {
        let one = simd::splat::<S, f64>(simd, 1.0);
        let first = Coefficients { a: one / row.sum, b: one, max: row.max, at_max: -row.log };
        let factors = Factors { keep: one, patch: one, first, second: first };
        Settled { loss: row.log_sum_exp, factors }
    }
}

fn compute<F: Element>(
    input: View<'_>,
    axis: usize,
    losses: Option<ViewMut<'_>>,
    first: Option<(Emission, ViewMut<'_>)>,
    interrupted: &dyn Fn() -> bool,
) -> Result<()> {
    let order = Order::of(&input, Some(axis));
    let in_place = first.as_ref().is_some_and(|(_, out)| out.as_view().same_memory(&input));
    Job::<F, _> {
        input: Rows::new(input, Some(axis), &order),
        mass: None,
        settle: Distribution,
        loss: losses.map(|view| RowsMut::new(view, None, &order.without(axis))),
        first: first.map(|(e, view)| (e, RowsMut::new(view, Some(axis), &order))),
        second: None,
        in_place,
    }
    .run(interrupted)?;
    Ok(())
}

fn run(
    input: View<'_>,
    axis: usize,
    losses: Option<ViewMut<'_>>,
    first: Option<(Emission, ViewMut<'_>)>,
    interrupted: &dyn Fn() -> bool,
) -> Result<()> {
    if input.format().kind == Kind::F64 {
        compute::<f64>(input, axis, losses, first, interrupted)
    } else {
        compute::<f32>(input, axis, losses, first, interrupted)
    }
}

/// Writes the softmax over `axis` to `out`, shaped as the input, of whose memory it may be.
///
/// # Errors
/// Where `interrupted` says so.
pub fn softmax(
    input: View<'_>,
    axis: usize,
    out: ViewMut<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<()> {
    run(input, axis, None, Some((Emission::Softmax, out)), interrupted)
}

/// Writes the logarithm of the softmax over `axis` to `out`, as [`softmax`] does.
///
/// # Errors
/// Where `interrupted` says so.
pub fn log_softmax(
    input: View<'_>,
    axis: usize,
    out: ViewMut<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<()> {
    run(input, axis, None, Some((Emission::LogSoftmax, out)), interrupted)
}

/// Writes the log-sum-exp over `axis` to `out`, shaped as the input without it.
///
/// # Errors
/// Where `interrupted` says so.
pub fn logsumexp(
    input: View<'_>,
    axis: usize,
    out: ViewMut<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<()> {
    run(input, axis, Some(out), None, interrupted)
}
