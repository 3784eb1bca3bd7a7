//! The entropy of the softmax of logits.
//!
//! With `m` the largest logit, `R = sum exp(x_c - m)` over all classes but one at the maximum, and
//! the mean gap `E = sum_c p_c (m - x_c)`,
//!
//! ```text
//! H           = -sum_c p_c log p_c = log1p(R) + E
//! dH/dx_i     = p_i ((m - x_i) - E)
//! d^2H/dx_i^2 = p_i ((1 - 2 p_i) ((m - x_i) - E) - (1 - p_i))
//! ```
//!
//! where every term of the entropy is nonnegative. The gradient vanishes for classes at the mean gap:
//! its error there is that of the gap.

use super::common::{Outputs, fill_upstream};
use super::elements::Elements;
use super::unit::Unit;
use crate::error::Result;
use crate::float::Kind;
use crate::reduce::{Census, Upstream};
use crate::rows::mass::Mass;
use crate::rows::settle::{Coefficients, Factors, MORE, Settle, Settled, Softmax, Terms};
use crate::rows::{Emission, Job};
use crate::simd::log1p::log1p_in_two;
use crate::simd::sum::two_sum;
use crate::simd::{self, Element, Isa};
use crate::view::{Order, Rows, RowsMut, ViewMut};
use crate::warp::Warp;
use fearless_simd::prelude::*;
use std::ops::Range;

struct OfLogits<'a> {
    unit: Unit,
    upstream: Upstream<'a>,
}

impl Settle for OfLogits<'_> {
    fn terms(&self, rows: Range<usize>, terms: &mut Terms) -> Census {
        terms.without_targets();
        fill_upstream(&self.upstream, rows, self.unit.nats()[0], &mut terms.rows);
        Census::default()
    }

    #[inline(always)]
    fn settle<S: Isa>(&self, simd: S, row: &Softmax<S>) -> Settled<S::f64s> {
        let [zero, one] = [0.0, 1.0].map(
            #[inline(always)]
            |v| simd::splat::<S, f64>(simd, v),
        );
        let ([entropy, lost], mean_gap) = entropy_and_mean_gap(simd, row);
        let lost = if self.unit.is_nat() { lost } else { lost + log_lost(simd, row) };
        let a = row.upstream / row.sum;
        let first = Coefficients { a, b: mean_gap, c: one, max: row.max, at_max: zero };
        let inverse = one / row.sum;
        let all = one + row.odds;
        // At the maximum p is 1 / all.
        let tilt = (row.odds - one) / all * -mean_gap - row.others * inverse;
        let second = Coefficients { c: inverse, at_max: row.upstream * tilt / all, ..first };
        let factors = Factors { keep: one, patch: zero, first, second };
        Settled {
            loss: self.unit.count::<S, f64>(simd, entropy, lost),
            more: [zero; MORE],
            factors,
        }
    }
}

/// What the rounding of a row's logarithm took.
#[inline(always)]
fn log_lost<S: Isa>(simd: S, row: &Softmax<S>) -> S::f64s {
    let zero = simd::splat::<S, f64>(simd, 0.0);
    let [log, low] = log1p_in_two(simd, row.odds, zero);
    let lost = (log - row.log) + low;
    // Of what is infinite, or no number, nothing is known.
    lost.abs().simd_lt(row.log).select(lost, zero)
}

/// The entropy of rows in nats and what its rounding took, and the mean gap.
#[inline(always)]
pub(super) fn entropy_and_mean_gap<S: Isa>(simd: S, row: &Softmax<S>) -> ([S::f64s; 2], S::f64s) {
    let mean_gap = row.dot / row.sum;
    // What the division left over, which f64 has no room to lose.
    let product = mean_gap * row.sum;
    let left = (row.dot - product)
        - mean_gap.mul_add(row.sum_low, simd::lost(simd, mean_gap, row.sum, product));
    let [sum, low] = two_sum(row.log, mean_gap);
    let low = low + left / row.sum;
    let entropy = sum + low;
    let lost = (sum - entropy) + low;
    let zero = simd::splat::<S, f64>(simd, 0.0);
    ([entropy, lost.simd_eq(lost).select(lost, zero)], mean_gap)
}

fn compute<F: Element>(
    inputs: &Elements<'_>,
    axis: usize,
    unit: Unit,
    warp: &Warp<'_>,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    let order = Order::of(&inputs.input, Some(axis));
    let upstream = inputs.upstream_of_rows(axis, &order)?;
    let least_upstream = upstream.least();
    let warp = warp.of_rows(inputs.input.shape(), axis, &order)?;
    let is_input = |out: &ViewMut<'_>| out.as_view().same_memory(&inputs.input);
    let in_place = [&outputs.grad, &outputs.hess].into_iter().flatten().any(is_input);
    let (sum, _) = Job::<F> {
        input: Rows::new(inputs.input.clone(), Some(axis), &order),
        warp,
        mass: Some(Mass::own(false)),
        settle: &OfLogits { unit, upstream },
        loss: outputs.losses.map(|view| RowsMut::new(view, None, &order.without(axis))),
        more: Default::default(),
        emission: Emission::Tilt,
        first: outputs.grad.map(|view| RowsMut::new(view, Some(axis), &order)),
        second: outputs.hess.map(|view| RowsMut::new(view, Some(axis), &order)),
        in_place,
        least_upstream,
    }
    .run(interrupted)?;
    Ok(sum)
}

/// Computes the entropy of each row of an axis, and the derivatives that `outputs` asks for.
/// Returns the sum of the entropies.
///
/// # Errors
/// Where shapes or the base do not fit, before anything is written; and where `interrupted` says so.
///
/// # Panics
/// Where the inputs name no axis.
pub fn entropy_with_logits(
    inputs: &Elements<'_>,
    base: Option<f64>,
    warp: &Warp<'_>,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    let (axis, unit) = (inputs.axis.expect("entropies are of rows"), Unit::of(base)?);
    if inputs.input.format().kind == Kind::F64 || !warp.is_exact() {
        compute::<f64>(inputs, axis, unit, warp, outputs, interrupted)
    } else {
        compute::<f32>(inputs, axis, unit, warp, outputs, interrupted)
    }
}
