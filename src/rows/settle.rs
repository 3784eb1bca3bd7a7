//! The second movement: from the summaries of rows, their losses and the coefficients of their
//! gradients. A loss of the softmax family is an implementation of [`Settle`].

use super::summary::{Field, ROWS, Summary};
use crate::float::Kind;
use crate::memory::resize;
use crate::pool::Memory;
use crate::reduce::{Census, stage_weights};
use crate::simd::exp::Shift;
use crate::simd::log1p::log_with_odds;
use crate::simd::sum::{Wide, Wide64, two_sum};
use crate::simd::{self, Element, Isa, V, dispatch};
use crate::view::Rows;
use fearless_simd::prelude::*;
use std::ops::Range;

/// A class index that is none: the row has no target class.
pub(crate) const NO_CLASS: i64 = -1;
/// A class index that says: this row does not count.
pub(crate) const IGNORED: i64 = -2;

/// What a row brings besides its logits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Term<T> {
    /// The mass on the target class.
    pub(crate) hard: T,
    /// The upstream gradient of the row's loss.
    pub(crate) upstream: T,
    /// The binary exponent of what exponentials are multiplied by: of the upstream gradient, times
    /// the row's mass where that is not about 1.
    pub(crate) exponent: T,
    /// The weight of the row's loss: 1 where it has none of its own, 0 where it is ignored.
    pub(crate) live: T,
    /// The target's logit.
    pub(crate) picked: T,
}

/// [`Term`]s of a group of rows, and their target classes.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    /// The target class, [`NO_CLASS`] or [`IGNORED`]; padded to whole [`ROWS`].
    pub(crate) target: Vec<i64>,
    pub(crate) rows: Vec<Term<Field>>,
    /// Weights of the rows' own, where they were taken; as many as targets.
    pub(crate) own: Vec<f64>,
}

/// How rows choose their headroom: exponentials are kept as `2^headroom` of themselves so that
/// neither they nor the factor of a gradient, upstream over their sum, become subnormal where their
/// product is not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room<F> {
    /// At an upstream gradient of 1.
    usual: F,
    least: F,
    most: F,
}

/// How far the maximum of a row may lie above a guess at it, in nats, for the guess to choose the
/// unit. Above, the exponentials stay finite, as [`GUESSED`] binades of the headroom are left to
/// them; below, the smallest loss and the smallest gradient that a float can hold are still there.
pub(crate) const NEAR: Range<f64> = -11.0..40.0;
const GUESSED: f64 = 24.0;
/// The largest exponent of an upstream gradient with which a guess may choose.
const MODEST: f64 = 16.0;

impl<F: Element> Room<F> {
    /// Without derivatives there is no upstream gradient to heed.
    pub(crate) fn new(derivatives: bool) -> Self {
        // Below 0 there is room for a sum of many classes, which a factor is divided by.
        let [least, usual, most] =
            if F::KIND == Kind::F32 { [-24.0, 64.0, 80.0] } else { [-64.0, 500.0, 900.0] };
        let (least, most) = if derivatives { (least, most) } else { (usual, usual) };
        Self { usual: F::of(usual), least: F::of(least), most: F::of(most) }
    }

    /// The least exponent of an upstream gradient that leaves the loss its smallest normal number:
    /// the headroom then holds [`GUESSED`] binades and what a guess may be too high by.
    pub(crate) fn least_exponent() -> f64 {
        (GUESSED - NEAR.start * std::f64::consts::LOG2_E).ceil() - Self::new(true).usual.wide()
    }

    /// The headroom for an upstream gradient's exponent.
    #[inline(always)]
    pub(crate) fn of<S: Isa>(&self, simd: S, exponent: V<F, S>) -> V<F, S> {
        let [usual, least, most] =
            [self.usual, self.least, self.most].map(|v| simd::splat::<S, F>(simd, v));
        (exponent + usual).max(least).min(most)
    }

    /// The headroom of a maximum that is guessed.
    #[inline(always)]
    pub(crate) fn of_guess<S: Isa>(&self, simd: S, exponent: V<F, S>) -> V<F, S> {
        self.of::<S>(simd, exponent) - simd::splat::<S, F>(simd, F::of(GUESSED))
    }

    /// The same for one row, where a guess may choose.
    pub(crate) fn of_one_guess(&self, exponent: f64) -> Option<F> {
        self.allows_guess(exponent).then(|| F::of(self.of_one(exponent).wide() - GUESSED))
    }

    /// The least rest, of those that a sweep found, that is sure to be all there is: below,
    /// exponentials too small for its unit, which are 0 there, may have been part of it.
    const WHOLE: f64 = match F::KIND {
        // 2^40 of the smallest normal numbers.
        Kind::F32 => f32::MIN_POSITIVE as f64 * 1_099_511_627_776.0,
        // A loss in f64 is 0 long before its exponentials are.
        _ => f64::NEG_INFINITY,
    };

    /// Whether a rest that a sweep found is all there is.
    #[inline(always)]
    pub(crate) fn is_whole(rest: f64) -> bool {
        rest >= Self::WHOLE || rest.is_nan()
    }

    /// Whether all are, of rows that count.
    #[inline(always)]
    pub(crate) fn are_whole<S: Isa>(simd: S, rest: S::f64s, live: S::f64s) -> bool {
        let whole = rest.simd_ge(splat(simd, Self::WHOLE)) | rest.simd_ne(rest);
        (whole | live.simd_eq(splat(simd, 0.0))).all_true()
    }

    /// Whether a guess may choose the unit.
    pub(crate) fn allows_guess(&self, exponent: f64) -> bool {
        exponent <= MODEST || self.least == self.most
    }

    /// The headroom of one row.
    pub(crate) fn of_one(&self, exponent: f64) -> F {
        F::of((exponent + self.usual.wide()).clamp(self.least.wide(), self.most.wide()))
    }
}

/// The binary exponent of a number. Of nothing, any is right: 0 is the one that suits the loss.
#[inline(always)]
fn exponent(of: f64) -> f64 {
    let exponent = if of == 0.0 { 0 } else { (of.abs().to_bits() >> 52) as i32 - 1023 };
    exponent.into()
}

impl Term<Field> {
    /// Sets the upstream gradients, and what comes of them.
    #[inline(always)]
    pub(crate) fn set_upstream(&mut self, upstream: Field) {
        self.upstream = upstream;
        self.exponent = Field(upstream.0.map(exponent));
    }

    /// Sets the exponents of upstream gradients times the masses of rows, of which a gradient is a
    /// share: those on their targets, or what they may be besides.
    pub(crate) fn heed_masses(&mut self, besides: f64) {
        let rows = self.exponent.0.iter_mut().zip(self.upstream.0).zip(self.hard.0);
        for ((of, upstream), hard) in rows {
            *of = exponent(upstream) + exponent(hard.abs().max(besides));
        }
    }
}

impl Memory for Terms {
    fn forget(&mut self) {
        self.target.clear();
        self.rows.clear();
        self.own.clear();
    }
}

impl Terms {
    /// Makes room for so many rows; those that fill the last group up have no class.
    pub(crate) fn begin(&mut self, rows: usize) {
        let groups = rows.div_ceil(ROWS);
        resize(&mut self.target, groups * ROWS, NO_CLASS);
        self.target[rows..].fill(NO_CLASS);
        resize(&mut self.rows, groups, Term::default());
    }

    /// Rows that count, without target classes.
    pub(crate) fn without_targets(&mut self) {
        self.target.fill(NO_CLASS);
        for term in &mut self.rows {
            (term.hard, term.live) = (Field([0.0; ROWS]), Field([1.0; ROWS]));
        }
    }

    /// Takes weights of the rows' own; where one is 0, the row's target becomes `ignored`.
    pub(crate) fn take_weights(&mut self, sample: &Rows<'_>, rows: Range<usize>, ignored: i64) {
        let n = rows.len();
        self.own.clear();
        resize(&mut self.own, self.target.len(), 0.0);
        stage_weights(sample, rows, &mut self.target[..n], ignored, &mut self.own[..n]);
    }

    /// Multiplies rows by the weights that were taken.
    pub(crate) fn weigh(&mut self) {
        for (own, term) in self.own.as_chunks::<ROWS>().0.iter().zip(&mut self.rows) {
            let weighted = |of: &Field| Field(std::array::from_fn(|i| of.0[i] * own[i]));
            term.live = weighted(&term.live);
            term.set_upstream(weighted(&term.upstream));
        }
    }

    /// Makes what fills the last group up count nothing.
    pub(crate) fn end(&mut self, rows: usize) {
        if let (Some(last), n @ 1..) = (self.rows.last_mut(), rows % ROWS) {
            last.live.0[n..].fill(0.0);
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
    /// What its rounding and that of the maximum's exponential took.
    pub(crate) sum_low: S::f64s,
    /// See [`super::summary::Summary`].
    pub(crate) ties: S::f64s,
    /// The maximum where one class alone has it, else NaN, which equals nothing; without masses it may
    /// be a maximum of several.
    pub(crate) unique: S::f64s,
    /// See [`super::summary::Summary`].
    pub(crate) dot: S::f64s,
    /// See [`super::summary::Summary`].
    pub(crate) mass_top: S::f64s,
    /// See [`super::summary::Summary`].
    pub(crate) mass_rest: S::f64s,
    /// See [`super::summary::Summary`].
    pub(crate) above: S::f64s,
    /// See [`Term`].
    pub(crate) hard: S::f64s,
    /// See [`Term`].
    pub(crate) upstream: S::f64s,
    /// See [`Term`].
    pub(crate) picked: S::f64s,
}

/// The coefficients of one output; what they mean is its [`super::emit::Map`]'s to say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Coefficients<T> {
    pub(crate) a: T,
    pub(crate) b: T,
    pub(crate) c: T,
    /// The largest logit.
    pub(crate) max: T,
    /// Of most maps, the output at the largest logit.
    pub(crate) at_max: T,
}

impl<T> Coefficients<T> {
    /// Each in another type.
    pub(crate) fn map<U>(self, f: impl Fn(T) -> U) -> Coefficients<U> {
        let Self { a, b, c, max, at_max } = self;
        Coefficients { a: f(a), b: f(b), c: f(c), max: f(max), at_max: f(at_max) }
    }
}

impl Coefficients<Field> {
    /// Those of one row.
    pub(crate) fn row(&self, i: usize) -> Coefficients<f64> {
        let Self { a, b, c, max, at_max } = self;
        Coefficients { a: a.0[i], b: b.0[i], c: c.0[i], max: max.0[i], at_max: at_max.0[i] }
    }
}

/// Numbers of a row that a member of the family may answer besides its loss.
pub(crate) const MORE: usize = 5;

/// What a loss says of rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled<T> {
    pub(crate) loss: T,
    /// Kept where the loss says so ([`Settle::HAS_MORE`]).
    pub(crate) more: [T; MORE],
    pub(crate) factors: Factors<T>,
}

/// What the third movement makes outputs with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Factors<T> {
    /// The target's exponential is replaced, for the gradient, by `keep` times itself plus `patch`;
    /// of [`super::Emission::Token`] the target's output is.
    pub(crate) keep: T,
    /// See `keep`.
    pub(crate) patch: T,
    /// Of the gradient, or of the map that the call is for.
    pub(crate) first: Coefficients<T>,
    /// Of the Hessian's diagonal.
    pub(crate) second: Coefficients<T>,
}

/// What the exponentials of a row are multiplied by where the factor of its gradient, in the kernel's
/// type, is too small for them: a soft target whose masses add up to next to nothing, which no headroom
/// knows of. Twice, where weights made that large: what the Hessian's exponentials are multiplied by is
/// small then, and must be, as it is divided by the same.
pub(crate) fn lowering<F: Element>(factor: f64, of_hessian: f64) -> f64 {
    const LEAST: f64 = f32::MIN_POSITIVE as f64;
    const STEP: f64 = 1.0 / (1u64 << 63) as f64;
    let is_low = |factor: f64| F::KIND == Kind::F32 && factor != 0.0 && factor.abs() < LEAST;
    if !is_low(factor) {
        1.0
    } else if is_low(factor / STEP) && of_hessian.abs() < 1.0 {
        STEP * STEP
    } else {
        STEP
    }
}

impl Factors<Field> {
    /// Those of a row whose exponentials are multiplied by [`lowering`].
    pub(crate) fn lower(&mut self, row: usize, by: f64) {
        self.patch.0[row] *= by;
        for c in [&mut self.first.a, &mut self.second.a, &mut self.second.b] {
            c.0[row] /= by;
        }
    }

    /// The output of a row's target class, from what it is without the target's part.
    pub(crate) fn patched<F: Element>(&self, row: usize, out: F) -> F {
        F::of(self.keep.0[row] * out.wide() + self.patch.0[row])
    }
}

/// A member of the softmax family.
pub(crate) trait Settle: Sync {
    /// Whether there is more to a row than its loss.
    const HAS_MORE: bool = false;

    /// What rows bring besides their logits: all but `picked`, which the engine fills. Says what it
    /// found among their targets, where nobody has looked before.
    fn terms(&self, rows: Range<usize>, terms: &mut Terms) -> Census;

    /// The loss of rows and the coefficients of its derivatives.
    fn settle<S: Isa>(&self, simd: S, row: &Softmax<S>) -> Settled<S::f64s>;
}

/// How much of [`Factors`] is wanted: the rest is not even computed.
pub(crate) mod wanted {
    /// The losses alone.
    pub(crate) const LOSS: u8 = 0;
    /// The factor of a gradient, its bound, and what becomes of the target.
    pub(crate) const FACTOR: u8 = 1;
    /// Everything.
    pub(crate) const ALL: u8 = 2;
}

/// A [`Settle`] as the engine sees it, which is compiled once for all of them.
pub(crate) trait Member<F: Element>: Sync {
    /// See [`Settle::terms`].
    fn terms(&self, rows: Range<usize>, terms: &mut Terms) -> Census;

    /// Settles `rows` rows: their losses, of which it returns the sum, and as much of the factors as
    /// is wanted. The loss of a row that is ignored is 0.
    fn settle_rows(
        &self,
        summaries: &[Summary<Field>],
        terms: &Terms,
        rows: usize,
        wanted: u8,
        losses: (&mut [Field], &mut [[Field; MORE]]),
        out: &mut [Factors<Field>],
    ) -> f64;
}

impl<F: Element, L: Settle> Member<F> for L {
    fn terms(&self, rows: Range<usize>, terms: &mut Terms) -> Census {
        Settle::terms(self, rows, terms)
    }

    fn settle_rows(
        &self,
        summaries: &[Summary<Field>],
        terms: &Terms,
        rows: usize,
        wanted: u8,
        losses: (&mut [Field], &mut [[Field; MORE]]),
        out: &mut [Factors<Field>],
    ) -> f64 {
        settle_rows::<F, L>(self, summaries, terms, rows, wanted, losses, out)
    }
}

fn settle_rows<F: Element, L: Settle>(
    loss: &L,
    summaries: &[Summary<Field>],
    terms: &Terms,
    rows: usize,
    wanted: u8,
    (losses, more): (&mut [Field], &mut [[Field; MORE]]),
    out: &mut [Factors<Field>],
) -> f64 {
    #[inline(never)]
    fn kernel<const WANTED: u8, S: Isa, F: Element, L: Settle>(
        simd: S,
        loss: &L,
        (summaries, terms): (&[Summary<Field>], &[Term<Field>]),
        (losses, more, out): (&mut [Field], &mut [[Field; MORE]], &mut [Factors<Field>]),
    ) -> f64 {
        simd.vectorize(
            #[inline(always)]
            || {
                let zero = splat(simd, 0.0);
                let mut sum = Wide64::<S>::zero(simd);
                let mut plain = zero;
                let rows = summaries.iter().zip(terms).zip(losses.iter_mut().zip(out));
                for (i, ((summary, term), (loss_out, out))) in rows.enumerate() {
                    for at in (0..ROWS).step_by(simd::lanes::<S, f64>()) {
                        let row = softmax::<S, F>(simd, summary, term, at);
                        let mut settled = loss.settle(simd, &row);
                        let weight = read(simd, &term.live, at);
                        settled.loss = weight.simd_eq(zero).select(zero, settled.loss * weight);
                        if F::KIND == Kind::F64 {
                            sum.add(settled.loss);
                        } else {
                            plain += settled.loss;
                        }
                        put::<S>(settled.loss, at, loss_out);
                        if L::HAS_MORE {
                            for (v, to) in settled.more.into_iter().zip(&mut more[i]) {
                                put::<S>(v, at, to);
                            }
                        }
                        write::<WANTED, S>(&settled.factors, at, out);
                    }
                }
                sum.total() + plain.reduce_sum()
            },
        )
    }
    let groups = rows.div_ceil(ROWS);
    let from = (&summaries[..groups], &terms.rows[..groups]);
    let to = (&mut losses[..groups], more, &mut out[..groups]);
    dispatch!(simd::level(), s => match wanted {
        wanted::LOSS => kernel::<{ wanted::LOSS }, _, F, L>(s, loss, from, to),
        wanted::FACTOR => kernel::<{ wanted::FACTOR }, _, F, L>(s, loss, from, to),
        _ => kernel::<{ wanted::ALL }, _, F, L>(s, loss, from, to),
    })
}

#[inline(always)]
fn read<S: Isa>(simd: S, from: &Field, at: usize) -> S::f64s {
    simd::load::<S, f64>(simd, &from.0[at..])
}

#[inline(always)]
fn splat<S: Isa>(simd: S, v: f64) -> S::f64s {
    simd::splat::<S, f64>(simd, v)
}

/// Reads a vector of rows.
#[inline(always)]
fn softmax<S: Isa, F: Element>(
    simd: S,
    s: &Summary<Field>,
    term: &Term<Field>,
    at: usize,
) -> Softmax<S> {
    let (max, center, ties) =
        (read(simd, &s.max, at), read(simd, &s.center, at), read(simd, &s.ties, at));
    // exp(max) in units; where the maximum is the center, the difference is 0, also between
    // infinities.
    let near = center.simd_eq(splat(simd, 0.0)).select(max, splat(simd, 0.0));
    let shift = Shift::<S, f64>::new(simd, splat(simd, 0.0), read(simd, &s.k, at));
    let [top, low] = shift.exp_in_two(simd, F::wide_exp_constants::<S>(), near);

    let rest = read(simd, &s.rest, at);
    let mut others = (ties - splat(simd, 1.0)).mul_add(top, rest);
    let infinite = max.abs().simd_eq(splat(simd, f64::INFINITY));
    if infinite.any_true() {
        // One logit at +inf has all the mass; two, or none above -inf, have no softmax.
        let alone = max.simd_gt(splat(simd, 0.0)) & ties.simd_eq(splat(simd, 1.0));
        others = (!infinite | alone).select(others, splat(simd, f64::NAN));
    }
    let log = log_with_odds::<S, F>(simd, others, [top, low]);
    let [sum, sum_low] = two_sum(top, others);
    Softmax {
        max,
        others,
        odds: others / top,
        log,
        log_sum_exp: infinite.select(max + rest, max + log),
        sum,
        sum_low: sum_low + low,
        ties,
        unique: ties.simd_eq(splat(simd, 1.0)).select(max, splat(simd, f64::NAN)),
        dot: read(simd, &s.dot, at),
        mass_top: read(simd, &s.mass_top, at),
        mass_rest: read(simd, &s.mass_rest, at),
        above: read(simd, &s.above, at),
        hard: read(simd, &term.hard, at),
        upstream: read(simd, &term.upstream, at),
        picked: read(simd, &term.picked, at),
    }
}

#[inline(always)]
fn write<const WANTED: u8, S: Isa>(s: &Factors<S::f64s>, at: usize, out: &mut Factors<Field>) {
    if WANTED >= wanted::FACTOR {
        put::<S>(s.keep, at, &mut out.keep);
        put::<S>(s.patch, at, &mut out.patch);
        put::<S>(s.first.a, at, &mut out.first.a);
        put::<S>(s.first.c, at, &mut out.first.c);
    }
    if WANTED == wanted::ALL {
        for (c, to) in [(s.first, &mut out.first), (s.second, &mut out.second)] {
            put::<S>(c.a, at, &mut to.a);
            put::<S>(c.b, at, &mut to.b);
            put::<S>(c.c, at, &mut to.c);
            put::<S>(c.max, at, &mut to.max);
            put::<S>(c.at_max, at, &mut to.at_max);
        }
    }
}

#[inline(always)]
fn put<S: Isa>(v: S::f64s, at: usize, to: &mut Field) {
    simd::store::<S, f64>(v, &mut to.0[at..]);
}
