//! The entropy of the softmax of logits.
//!
//! With `m` the largest logit, `R = sum exp(x_c - m)` over all classes but one at the maximum, and
//! the mean gap `E = sum_c p_c (m - x_c)`,
//!
//! ```text
//! H       = -sum_c p_c log p_c = log1p(R) + E
//! dH/dx_i = p_i ((m - x_i) - E)
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
use crate::rows::settle::{Coefficients, Factors, Settle, Settled, Softmax, Terms};
use crate::rows::{Emission, Job};
use crate::simd::sum::two_sum;
use crate::simd::{self, Element, Isa};
use crate::view::{Order, Rows, RowsMut};
use fearless_simd::prelude::*;
use std::ops::Range;

struct OfLogits<'a> {
    unit: Unit,
    upstream: Upstream<'a>,
}

impl Settle for OfLogits<'_> {
    fn terms(&self, rows: Range<usize>, terms: &mut Terms) -> Census {
        terms.without_targets();
        fill_upstream(&self.upstream, rows, self.unit.nats(), &mut terms.rows);
        Census::default()
    }

    #[inline(always)]
    fn settle<S: Isa>(&self, simd: S, row: &Softmax<S>) -> Settled<S::f64s> {
        let [zero, one, infinity] = [0.0, 1.0, f64::INFINITY].map(
            #[inline(always)]
            |v| simd::splat::<S, f64>(simd, v),
        );
        let mean_gap = row.dot / row.sum;
        // What the division left over, which f64 has no room to lose.
        let product = mean_gap * row.sum;
        let left = (row.dot - product)
            - mean_gap.mul_add(row.sum_low, simd::lost(simd, mean_gap, row.sum, product));
        let [entropy, entropy_low] = two_sum(row.log, mean_gap);
        let entropy = entropy + (entropy_low + left / row.sum);
        let first =
            Coefficients { a: row.upstream / row.sum, b: mean_gap, max: row.max, at_max: infinity };
        let factors = Factors { keep: one, patch: zero, first, second: first };
        Settled { loss: self.unit.count(simd, entropy), factors }
    }
}

fn compute<F: Element>(
    inputs: &Elements<'_>,
    axis: usize,
    unit: Unit,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    let order = Order::of(&inputs.input, Some(axis));
    let upstream = inputs.upstream_of_rows(axis, &order)?;
    let in_place =
        outputs.grad.as_ref().is_some_and(|out| out.as_view().same_memory(&inputs.input));
    let (sum, _) = Job::<F, _> {
        input: Rows::new(inputs.input.clone(), Some(axis), &order),
        mass: Some(Mass::own()),
        settle: OfLogits { unit, upstream },
        loss: outputs.losses.map(|view| RowsMut::new(view, None, &order.without(axis))),
        first: outputs.grad.map(|v| (Emission::Tilt, RowsMut::new(v, Some(axis), &order))),
        second: None,
        in_place,
    }
    .run(interrupted)?;
    Ok(sum)
}

/// Computes the entropy of each row of an axis, and the gradient where `outputs` asks for it.
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
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    let (axis, unit) = (inputs.axis.expect("entropies are of rows"), Unit::of(base)?);
    if inputs.input.format().kind == Kind::F64 {
        compute::<f64>(inputs, axis, unit, outputs, interrupted)
    } else {
        compute::<f32>(inputs, axis, unit, outputs, interrupted)
    }
}
