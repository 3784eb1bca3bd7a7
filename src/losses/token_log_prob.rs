//! What evaluations ask of a token: its log-probability and rank, the entropy of the distribution, its
//! normaliser and the log-probability of its most likely class, in one pass over the logits.
//!
//! With `m` the largest logit, `R = sum exp(x_c - m)` over all classes but one at the maximum, and
//! the mean gap `E = sum_c p_c (m - x_c)`,
//!
//! ```text
//! log p_y = (x_y - m) - log1p(R)            d log p_y / dx_i = [i = y] - p_i
//! H       = log1p(R) + E                    dH / dx_i        = p_i ((m - x_i) - E)
//! rank    = #{c : x_c > x_y}
//! log p_m = -log1p(R)
//! ```
//!
//! The gradient of `g log p_y + h H` is `p_i (h ((m - x_i) - E) - g)`, and `g` more at the target;
//! where that is the maximum, `g (1 - p_y) = g R / (1 + R)`.

use super::common::{Inputs, Targets, fill_upstream};
use super::entropy_with_logits::entropy_and_mean_gap;
use crate::error::{Error, Result};
use crate::float::Kind;
use crate::reduce::{Census, Reduce, Upstream};
use crate::rows::mass::Mass;
use crate::rows::settle::{Coefficients, Factors, Settle, Settled, Softmax, Terms};
use crate::rows::{Emission, Field, Job, ROWS};
use crate::simd::sum::two_sum;
use crate::simd::{self, Element, Isa};
use crate::view::{Rows, RowsMut, View, ViewMut, show_shape};
use crate::warp::Warp;
use fearless_simd::prelude::*;
use std::ops::Range;

/// An upstream gradient: a number, or an array shaped as the rows.
#[derive(Clone, Debug)]
pub enum Gradient<'a> {
    /// Of every row.
    Same(f64),
    /// One a row.
    PerRow(View<'a>),
}

/// The arguments.
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    /// Logits.
    pub input: View<'a>,
    /// Class indices, shaped as the input without its class axis.
    pub target: View<'a>,
    /// Which axis of the input holds the classes.
    pub axis: usize,
    /// What is done to the logits first.
    pub warp: Warp<'a>,
    /// The upstream gradients of the log-probability and of the entropy.
    pub grad_output: [Gradient<'a>; 2],
}

/// Where answers go: one of each a row, and the gradient, shaped as the input.
#[derive(Debug)]
pub struct Answers<'a> {
    /// The log-probability of the target.
    pub log_prob: ViewMut<'a>,
    /// The entropy.
    pub entropy: ViewMut<'a>,
    /// The log-sum-exp.
    pub logsumexp: ViewMut<'a>,
    /// How many classes are above the target; integers.
    pub rank: ViewMut<'a>,
    /// The log-probability of the most likely class, and how many classes have it; integers.
    pub top: Option<[ViewMut<'a>; 2]>,
    /// May be the input's memory.
    pub grad: Option<ViewMut<'a>>,
}

/// A row's [`Term`](crate::rows::settle::Term) holds the upstream gradient of the log-probability as
/// the mass on its target, and that of the entropy as the upstream gradient.
struct Token<'a> {
    targets: Targets<'a>,
    /// Of the log-probability and of the entropy, where there is a gradient.
    upstream: Option<[Upstream<'a>; 2]>,
}

impl Settle for Token<'_> {
    const HAS_MORE: bool = true;

    fn terms(&self, rows: Range<usize>, terms: &mut Terms) -> Census {
        let census = self.targets.fill(rows.clone(), terms);
        let Some([of_log_prob, of_entropy]) = &self.upstream else { return census };
        fill_upstream(of_log_prob, rows.clone(), 1.0, &mut terms.rows);
        let firsts: Vec<Field> = terms.rows.iter().map(|term| term.upstream).collect();
        fill_upstream(of_entropy, rows, 1.0, &mut terms.rows);
        for (term, first) in terms.rows.iter_mut().zip(firsts) {
            let second = term.upstream;
            let largest = |i: usize| first.0[i].abs().max(second.0[i].abs());
            term.set_upstream(Field(std::array::from_fn::<_, ROWS, _>(largest)));
            (term.hard, term.upstream) = (first, second);
        }
        census
    }

    #[inline(always)]
    fn settle<S: Isa>(&self, simd: S, row: &Softmax<S>) -> Settled<S::f64s> {
        let [zero, one] = [0.0, 1.0].map(
            #[inline(always)]
            |v| simd::splat::<S, f64>(simd, v),
        );
        let hits = row.picked.simd_eq(row.max);
        let [gap, gap_low] = two_sum(row.max, -row.picked);
        let gap = hits.select(zero, gap);
        let [total, total_low] = two_sum(gap, row.log);
        // An infinite gap has a NaN for what it lost.
        let low = gap.abs().simd_lt(simd::splat::<S, f64>(simd, f64::INFINITY));
        let low = low.select(total_low + hits.select(zero, gap_low), zero);
        let log_prob = zero - (total + low);

        let ([entropy, _], mean_gap) = entropy_and_mean_gap(simd, row);
        let (g, h) = (row.hard, row.upstream);
        let largest = g.abs().max(h.abs());
        let scale = largest.simd_gt(zero).select(largest, one);
        let all = one + row.odds;
        let first = Coefficients {
            a: scale / row.sum,
            b: mean_gap,
            c: h / scale,
            max: row.max,
            at_max: g / scale,
        };
        let at_top = g * row.others / row.sum - h * mean_gap / all;
        let factors = Factors {
            keep: hits.select(zero, one),
            patch: hits.select(at_top, g),
            first,
            second: first,
        };
        let top = zero - row.log;
        Settled {
            loss: log_prob,
            more: [entropy, row.log_sum_exp, row.above, top, row.ties],
            factors,
        }
    }
}

/// Answers everything about the targets of rows.
///
/// # Errors
/// Where shapes or class indices do not fit, before anything is written; and where `interrupted`
/// says so.
pub fn token_log_prob(
    tokens: &Tokens<'_>,
    answers: Answers<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<()> {
    if tokens.input.format().kind == Kind::F64 || !tokens.warp.is_exact() {
        compute::<f64>(tokens, answers, interrupted)
    } else {
        compute::<f32>(tokens, answers, interrupted)
    }
}

fn compute<'a, F: Element>(
    tokens: &Tokens<'a>,
    answers: Answers<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<()> {
    let Tokens { input, target, axis, warp, grad_output } = tokens;
    let axis = *axis;
    let inputs = Inputs {
        input: input.clone(),
        target: target.clone(),
        axis,
        weight: None,
        ignore_index: None,
        reduce: Reduce::default(),
    };
    inputs.check(false, &super::Outputs::default())?;
    let order = inputs.order();
    let warp = warp.of_rows(input.shape(), axis, &order)?;
    let rows_shape = target.shape();
    let upstream = |name: &str, given: &Gradient<'a>| match given {
        Gradient::Same(g) => Ok(Upstream::Same(*g)),
        Gradient::PerRow(g) if g.shape() == rows_shape => {
            Ok(Upstream::PerRow(inputs.column(g.clone(), &order)))
        }
        Gradient::PerRow(g) => Err(Error::Value(format!(
            "{name} must be a number or have target's shape {}, got {}",
            show_shape(rows_shape),
            show_shape(g.shape())
        ))),
    };
    let [g, h] = grad_output;
    let upstream = [upstream("grad_output[0]", g)?, upstream("grad_output[1]", h)?];
    let column = inputs.column(target.clone(), &order);
    inputs.counted(&inputs.census(&column, None, interrupted)?, &column, &order)?;
    let Answers { log_prob, entropy, logsumexp, rank, top, grad } = answers;
    let [top, ties] = top.map_or([None, None], |both| both.map(Some));
    let of_rows = |view| RowsMut::new(view, None, &order.without(axis));
    let in_place = grad.as_ref().is_some_and(|out| out.as_view().same_memory(input));
    Job::<F> {
        input: Rows::new(input.clone(), Some(axis), &order),
        warp,
        mass: Some(Mass::own(true)),
        least_upstream: upstream[0].least().min(upstream[1].least()),
        settle: &Token {
            targets: Targets {
                target: column,
                classes: input.shape()[axis],
                ignore_index: None,
                weight: None,
                sample: None,
                upstream: None,
                checked: true,
            },
            upstream: grad.is_some().then_some(upstream),
        },
        loss: Some(of_rows(log_prob)),
        more: [Some(entropy), Some(logsumexp), Some(rank), top, ties].map(|view| view.map(of_rows)),
        emission: Emission::Token,
        first: grad.map(|view| RowsMut::new(view, Some(axis), &order)),
        second: None,
        in_place,
    }
    .run(interrupted)?;
    Ok(())
}
