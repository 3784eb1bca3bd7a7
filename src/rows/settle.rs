//! The second movement: from the summaries of rows, their losses and the coefficients of their
//! gradients. A loss of the softmax family is an implementation of [`Settle`].

use super::summary::Summaries;
use crate::simd::exp::Shift;
use crate::simd::log1p::log1p;
use crate::simd::sum::{Wide, Wide64};
use crate::simd::{self, Element, Isa, dispatch};
use fearless_simd::prelude::*;
use std::ops::Range;

/// A class index that is none: the row has no target class.
pub(crate) const NO_CLASS: i64 = -1;
/// A class index that says: this row does not count.
pub(crate) const IGNORED: i64 = -2;

/// What a row brings besides its logits; a field an array.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    /// The target class, [`NO_CLASS`] or [`IGNORED`].
    pub(crate) target: Vec<i64>,
    /// The mass on the target class.
    pub(crate) hard: Vec<f64>,
    /// The upstream gradient of the row's loss.
    pub(crate) upstream: Vec<f64>,
    /// 1 where the row counts, 0 where it is ignored.
    pub(crate) live: Vec<f64>,
    /// The target's logit.
    pub(crate) picked: Vec<f64>,
}

impl Terms {
    pub(crate) fn resize(&mut self, rows: usize) {
        self.target.resize(rows, NO_CLASS);
        for field in [&mut self.hard, &mut self.upstream, &mut self.live, &mut self.picked] {
            field.resize(rows, 0.0);
        }
    }
}

/// The softmax of rows, as a loss sees it: lanes are rows, in `f64`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Softmax<S: Isa> {
    /// The largest logit.
    pub(crate) max: S::f64s,
    /// The sum of `exp(x)` over all classes but one at the maximum, in units.
    pub(crate) others: S::f64s,
    /// The same over the maximum's: the odds against it.
    pub(crate) odds: S::f64s,
    /// `log(1 + odds)`: log-sum-exp minus the maximum.
    pub(crate) log: S::f64s,
    /// The log-sum-exp, which infinite logits do not hinder.
    pub(crate) log_sum_exp: S::f64s,
    /// The sum of all `exp(x)`, in units.
    pub(crate) sum: S::f64s,
    /// The maximum where one class alone has it, else NaN, which equals nothing.
    pub(crate) unique: S::f64s,
    /// See [`super::summary::Summary`].
    pub(crate) dot: S::f64s,
    /// See [`super::summary::Summary`].
    pub(crate) mass: S::f64s,
    /// See [`super::summary::Summary`].
    pub(crate) mass_rest: S::f64s,
    /// See [`Terms`].
    pub(crate) hard: S::f64s,
    /// See [`Terms`].
    pub(crate) upstream: S::f64s,
    /// See [`Terms`].
    pub(crate) picked: S::f64s,
}

/// The coefficients of one output; what they mean is its [`super::emit::Map`]'s to say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coefficients<T> {
    pub(crate) a: T,
    pub(crate) b: T,
    /// The logit at which the output is `at_max` instead.
    pub(crate) max: T,
    pub(crate) at_max: T,
}

/// What a loss says of rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled<T> {
    pub(crate) loss: T,
    /// The target's exponential is replaced, for the gradient, by `keep` times itself plus `patch`.
    pub(crate) keep: T,
    /// See `keep`.
    pub(crate) patch: T,
    /// Of the gradient, or of the map that the call is for.
    pub(crate) first: Coefficients<T>,
    /// Of the Hessian's diagonal.
    pub(crate) second: Coefficients<T>,
}

/// A member of the softmax family.
pub(crate) trait Settle: Sync {
    /// What rows bring besides their logits. Fills `target`, `hard`, `upstream` and `live` from 0
    /// on.
    fn terms(&self, rows: Range<usize>, terms: &mut Terms);

    /// The loss of rows and the coefficients of its derivatives.
    fn settle<S: Isa>(&self, simd: S, row: &Softmax<S>) -> Settled<S::f64s>;
}

/// [`Settled`] of a group of rows, a field an array.
#[derive(Debug, Default)]
pub(crate) struct SettledRows {
    pub(crate) loss: Vec<f64>,
    pub(crate) keep: Vec<f64>,
    pub(crate) patch: Vec<f64>,
    /// `first` and `second`, in the order of [`Coefficients`]'s fields.
    pub(crate) coefficients: [[Vec<f64>; 4]; 2],
}

impl SettledRows {
    pub(crate) fn resize(&mut self, rows: usize) {
        for field in [&mut self.loss, &mut self.keep, &mut self.patch] {
            field.resize(rows, 0.0);
        }
        for field in self.coefficients.iter_mut().flatten() {
            field.resize(rows, 0.0);
        }
    }
}

/// How much of [`Settled`] is wanted: the rest is not even computed.
pub(crate) mod wanted {
    /// The losses alone.
    pub(crate) const LOSS: u8 = 0;
    /// The factor of a gradient, and what becomes of the target.
    pub(crate) const FACTOR: u8 = 1;
    /// Everything.
    pub(crate) const ALL: u8 = 2;
}

/// Settles the first `rows` rows; returns the sum of their losses. The loss of a row that is ignored
/// is 0.
pub(crate) fn settle_rows<F: Element, L: Settle>(
    loss: &L,
    summaries: &Summaries,
    terms: &Terms,
    rows: usize,
    wanted: u8,
    out: &mut SettledRows,
) -> f64 {
    #[inline(never)]
    fn kernel<const WANTED: u8, S: Isa, F: Element, L: Settle>(
        simd: S,
        loss: &L,
        summaries: &Summaries,
        terms: &Terms,
        rows: usize,
        out: &mut SettledRows,
    ) -> f64 {
        simd.vectorize(
            #[inline(always)]
            || {
                let zero = splat(simd, 0.0);
                let mut sum = Wide64::<S>::zero(simd);
                for at in (0..rows).step_by(simd::lanes::<S, f64>()) {
                    let row = softmax::<S, F>(simd, summaries, terms, at);
                    let mut settled = loss.settle(simd, &row);
                    let live = read(simd, &terms.live, at).simd_gt(zero);
                    settled.loss = live.select(settled.loss, zero);
                    // Beyond the last row are lanes that no row has.
                    let there = (at + simd::lanes::<S, f64>()).min(rows) - at;
                    sum.add(first::<S>(simd, settled.loss, there));
                    write::<WANTED, S>(&settled, at, out);
                }
                sum.total()
            },
        )
    }
    dispatch!(simd::level(), s => match wanted {
        wanted::LOSS => kernel::<{ wanted::LOSS }, _, F, L>(s, loss, summaries, terms, rows, out),
        wanted::FACTOR => kernel::<{ wanted::FACTOR }, _, F, L>(s, loss, summaries, terms, rows, out),
        _ => kernel::<{ wanted::ALL }, _, F, L>(s, loss, summaries, terms, rows, out),
    })
}

/// The first `n` lanes, and 0 in the others.
#[inline(always)]
fn first<S: Isa>(simd: S, v: S::f64s, n: usize) -> S::f64s {
    const STEPS: [f64; 16] =
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let keep = simd::load::<S, f64>(simd, &STEPS[8 - n..]).simd_gt(splat(simd, 0.0));
    keep.select(v, splat(simd, 0.0))
}

#[inline(always)]
fn read<S: Isa>(simd: S, from: &[f64], at: usize) -> S::f64s {
    simd::load::<S, f64>(simd, &from[at..])
}

#[inline(always)]
fn splat<S: Isa>(simd: S, v: f64) -> S::f64s {
    simd::splat::<S, f64>(simd, v)
}

/// Reads a vector of rows. The arrays are padded to whole vectors.
#[inline(always)]
fn softmax<S: Isa, F: Element>(simd: S, s: &Summaries, terms: &Terms, at: usize) -> Softmax<S> {
    let (max, center, ties) = (read(simd, &s.max, at), read(simd, &s.center, at), read(simd, &s.ties, at));
    // exp(max) in units; where the maximum is the center, the difference is 0, also between
    // infinities.
    let near = center.simd_eq(splat(simd, 0.0)).select(max, splat(simd, 0.0));
    let top = Shift::<S, f64>::new(simd, splat(simd, 0.0), read(simd, &s.k, at)).exp(simd, near);

    let rest = read(simd, &s.rest, at);
    let others = (ties - splat(simd, 1.0)).mul_add(top, rest);
    // One logit at +inf has all the mass; two, or none above -inf, have no softmax.
    let infinite = max.abs().simd_eq(splat(simd, f64::INFINITY));
    let alone = max.simd_gt(splat(simd, 0.0)) & ties.simd_eq(splat(simd, 1.0));
    let others = (!infinite | alone).select(others, splat(simd, f64::NAN));
    let odds = others / top;
    let log = log1p::<S, F>(simd, odds);
    Softmax {
        max,
        others,
        odds,
        log,
        log_sum_exp: infinite.select(max + rest, max + log),
        sum: top + others,
        unique: ties.simd_eq(splat(simd, 1.0)).select(max, splat(simd, f64::NAN)),
        dot: read(simd, &s.dot, at),
        mass: read(simd, &s.mass, at),
        mass_rest: read(simd, &s.mass_rest, at),
        hard: read(simd, &terms.hard, at),
        upstream: read(simd, &terms.upstream, at),
        picked: read(simd, &terms.picked, at),
    }
}

#[inline(always)]
fn write<const WANTED: u8, S: Isa>(s: &Settled<S::f64s>, at: usize, out: &mut SettledRows) {
    put::<S>(s.loss, at, &mut out.loss);
    if WANTED >= wanted::FACTOR {
        put::<S>(s.keep, at, &mut out.keep);
        put::<S>(s.patch, at, &mut out.patch);
        put::<S>(s.first.a, at, &mut out.coefficients[0][0]);
    }
    if WANTED == wanted::ALL {
        for (c, to) in [s.first, s.second].into_iter().zip(&mut out.coefficients) {
            let [a, b, max, at_max] = to;
            put::<S>(c.a, at, a);
            put::<S>(c.b, at, b);
            put::<S>(c.max, at, max);
            put::<S>(c.at_max, at, at_max);
        }
    }
}

#[inline(always)]
fn put<S: Isa>(v: S::f64s, at: usize, to: &mut [f64]) {
    simd::store::<S, f64>(v, &mut to[at..]);
}
