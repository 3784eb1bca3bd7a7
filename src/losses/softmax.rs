//! Softmax, log-softmax and log-sum-exp: members of the family that are no losses.
//!
//! With `m` the largest logit and `R = sum exp(x_c - m)` over all classes but one at the maximum,
//! `p_i = exp(x_i - m) / (1 + R)`, `log p_i = (x_i - m) - log1p(R)`, `lse = m + log1p(R)`.

use crate::error::Result;
use crate::float::Kind;
use crate::reduce::Census;
use crate::rows::settle::{Coefficients, Factors, MORE, Settle, Settled, Softmax, Terms};
use crate::rows::{Emission, Field, Job, ROWS};
use crate::simd::{self, Element, Isa};
use crate::view::{Order, Rows, RowsMut, View, ViewMut};
use crate::warp::Warp;
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
        let first =
            Coefficients { a: one / row.sum, b: one, c: one, max: row.max, at_max: -row.log };
        let factors = Factors { keep: one, patch: one, first, second: first };
        Settled { loss: row.log_sum_exp, more: [one; MORE], factors }
    }
}

fn compute<F: Element>(
    input: View<'_>,
    axis: usize,
    warp: &Warp<'_>,
    losses: Option<ViewMut<'_>>,
    (emission, first): (Emission, Option<ViewMut<'_>>),
    interrupted: &dyn Fn() -> bool,
) -> Result<()> {
    let order = Order::of(&input, Some(axis));
    let in_place = first.as_ref().is_some_and(|out| out.as_view().same_memory(&input));
    let warp = warp.of_rows(input.shape(), axis, &order)?;
    Job::<F> {
        input: Rows::new(input, Some(axis), &order),
        warp,
        mass: None,
        settle: &Distribution,
        loss: losses.map(|view| RowsMut::new(view, None, &order.without(axis))),
        more: Default::default(),
        emission,
        first: first.map(|view| RowsMut::new(view, Some(axis), &order)),
        second: None,
        in_place,
        least_upstream: 1.0,
    }
    .run(interrupted)?;
    Ok(())
}

fn run(
    input: View<'_>,
    axis: usize,
    warp: &Warp<'_>,
    losses: Option<ViewMut<'_>>,
    (emission, first): (Emission, Option<ViewMut<'_>>),
    interrupted: &dyn Fn() -> bool,
) -> Result<()> {
    if input.format().kind == Kind::F64 || !warp.is_exact() {
        compute::<f64>(input, axis, warp, losses, (emission, first), interrupted)
    } else {
        compute::<f32>(input, axis, warp, losses, (emission, first), interrupted)
    }
}

/// Writes the softmax over `axis` to `out`, shaped as the input, of whose memory it may be.
///
/// # Errors
/// Where a warp's arguments do not fit, and where `interrupted` says so.
pub fn softmax(
    input: View<'_>,
    axis: usize,
    warp: &Warp<'_>,
    out: ViewMut<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<()> {
    run(input, axis, warp, None, (Emission::Softmax, Some(out)), interrupted)
}

/// Writes the logarithm of the softmax over `axis` to `out`, as [`softmax`] does.
///
/// # Errors
/// Where a warp's arguments do not fit, and where `interrupted` says so.
pub fn log_softmax(
    input: View<'_>,
    axis: usize,
    warp: &Warp<'_>,
    out: ViewMut<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<()> {
    run(input, axis, warp, None, (Emission::LogSoftmax, Some(out)), interrupted)
}

/// Writes the log-sum-exp over `axis` to `out`, shaped as the input without it.
///
/// # Errors
/// Where a warp's arguments do not fit, and where `interrupted` says so.
pub fn logsumexp(
    input: View<'_>,
    axis: usize,
    warp: &Warp<'_>,
    out: ViewMut<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<()> {
    run(input, axis, warp, Some(out), (Emission::Softmax, None), interrupted)
}
