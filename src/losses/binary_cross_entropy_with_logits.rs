//! Binary cross-entropy between targets and the sigmoid of logits.
//!
//! With the masses `a = p t` on the positive answer and `b = 1 - t` on the negative one,
//!
//! ```text
//! loss     = a softplus(-x) + b softplus(x) = (a + b) log(1 + exp(-|x|)) + (b x or -a x)
//! d/dx     = b sigmoid(x) - a sigmoid(-x)   = (a + b) sigmoid(-|x|)      + (...)
//! d^2/dx^2 = (a + b) sigmoid(x) sigmoid(-x)
//! ```
//!
//! where the last term of the loss is `b x` for x > 0 and `-a x` else: both are positive, and
//! nothing cancels. The gradient is `b - (a + b) sigmoid(-x)` for x > 0, which for a sure target is
//! one term, and `(a + b) sigmoid(x) - a` else.

use super::common::Outputs;
use super::elements::Elements;
use crate::error::Result;
use crate::float::Kind;
use crate::pointwise::{Jet, Narrow, Point, Pointwise};
use crate::simd::logistic::{self, Logistic};
use crate::simd::sum::two_sum;
use crate::simd::{self, Element, Isa};
use fearless_simd::prelude::*;

#[derive(Clone, Copy, Debug)]
pub(super) struct WithLogits;

impl Pointwise for WithLogits {
    #[inline(always)]
    fn at<S: Isa, F: Element>(&self, simd: S, p: &Point<S>) -> Jet<S> {
        let c = |v: f64| simd::splat::<S, f64>(simd, v);
        let logistic = Logistic::<S, F>::at(simd, p.x);
        let (a, b) = (p.positive * p.t, c(1.0) - p.t);
        let both = a + b;
        let mass = logistic.by_sign(simd, b, a);
        // No mass on an infinite logit is nothing. Numbers of f32 end long before f64::MAX, of which
        // any mass but none is infinite to them.
        let far = if F::KIND == Kind::F64 {
            mass.simd_eq(c(0.0)).select(c(0.0), p.x.abs())
        } else {
            c(f64::MAX).min(p.x.abs())
        };
        let gap = mass * far;
        let log = logistic.log(simd);
        let value = if F::KIND == Kind::F64 {
            // What the roundings of the masses, of the products and of the sum took, each exactly.
            let (a_lost, b_lost) = (simd::lost(simd, p.positive, p.t, a), (c(1.0) - b) - p.t);
            let both_lost = two_sum(a, b)[1] + (a_lost + b_lost);
            let mass_lost = logistic.by_sign(simd, b_lost, a_lost);
            let gap_lost = mass_lost.mul_add(far, simd::lost(simd, mass, far, gap));
            let product = both * log;
            let product_lost = both_lost.mul_add(log, simd::lost(simd, both, log, product));
            let [sum, sum_lost] = two_sum(product, gap);
            let lost = sum_lost + (product_lost + gap_lost);
            lost.simd_eq(lost).select(sum + lost, sum)
        } else {
            both.mul_add(log, gap)
        };
        let small = both * logistic.small();
        let first = logistic.by_sign(simd, b - small, small - a);
        let second = both * logistic.slope();
        Jet { value, lost: c(0.0), first, second }
    }

    /// Of finite logits and targets in [0, 1], where the masses add up to 1.
    #[inline(always)]
    fn narrow<S: Isa>(&self, simd: S, x: S::f32s, t: S::f32s) -> Option<Narrow<S>> {
        let c = |v: f32| simd::splat::<S, f32>(simd, v);
        let logistic = logistic::Narrow::<S>::at(simd, x);
        // b x for x > 0, else -a x, rounded once.
        let value = logistic.log_and(simd, (-t).mul_add(x, x.max(c(0.0))));
        let rest = c(1.0) - t;
        let small = logistic.small(simd);
        let first = logistic.by_sign(simd, rest - small, small - t);
        // Numbers above 1, negative ones and NaNs have larger bits than 1. The sum is for -0.
        let bits = |v: S::f32s| v.bitcast::<S::u32s>();
        let holds = logistic.holds(simd) & bits(t + c(0.0)).simd_le(bits(c(1.0)));
        Some(Narrow { value, first, second: Some(small * (c(1.0) - small)), holds })
    }
}

/// Computes the loss, and what `outputs` asks for besides. Returns the reduced loss, or the sum of
/// the losses where they are not reduced.
///
/// # Errors
/// Where shapes do not fit, before anything is written; and where `interrupted` says so.
pub fn binary_cross_entropy_with_logits(
    inputs: &Elements<'_>,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    inputs.run(WithLogits, outputs, interrupted)
}
