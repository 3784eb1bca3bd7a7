//! The Jensen-Shannon divergence: how far two distributions are from their mean.
//!
//! ```text
//! JS(p, q) = (KL(p, m) + KL(q, m)) / 2,     m = (p + q) / 2
//! d/dp_i   = log(p_i / m_i) / 2,            d/dq_i = log(q_i / m_i) / 2
//! ```
//!
//! A term of the divergence is homogeneous: `KL(p, m) = KL(2p, p + q) / 2`, whose arguments are
//! exact but for one rounding that is known.

use super::common::Outputs;
use super::elements::Elements;
use super::unit;
use crate::error::Result;
use crate::pointwise::{Domain, Jet, Point, Pointwise};
use crate::simd::apart::apart;
use crate::simd::sum::two_sum;
use crate::simd::{self, Element, Isa};
use fearless_simd::prelude::*;

#[derive(Clone, Copy, Debug)]
struct JensenShannon;

impl Pointwise for JensenShannon {
    const DOMAIN: Domain = Domain::NotNegative;

    #[inline(always)]
    fn at<S: Isa, F: Element>(&self, simd: S, point: &Point<S>) -> Jet<S> {
        let (p, q) = (point.x, point.t);
        let [d, low] = two_sum(q, -p);
        let jet = compare::<S, F>(simd, [p, q], two_sum(p, q), [[d, low], [-d, -low]]);
        let value = jet.value + jet.lost;
        Jet { value, lost: (jet.value - value) + jet.lost, ..jet }
    }
}

/// The term and its derivatives for masses `p` and `q`, of which the sum and how far it is from `2p`
/// and from `2q` are known in two parts. What roundings took from the term is not put back.
#[inline(always)]
pub(super) fn compare<S: Isa, F: Element>(
    simd: S,
    [p, q]: [S::f64s; 2],
    sum: [S::f64s; 2],
    [from_p, from_q]: [[S::f64s; 2]; 2],
) -> Jet<S> {
    let c = |v: f64| simd::splat::<S, f64>(simd, v);
    let of_p = apart::<S, F>(simd, p + p, sum, from_p);
    let of_q = apart::<S, F>(simd, q + q, sum, from_q);
    let [sum, low] = two_sum(of_p.term, of_q.term);
    // An infinite sum has a NaN for what it lost.
    let low = low.simd_eq(low).select(low + (of_p.lost + of_q.lost), c(0.0));
    Jet {
        value: c(0.25) * sum,
        lost: c(0.25) * low,
        first: c(-0.5) * of_p.log + c(0.0),
        second: c(-0.5) * of_q.log + c(0.0),
    }
}

/// Computes the divergence over an axis, and the gradients that `outputs` asks for.
///
/// # Errors
/// Where shapes or the base do not fit, before anything is written; where an input is negative; and
/// where `interrupted` says so.
pub fn js_divergence(
    inputs: &Elements<'_>,
    base: Option<f64>,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    unit::run(inputs, JensenShannon, base, outputs, interrupted)
}
