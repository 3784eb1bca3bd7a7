//! The Kullback-Leibler divergence between the softmaxes of logits.
//!
//! With `p = softmax(a)`, `q = softmax(b)` and `u_i = log(q_i / p_i)`,
//!
//! ```text
//! KL(p, q) = -sum_i p_i u_i = sum_i p_i (exp(u_i) - 1 - u_i)
//! d/da_i   = p_i (-u_i - KL),      d/db_i = q_i - p_i
//! ```
//!
//! as `sum_i p_i exp(u_i) = sum_i q_i = 1`: no term of the second sum is below 0, and where the
//! distributions are close none of them cancels. The gradient with respect to `a` vanishes where
//! `-u_i` meets its mean: its error there is that of the mean.

use super::common::Outputs;
use super::divergence::of_logits;
use super::elements::Elements;
use crate::error::Result;
use crate::rows::pairs::{Divergence, Pair, Seen};
use crate::simd::expm1::Apart;
use crate::simd::{self, Element, Isa};
use crate::warp::Warp;
use fearless_simd::prelude::*;

struct KullbackLeibler;

impl Divergence for KullbackLeibler {
    const MEANS: bool = false;

    #[inline(always)]
    fn at<S: Isa, F: Element>(&self, simd: S, pair: &Pair<S>) -> Seen<S> {
        let c = |v: f64| simd::splat::<S, f64>(simd, v);
        let Pair { p, q, u: [u, u_low], close, ruled_out } = *pair;
        let Apart { expm1, excess } = Apart::at::<F>(simd, [u, u_low]);
        let d = close.select(p * expm1[0], q - p);
        // Far apart nothing cancels; nor is there a product that overflows.
        let none = p.simd_eq(c(0.0));
        let far = none.select(q, d - p * u);
        let term = ruled_out.select(c(f64::INFINITY), close.select(p * excess, far));
        Seen { term, d, slopes: [none.select(c(0.0), -u), d] }
    }

    #[inline(always)]
    fn gradients<S: Isa>(
        &self,
        pair: &Pair<S>,
        seen: &Seen<S>,
        total: S::f64s,
        _: [S::f64s; 2],
    ) -> [S::f64s; 2] {
        [pair.p * (seen.slopes[0] - total), seen.d]
    }
}

/// Computes the divergence over an axis, and the gradients that `outputs` asks for.
///
/// # Errors
/// Where shapes, the base or the warp do not fit, before anything is written; and where
/// `interrupted` says so.
pub fn kl_divergence_with_logits(
    inputs: &Elements<'_>,
    base: Option<f64>,
    warp: &Warp<'_>,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    of_logits(inputs, KullbackLeibler, base, warp, outputs, interrupted)
}
