//! The Jensen-Shannon divergence between the softmaxes of logits.
//!
//! With `p = softmax(a)`, `q = softmax(b)` and their mean `m`, as in [`super::js_divergence`],
//!
//! ```text
//! JS(p, q) = (KL(p, m) + KL(q, m)) / 2
//! d/da_i   = p_i (log(p_i / m_i) - KL(p, m)) / 2,      d/db_i = q_i (log(q_i / m_i) - KL(q, m)) / 2
//! ```
//!
//! where `q_i - p_i`, by which masses are compared with their mean, is known from the logits and
//! does not cancel.

use super::common::Outputs;
use super::divergence::of_logits;
use super::elements::Elements;
use super::js_divergence::compare;
use crate::error::Result;
use crate::rows::pairs::{Divergence, Pair, Seen};
use crate::simd::expm1::Apart;
use crate::simd::sum::two_sum;
use crate::simd::two::product;
use crate::simd::{self, Element, Isa};
use crate::warp::Warp;
use fearless_simd::prelude::*;

struct JensenShannon;

impl Divergence for JensenShannon {
    const MEANS: bool = true;

    #[inline(always)]
    fn at<S: Isa, F: Element>(&self, simd: S, pair: &Pair<S>) -> Seen<S> {
        let c = |v: f64| simd::splat::<S, f64>(simd, v);
        let Pair { p, q, lows: [p_low, q_low], u: [u, u_low], close, .. } = *pair;
        let rises = u.simd_gt(c(0.0));
        let (small, large) = (rises.select(p, q), rises.select(q, p));
        // A term is homogeneous: where the ratio is known best, masses are in units of the smaller.
        let far = two_sum(large, -small);
        let ratio = Apart::at::<F>(simd, [u.abs(), rises.select(u_low, -u_low)]).expm1;
        let [one_more, low] = two_sum(c(1.0), ratio[0]);
        let [both, low_of_both] = two_sum(c(2.0), ratio[0]);
        // Where the larger mass is far from the smaller, what it was rounded by is a part of its
        // distance from the mean, which d/dq at a fixed mean, log(q / m) / 2, makes up for.
        let rounded = ratio[0].simd_gt(c(1.0)).select(low + ratio[1], c(0.0));
        let pick = |near: [S::f64s; 2], far: [S::f64s; 2]| {
            [close.select(near[0], far[0]), close.select(near[1], far[1])]
        };
        let jet = compare::<S, F>(
            simd,
            pick([c(1.0), one_more], [small, large]),
            pick([both, low_of_both + ratio[1]], two_sum(small, large)),
            [pick(ratio, far), pick([-ratio[0], rounded + rounded - ratio[1]], far.map(|v| -v))],
        );
        let value = rounded.mul_add(jet.second, jet.value);
        let by_small = small.simd_eq(c(0.0)).select(c(0.0), jet.first);
        let by_large = large.simd_eq(c(0.0)).select(c(0.0), jet.second);
        let lows = [rises.select(p_low, q_low), rises.select(q_low, p_low)];
        let by_ratio = product(simd, [small, lows[0]], ratio);
        let d = pick(by_ratio, [far[0], far[1] + (lows[1] - lows[0])]);
        let [near, near_low] = product(simd, [small, lows[0]], [value, jet.lost]);
        let far_low = lows[0].mul_add(by_small, lows[1].mul_add(by_large, jet.lost));
        Seen {
            term: [close.select(near, jet.value), close.select(near_low, far_low)],
            stiff: c(0.0),
            d: d.map(|d| rises.select(d, -d)),
            slopes: [rises.select(by_small, by_large), rises.select(by_large, by_small)],
        }
    }

    #[inline(always)]
    fn gradients<S: Isa>(
        &self,
        pair: &Pair<S>,
        seen: &Seen<S>,
        _: S::f64s,
        means: [S::f64s; 2],
    ) -> [S::f64s; 2] {
        [pair.p * (seen.slopes[0] - means[0]), pair.q * (seen.slopes[1] - means[1])]
    }
}

/// Computes the divergence over an axis, and the gradients that `outputs` asks for.
///
/// # Errors
/// Where shapes, the base or the warp do not fit, before anything is written; and where
/// `interrupted` says so.
pub fn js_divergence_with_logits(
    inputs: &Elements<'_>,
    base: Option<f64>,
    warp: &Warp<'_>,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    of_logits(inputs, JensenShannon, base, warp, outputs, interrupted)
}
