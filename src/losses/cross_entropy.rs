//! Cross-entropy between a target and the softmax of logits.
//!
//! A target puts a mass `q_c` on each class: `w_y` on class `y` alone, a soft target's
//! `w_c t_c`, or with label smoothing `(1 - eps)` of that and `eps / C` of `w_c` on every class.
//! With `M = sum q`, `m` the largest logit and `R = sum exp(x_c - m)` over all classes but one at
//! the maximum,
//!
//! ```text
//! loss       = sum_c q_c (lse - x_c)     = sum_c q_c (m - x_c) + M log1p(R)
//! d/dx_i     = M p_i - q_i,                p_i = exp(x_i - m) / (1 + R)
//! d^2/dx_i^2 = M p_i (1 - p_i)
//! ```
//!
//! where every term is nonnegative: nothing cancels in a loss. The gradient cancels where
//! `p_i M` meets `q_i`, needlessly in one place: at the maximum, where `p` may be 1 but for an ulp.
//! With `Q` the masses of the other classes,
//!
//! ```text
//! M p_m - q_m = (Q - q_m R) / (1 + R)
//! ```
//!
//! which for one target class is minus the sum of the others' gradients.
//!
//! The z-loss adds `z lse^2`, which pulls log-sum-exp towards 0 (Chowdhery et al., "PaLM", 2022). Its
//! derivative is `2 z lse p_i`: `M` becomes `M + 2 z lse` in front of `p`.

use super::common::{Inputs, Outputs, Targets, fill_upstream};
use crate::error::{Error, Result};
use crate::float::Kind;
use crate::memory;
use crate::reduce::{Census, Upstream};
use crate::rows::mass::Mass;
use crate::rows::settle::{Coefficients, Factors, IGNORED, MORE, Settle, Settled, Softmax, Terms};
use crate::rows::{Emission, Job};
use crate::simd::sum::two_sum;
use crate::simd::{self, Element, Isa};
use crate::view::{Rows, RowsMut, ViewMut};
use crate::warp::Warp;
use fearless_simd::prelude::*;
use std::ops::Range;

/// What rows bring: target classes, or soft targets' upstream gradients alone.
#[derive(Debug)]
enum Source<'a> {
    Hard(Targets<'a>),
    Soft { upstream: Upstream<'a>, denominator: f64, sample: Option<Rows<'a>> },
}

/// Where `EXACT`, what roundings take of a loss is put back: `f64`, unlike `f32`, whose losses are
/// settled in `f64`, has no room for them.
struct CrossEntropy<'a, const EXACT: bool> {
    source: Source<'a>,
    /// What a row's mass may be besides its target class's, where there are derivatives and classes have
    /// weights.
    besides: Option<f64>,
    /// What one unit of the kernels' mass is, in two parts: an even spread is kept in ones, exactly.
    unit: [f64; 2],
    /// Share of a row's mass that lies on its target class, in two parts.
    share: [f64; 2],
    z_loss: f64,
}

impl<const EXACT: bool> Settle for CrossEntropy<'_, EXACT> {
    fn terms(&self, rows: Range<usize>, terms: &mut Terms) -> Census {
        let census = match &self.source {
            Source::Hard(targets) => targets.fill(rows, terms),
            Source::Soft { upstream, denominator, sample } => {
                terms.without_targets();
                fill_upstream(upstream, rows.clone(), *denominator, &mut terms.rows);
                if let Some(sample) = sample {
                    terms.take_weights(sample, rows, IGNORED);
                    terms.weigh();
                }
                Census::default()
            }
        };
        if let Some(besides) = self.besides {
            terms.rows.iter_mut().for_each(|term| term.heed_masses(besides));
        }
        census
    }

    #[inline(always)]
    fn settle<S: Isa>(&self, simd: S, row: &Softmax<S>) -> Settled<S::f64s> {
        let zero = simd::splat::<S, f64>(simd, 0.0);
        let one = simd::splat::<S, f64>(simd, 1.0);
        let hits = row.picked.simd_eq(row.max);
        let unit = simd::splat::<S, f64>(simd, self.unit[0]);
        let hard = row.hard * simd::splat::<S, f64>(simd, self.share[0]);
        let unweighted = hard.simd_eq(zero);
        let (spread_top, spread_rest) = (row.mass_top * unit, row.mass_rest * unit);
        let spread = spread_top + spread_rest;

        // No mass on an infinite gap is nothing.
        let gap = (hits | unweighted).select(zero, row.max - row.picked);
        let mass = hard + spread;
        let loss = if EXACT {
            self.exact_loss(simd, row, gap)
        } else {
            hard.mul_add(gap, row.dot * unit) + mass * row.log
        };

        let all = one + row.odds;
        let mass_max = spread_top + hits.select(hard, zero);
        let mass_rest = spread_rest + hits.select(zero, hard);
        // Not by the odds, which may be subnormal where their product with the upstream is not.
        let mut at_max =
            row.upstream * mass_rest / all - row.upstream * mass_max / row.sum * row.others;
        // One target class alone: its exponential becomes minus the sum of the others.
        let others_alone = hits & spread.simd_eq(zero);
        let (mut loss, mut pull, mut more) = (loss, mass, zero);
        let (mut bent_pull, mut bend, mut more_at_max) = (pull, one, zero);
        if self.z_loss != 0.0 {
            let z = simd::splat::<S, f64>(simd, self.z_loss);
            let squared = z * row.log_sum_exp;
            loss = squared.mul_add(row.log_sum_exp, loss);
            more = squared + squared;
            // What is divided by must not vanish: below this it is lost in what it is a sum of.
            let lost = simd::splat::<S, f64>(simd, 2f64.powi(-60));
            let least = ((mass.abs() + more.abs()) * lost)
                .max(simd::splat::<S, f64>(simd, 2f64.powi(-1000)));
            let bent_least = (mass.abs() + (z + z).abs()) * lost;
            pull = mass + more;
            bent_pull = pull.abs().simd_lt(bent_least).select(bent_least, pull);
            pull = pull.abs().simd_lt(least).select(least, pull);
            at_max += row.upstream * more / all;
            bend = one - (z + z) / bent_pull;
            more_at_max = row.upstream * (z + z) / all / all;
        }
        let scale = row.upstream * pull / row.sum;
        let bent_scale = row.upstream * bent_pull / row.sum;
        // The gradient is pull p, less the mass at the target.
        let most = pull.abs().max(hard.abs()).max((pull - hard).abs());
        let share = unweighted.select(zero, hard / pull);
        let top = if self.z_loss == 0.0 {
            -row.others
        } else {
            more / pull * (row.sum / all) - share * row.others
        };
        let factors = Factors {
            keep: others_alone.select(zero, one),
            patch: others_alone.select(top, -(share * row.sum)),
            first: Coefficients {
                a: scale,
                b: -row.upstream * unit,
                c: row.upstream.abs() * most,
                max: row.unique,
                at_max,
            },
            second: Coefficients {
                a: bent_scale,
                b: bend / row.sum,
                c: zero,
                max: row.unique,
                at_max: bent_scale * row.others / all + more_at_max,
            },
        };
        Settled { loss, more: [zero; MORE], factors }
    }
}

impl<const EXACT: bool> CrossEntropy<'_, EXACT> {
    /// The loss, every product and sum with what its rounding took.
    #[inline(always)]
    fn exact_loss<S: Isa>(&self, simd: S, row: &Softmax<S>, gap: S::f64s) -> S::f64s {
        let zero = simd::splat::<S, f64>(simd, 0.0);
        let [unit, share] = [self.unit, self.share].map(
            #[inline(always)]
            |parts| {
                parts.map(
                    #[inline(always)]
                    |v| simd::splat::<S, f64>(simd, v),
                )
            },
        );
        let gap_low = gap.simd_eq(zero).select(zero, two_sum(row.max, -row.picked)[1]);
        let hard = times(simd, [row.hard, zero], share);
        let [tops, tops_low] = two_sum(row.mass_top, row.mass_rest);
        let spread = times(simd, [tops, tops_low], unit);
        let [mass, mass_low] = two_sum(hard[0], spread[0]);
        let parts = [
            times(simd, hard, [gap, gap_low]),
            times(simd, [row.dot, zero], unit),
            times(simd, [mass, mass_low + (hard[1] + spread[1])], [row.log, zero]),
        ];
        let [some, some_low] = two_sum(parts[0][0], parts[1][0]);
        let [all, all_low] = two_sum(some, parts[2][0]);
        let low = (some_low + all_low) + (parts[0][1] + parts[1][1] + parts[2][1]);
        // An infinite loss has a NaN for what it lost.
        all.abs().simd_lt(simd::splat::<S, f64>(simd, f64::INFINITY)).select(all + low, all)
    }
}

/// The product of two numbers, each in two parts.
#[inline(always)]
fn times<S: Isa>(simd: S, a: [S::f64s; 2], b: [S::f64s; 2]) -> [S::f64s; 2] {
    let [product, lost] = <f64 as Element>::times::<S>(simd, a[0], b[0]);
    [product, a[0].mul_add(b[1], a[1] * b[0]) + lost]
}

/// The options of cross-entropy alone.
#[derive(Clone, Debug, Default)]
pub struct Options<'a> {
    /// Share of the mass that is spread over all classes.
    pub label_smoothing: f64,
    /// What the square of log-sum-exp is added with.
    pub z_loss: f64,
    /// What is done to the logits first.
    pub warp: Warp<'a>,
}

/// Computes the cross-entropy, and what `outputs` asks for besides. Returns the reduced loss, or
/// the sum of the losses where they are not reduced.
///
/// # Errors
/// Where shapes, types or class indices do not fit, before anything is written; and where
/// `interrupted` says so.
pub fn cross_entropy(
    inputs: &Inputs<'_>,
    options: &Options<'_>,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    let wide = |kind: Kind| kind == Kind::F64;
    let soft = inputs.target.format().kind.is_float();
    // Masses that float32 cannot hold as they are, or but for one rounding, are for float64.
    let smoothed = options.label_smoothing > 0.0;
    // So are weights that leave its products no room.
    let modest = |w: f64| w == 0.0 || (2f64.powi(-60)..2f64.powi(60)).contains(&w.abs());
    let fits = |w: &f64| f64::from(*w as f32) == *w && modest(*w);
    let weights = || inputs.weight.iter().flatten().all(fits);
    let masses = match (soft, smoothed) {
        (true, true) => false,
        (true, false) => !wide(inputs.target.format().kind) && weights(),
        (false, true) => weights(),
        (false, false) => true,
    };
    let changed = options.z_loss != 0.0 || !options.warp.is_exact();
    if wide(inputs.input.format().kind) || !masses || changed {
        compute::<f64, true>(inputs, options, outputs, interrupted)
    } else {
        compute::<f32, false>(inputs, options, outputs, interrupted)
    }
}

fn compute<F: Element, const EXACT: bool>(
    inputs: &Inputs<'_>,
    options: &Options<'_>,
    outputs: Outputs<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<f64> {
    let soft = inputs.target.format().kind.is_float();
    let smoothing = options.label_smoothing;
    if !(0.0..=1.0).contains(&smoothing) {
        return Err(Error::Value(format!("label_smoothing must be in [0, 1], got {smoothing}")));
    }
    if let (true, Some(index @ 0..)) = (soft, inputs.ignore_index) {
        return Err(Error::Value(format!(
            "ignore_index must be negative where target holds probabilities, got {index}"
        )));
    }
    if !options.z_loss.is_finite() {
        return Err(Error::Value(format!("z_loss must be finite, got {}", options.z_loss)));
    }
    inputs.check(soft, &outputs)?;
    let shape = inputs.input.shape();
    let classes = shape[inputs.axis];
    let order = inputs.order();
    let warp = options.warp.of_rows(shape, inputs.axis, &order)?;
    let target = if soft {
        Rows::new(inputs.target.clone(), Some(inputs.axis), &order)
    } else {
        inputs.column(inputs.target.clone(), &order)
    };
    let (upstream, sample) = (inputs.upstream(&order), inputs.sample_weight(&order));
    // Quotient and difference in two parts.
    let count = classes.max(1) as f64;
    let even = smoothing / count;
    let even = [even, -even.mul_add(count, -smoothing) / count];
    let share = two_sum(1.0, -smoothing);
    let narrow = |w: &Vec<f64>| memory::caught(|| memory::collect(w.iter().map(|w| F::of(*w))));
    let weight = inputs.weight.as_ref().map(narrow).transpose()?;

    // Nothing is written over where only losses are wanted: targets may be checked as rows come.
    let checked = outputs.grad.is_some() || outputs.hess.is_some();
    let least_upstream = if checked { inputs.least_upstream(&upstream) } else { 1.0 };
    let besides = inputs.weight.as_ref().filter(|_| checked).map(|w| {
        let heaviest = w.iter().fold(0.0, |most: f64, w| most.max(w.abs()));
        (if soft { heaviest } else { smoothing * heaviest }).max(2.0 * options.z_loss.abs())
    });
    let late = (!soft && !checked).then(|| target.clone());
    let (source, mass, denominator) = if soft {
        let denominator =
            inputs.reduce.denominator(inputs.reduce.applied(target.rows(), interrupted)?);
        let mass = Mass {
            soft: Some(target),
            weight,
            share: share.map(F::of),
            base: even.map(F::of),
            own: false,
            ranked: false,
        };
        (Source::Soft { upstream, denominator, sample }, Some(mass), denominator)
    } else {
        let counted = if checked {
            let census = inputs.census(&target, sample.as_ref(), interrupted)?;
            inputs.counted(&census, &target, &order)?
        } else {
            1.0
        };
        let denominator = inputs.reduce.denominator(counted);
        let spread = Mass {
            soft: None,
            weight,
            share: [F::of(0.0); 2],
            base: [1.0, 0.0].map(F::of),
            own: false,
            ranked: false,
        };
        let targets = Targets {
            target,
            classes,
            ignore_index: inputs.ignore_index,
            weight: inputs.weight.as_deref().map(memory::copied).transpose()?,
            sample,
            upstream: checked.then_some((upstream, denominator)),
            checked,
        };
        (Source::Hard(targets), (smoothing > 0.0).then_some(spread), denominator)
    };

    let rows = |view| RowsMut::new(view, Some(inputs.axis), &order);
    let is_input = |out: &ViewMut<'_>| out.as_view().same_memory(&inputs.input);
    let in_place = [&outputs.grad, &outputs.hess].into_iter().flatten().any(is_input);
    let unit = if soft { [1.0, 0.0] } else { even };
    let settle = CrossEntropy::<EXACT> { source, besides, unit, share, z_loss: options.z_loss };
    let job = Job::<F> {
        input: Rows::new(inputs.input.clone(), Some(inputs.axis), &order),
        warp,
        mass,
        settle: &settle,
        loss: outputs.losses.map(|view| RowsMut::new(view, None, &order.without(inputs.axis))),
        more: Default::default(),
        emission: Emission::Gradient,
        first: outputs.grad.map(rows),
        second: outputs.hess.map(rows),
        in_place,
        least_upstream,
    };
    let (sum, census) = job.run(interrupted)?;
    let denominator = match late {
        Some(target) => inputs.reduce.denominator(inputs.counted(&census, &target, &order)?),
        None => denominator,
    };
    Ok(inputs.reduce.answer(sum, denominator))
}
