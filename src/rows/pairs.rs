//! Two rows at a time: divergences between the softmaxes of two arrays of logits.
//!
//! With `p = softmax(a)` and `q = softmax(b)`, what tells them apart is known without rounding them
//! first: `log(q_i / p_i) = u_i = (b_i - a_i) - K`, where `K` is the difference of log-sum-exps, and
//! `q_i - p_i = p_i expm1(u_i)`. An error of `K` moves all `u` alike. It shows as
//! `s = sum_i (q_i - p_i)`, which should be 0, and matters by `s^2`, a divergence being least where
//! masses agree: `K` becomes `K + log1p(s)` before the gradients, and only where `s^2` is not nothing
//! is the pass repeated.
//!
//! A divergence `D = sum_i t(p_i, q_i)` is an implementation of [`Divergence`]; its derivatives go
//! through the softmaxes by
//!
//! ```text
//! dD/da_i = p_i (dt/dp_i - sum_j p_j dt/dp_j),     dD/db_i = q_i (dt/dq_i - sum_j q_j dt/dq_j)
//! ```
//!
//! One kernel for both traversals: lanes are classes of a row, or rows of a tile.

use super::scratch::{Buffer, Raw};
use super::{ROWS, tile};
use crate::error::Result;
use crate::float::Kind;
use crate::memory;
use crate::pool::{self, Crew, Memory};
use crate::reduce::Upstream;
use crate::simd::exp::Shift;
use crate::simd::log1p::{log_with_odds, log1p};
use crate::simd::sum::{Wide, Wide64, two_sum};
use crate::simd::two::over;
use crate::simd::{self, Element, Isa, dispatch, load_wide, splat, store_wide};
use crate::view::{Rows, RowsMut, Span, Spans};
use crate::warp::{Derivatives, Warped};
use fearless_simd::prelude::*;
use std::ops::Range;

/// With fewer classes than these, lanes are rows.
const ALONG: usize = 32;
/// Rows of a tile, and its elements at the most: with more classes rows are copied one by one.
const TILE: usize = 3 * ROWS;
const LARGE: usize = 128 << 10;
/// Elements that a thread draws at a time.
const SPAN: usize = 32 << 10;
/// Elements from which threads pay.
const PARALLEL: usize = 32 << 10;
/// Vectors of a row after which it is asked whether anybody waits.
const PATIENT: usize = 128 << 10;
/// Times that `K` is mended at most: the first leaves what rounding leaves.
const TRIES: usize = 3;

/// Two masses of one class.
#[derive(Clone, Copy)]
pub(crate) struct Pair<S: Isa> {
    pub(crate) p: S::f64s,
    pub(crate) q: S::f64s,
    /// What the roundings of `p` and of `q` took, which only `F = f64` heeds.
    pub(crate) lows: [S::f64s; 2],
    /// `log(q / p)`, and what its rounding took; 0 where neither has any mass.
    pub(crate) u: [S::f64s; 2],
    /// Whether `u` is within [-2, 2], where [`Apart`](crate::simd::expm1::Apart) knows `exp(u) - 1`.
    pub(crate) close: <S::f64s as SimdBase<S>>::Mask,
    /// Whether `q` rules the class out, and `p` does not.
    pub(crate) ruled_out: <S::f64s as SimdBase<S>>::Mask,
}

/// What a divergence sees in a pair.
#[derive(Clone, Copy)]
pub(crate) struct Seen<S: Isa> {
    /// The term of the class, and what its roundings took, which only `F = f64` heeds.
    pub(crate) term: [S::f64s; 2],
    /// `q - p`, and what its rounding took, which only `F = f64` heeds.
    pub(crate) d: [S::f64s; 2],
    /// What of `q` does not follow as `u` moves in the term: 0 of a divergence that is least where
    /// masses agree, as it is computed.
    pub(crate) stiff: S::f64s,
    /// The derivatives of the term with respect to `p` and to `q`; 0 without a mass.
    pub(crate) slopes: [S::f64s; 2],
}

/// A divergence: a sum over classes.
pub(crate) trait Divergence: Sync {
    /// Whether the gradients need the means of slopes, that of the first under `p`, of the second under
    /// `q`: not where the divergence itself says enough.
    const MEANS: bool;

    /// Looks at a class; what is not used is not computed.
    fn at<S: Isa, F: Element>(&self, simd: S, pair: &Pair<S>) -> Seen<S>;

    /// The gradients with respect to the logits of `p` and of `q`, from the divergence and means.
    fn gradients<S: Isa>(
        &self,
        pair: &Pair<S>,
        seen: &Seen<S>,
        total: S::f64s,
        means: [S::f64s; 2],
    ) -> [S::f64s; 2];
}

/// A computation: two arrays seen as the same rows of the same classes, and where answers go.
pub(crate) struct Job<'a, D> {
    pub(crate) inputs: [Rows<'a>; 2],
    pub(crate) warp: Option<Warped<'a>>,
    pub(crate) divergence: D,
    /// How many nats the unit of the answer is, in two parts.
    pub(crate) unit: [f64; 2],
    pub(crate) upstream: Upstream<'a>,
    /// One value a row.
    pub(crate) losses: Option<RowsMut<'a>>,
    /// The gradients with respect to the inputs, shaped as they are; each may be its input's memory.
    pub(crate) grads: [Option<RowsMut<'a>>; 2],
}

/// What a thread works in.
#[derive(Default)]
struct Scratch<F: Element> {
    /// Logits, where they are staged.
    x: [Buffer<F>; 2],
    raw: [Raw<F>; 2],
    out: [Buffer<F>; 2],
    totals: Vec<f64>,
    upstream: Vec<f64>,
}

impl<F: Element> Memory for Scratch<F> {
    fn forget(&mut self) {
        self.totals.clear();
        self.upstream.clear();
    }
}

/// A block of logits: a row, or a tile with `step` rows a class.
#[derive(Clone, Copy)]
struct Block<'b, F> {
    x: [&'b [F]; 2],
    rows: usize,
    classes: usize,
    step: usize,
    stops: &'b dyn Fn() -> bool,
}

impl<D: Divergence> Job<'_, D> {
    /// Computes everything; returns the sum of the divergences.
    ///
    /// # Errors
    /// Where `interrupted` says so.
    pub(crate) fn run<F: Element>(mut self, interrupted: &dyn Fn() -> bool) -> Result<f64> {
        let (rows, classes) = (self.inputs[0].rows(), self.inputs[0].classes());
        let mut outputs = Vec::new();
        let mut place = |output: Option<_>| {
            output.map(|output| {
                outputs.push(output);
                outputs.len() - 1
            })
        };
        let losses = place(self.losses.take());
        let grads = std::mem::take(&mut self.grads).map(&mut place);
        let close = self.inputs[0].classes_are_close() || classes > LARGE / TILE;
        let along = classes >= ALONG && close;
        let height = if along { 1 } else { TILE };
        let step = (SPAN / classes.max(1)).max(1).next_multiple_of(height);
        let spans = Spans::new(rows, step, outputs);
        let sums = memory::places::<f64>(spans.count())?;
        let crew = Crew::of(rows * classes, PARALLEL);
        pool::run(&spans, crew, interrupted, |span, scratch: &mut Scratch<F>| {
            let all = span.rows();
            let mut sum = 0.0;
            for start in all.clone().step_by(height) {
                let rows = start..(start + height).min(all.end);
                self.block(span, rows, along, (losses, grads), scratch);
                sum += scratch.totals.iter().sum::<f64>();
            }
            sums[span.index()].set(sum).expect("a span is drawn once");
        })?;
        Ok(sums.iter().map(|sum| sum.get().expect("every span was drawn")).sum())
    }

    /// Numbers of nats in the unit of the answer.
    fn measure(&self, nats: &mut [f64]) {
        if self.unit != [1.0, 0.0] {
            nats.iter_mut().for_each(|v| *v = over(*v, self.unit));
        }
    }

    fn block<F: Element>(
        &self,
        span: &mut Span<'_>,
        rows: Range<usize>,
        along: bool,
        (losses, grads): (Option<usize>, [Option<usize>; 2]),
        s: &mut Scratch<F>,
    ) {
        let (n, classes) = (rows.len(), self.inputs[0].classes());
        let step = if along { classes } else { tile::step(n) };
        s.totals.clear();
        // Of no classes there is no softmax.
        memory::resize(
            &mut s.totals,
            n.next_multiple_of(ROWS),
            if classes == 0 { f64::NAN } else { 0.0 },
        );
        if classes == 0 {
            s.totals.truncate(n);
            if let Some(output) = losses {
                span.write_column(output, rows, &s.totals);
            }
            return;
        }
        s.upstream.clear();
        memory::resize(&mut s.upstream, n.next_multiple_of(ROWS), 0.0);
        match &self.upstream {
            Upstream::Same(g) => s.upstream.fill(*g),
            Upstream::PerRow(g) => g.stage_column(rows.clone(), &mut s.upstream[..n]),
        }
        self.measure(&mut s.upstream);
        let size = if along { classes } else { step * classes };
        for (out, grad) in s.out.iter_mut().zip(grads) {
            out.fit(if grad.is_some() { size } else { 0 });
        }
        let lent = |of: usize| {
            let lends = along && self.warp.is_none() && self.inputs[of].lends_rows::<F>();
            lends.then(|| self.inputs[of].row::<F>(rows.start, 0..classes))
        };
        let lent = [lent(0), lent(1)];
        for (of, input) in self.inputs.iter().enumerate().filter(|(of, _)| lent[*of].is_none()) {
            let Some(warp) = &self.warp else {
                copy(input, rows.clone(), along, &mut s.x[of]);
                continue;
            };
            s.raw[of].stage(warp, input, |from, to| copy(from, rows.clone(), along, to));
            s.raw[of].warped(warp, &mut s.x[of]);
        }
        let x = [0, 1].map(|of| lent[of].unwrap_or(&s.x[of]));
        let stops = || span.stops();
        let mut block = Block { x, rows: n, classes, step, stops: &stops };
        let [first, second] = &mut s.out;
        let mut run = |block: &Block<'_, F>, mended: bool| {
            let to = [&mut first[..], &mut second[..]];
            compute(&self.divergence, block, along, mended, &s.upstream, to, &mut s.totals)
        };
        if !run(&block, false) && !span.stops() {
            let mut copies = block.x.map(|x| memory::collect(x.iter().copied()));
            for copy in &mut copies {
                for row in 0..n {
                    let (at, step) = if along { (0, 1) } else { (row, step) };
                    mend_infinite(copy, (at, step, classes));
                }
            }
            block.x = [&copies[0], &copies[1]];
            run(&block, true);
        }
        if span.stops() {
            return;
        }
        s.totals.truncate(n);
        self.measure(&mut s.totals);
        if let Some(output) = losses {
            span.write_column(output, rows.clone(), &s.totals);
        }
        for (of, first) in s.out.iter_mut().enumerate().filter(|(of, _)| grads[*of].is_some()) {
            if let Some(warp) = &self.warp {
                s.raw[of].derive(warp, Derivatives { first, second: None });
            }
        }
        for (output, from) in grads.into_iter().zip(&s.out) {
            let Some(output) = output else { continue };
            if along {
                span.write(output, rows.clone(), 0..classes, 1, 1, from);
            } else {
                tile::write(from, span, output, rows.clone(), 0..classes);
            }
        }
    }
}

fn copy<F: Element>(from: &Rows<'_>, rows: Range<usize>, along: bool, to: &mut Buffer<F>) {
    let classes = 0..from.classes();
    if along {
        from.stage(rows, classes.clone(), 1, 1, to.fit(classes.len()));
    } else {
        let (n, step) = (rows.len(), tile::step(rows.len()));
        tile::stage(from, rows, classes, to);
        // Lanes beyond the rows are compared, too.
        for column in to.chunks_mut(step) {
            column[n..].fill(F::default());
        }
    }
}

/// A row whose maximum is infinite, as finite logits: one +inf has all the mass; two, or none above
/// -inf, have no softmax. Other rows stay.
fn mend_infinite<F: Element>(x: &mut [F], (at, step, classes): (usize, usize, usize)) {
    let places = || (0..classes).map(|class| at + class * step);
    let known = places().all(|i| !x[i].wide().is_nan());
    let max = places().fold(f64::NEG_INFINITY, |max, i| max.max(x[i].wide()));
    if known && max.is_finite() {
        return;
    }
    let tops = places().filter(|i| x[*i].wide() == max).count();
    let alone = known && max > 0.0 && tops == 1;
    for i in places() {
        let top = if alone { 0.0 } else { f64::NAN };
        x[i] = F::of(if alone && x[i].wide() != max { f64::NEG_INFINITY } else { top });
    }
}

/// Compares the rows of a block; false, and nothing, where a maximum is infinite and not `mended`.
fn compute<F: Element, D: Divergence>(
    divergence: &D,
    block: &Block<'_, F>,
    along: bool,
    mended: bool,
    upstream: &[f64],
    to: [&mut [F]; 2],
    totals: &mut [f64],
) -> bool {
    #[inline(never)]
    fn kernel<const ALONG: bool, S: Isa, F: Element, D: Divergence>(
        simd: S,
        divergence: &D,
        block: &Block<'_, F>,
        mended: bool,
        upstream: &[f64],
        to: [&mut [F]; 2],
        totals: &mut [f64],
    ) -> bool {
        simd.vectorize(
            #[inline(always)]
            || {
                let n = S::f64s::LEN;
                let [first, second] = to;
                let rows = if ALONG { n } else { block.rows };
                for at in (0..rows).step_by(n) {
                    let Some(softmaxes) = Softmaxes::<S, F>::of::<ALONG>(simd, block, at, mended)
                    else {
                        return false;
                    };
                    let derives = !(first.is_empty() && second.is_empty());
                    let (total, means, softmaxes) = if derives {
                        softmaxes.compare::<ALONG, true, D>(simd, divergence, block, at)
                    } else {
                        softmaxes.compare::<ALONG, false, D>(simd, divergence, block, at)
                    };
                    let mut lanes = [0.0; 8];
                    simd::store::<S, f64>(total, &mut lanes);
                    if ALONG {
                        totals[0] = lanes[0];
                    } else {
                        totals[at..at + n].copy_from_slice(&lanes[..n]);
                    }
                    if !derives {
                        continue;
                    }
                    let g = if ALONG {
                        splat::<S, f64>(simd, upstream[0])
                    } else {
                        simd::load::<S, f64>(simd, &upstream[at..])
                    };
                    for k in 0..block.vectors::<ALONG, S>() {
                        if block.stops_at(k) {
                            return true;
                        }
                        let pair = softmaxes.pair(simd, block.load::<ALONG, S>(simd, k, at));
                        let seen = divergence.at::<S, F>(simd, &pair);
                        let both = divergence.gradients(&pair, &seen, total, means);
                        for (grad, to) in both.into_iter().zip([&mut *first, &mut *second]) {
                            if !to.is_empty() {
                                block.store::<ALONG, S>(simd, grad * g, k, at, to);
                            }
                        }
                    }
                }
                true
            },
        )
    }
    dispatch!(simd::level(), s => if along {
        kernel::<true, _, F, D>(s, divergence, block, mended, upstream, to, totals)
    } else {
        kernel::<false, _, F, D>(s, divergence, block, mended, upstream, to, totals)
    })
}

impl<F: Element> Block<'_, F> {
    /// Vectors of a column of rows, or of the row.
    #[inline(always)]
    fn vectors<const ALONG: bool, S: Isa>(&self) -> usize {
        if ALONG { self.classes.div_ceil(S::f64s::LEN) } else { self.classes }
    }

    /// Whether nobody waits for the row any longer, asked at vector `k`.
    #[inline(always)]
    fn stops_at(&self, k: usize) -> bool {
        k % PATIENT == PATIENT - 1 && (self.stops)()
    }

    /// Vector `k` of both arrays' column of rows from `at` on.
    #[inline(always)]
    fn load<const ALONG: bool, S: Isa>(&self, simd: S, k: usize, at: usize) -> [S::f64s; 2] {
        let first = if ALONG { k * S::f64s::LEN } else { k * self.step + at };
        let none = f64::NEG_INFINITY;
        [load_wide(simd, &self.x[0][first..], none), load_wide(simd, &self.x[1][first..], none)]
    }

    /// The reverse of [`Self::load`].
    #[inline(always)]
    fn store<const ALONG: bool, S: Isa>(
        &self,
        simd: S,
        v: S::f64s,
        k: usize,
        at: usize,
        to: &mut [F],
    ) {
        let first = if ALONG { k * S::f64s::LEN } else { k * self.step + at };
        store_wide(simd, v, &mut to[first..]);
    }
}

/// Sums in the precision that `F` needs.
#[derive(Clone, Copy)]
struct Sums<S: Isa, F> {
    exact: Wide64<S>,
    plain: S::f64s,
    precision: std::marker::PhantomData<F>,
}

impl<S: Isa, F: Element> Sums<S, F> {
    #[inline(always)]
    fn zero(simd: S) -> Self {
        let plain = splat::<S, f64>(simd, 0.0);
        Self { exact: Wide64::zero(simd), plain, precision: std::marker::PhantomData }
    }

    #[inline(always)]
    fn add(&mut self, v: S::f64s) {
        if F::KIND == Kind::F64 {
            self.exact.add(v);
        } else {
            self.plain += v;
        }
    }

    /// The sum of each row, in its lane or, where lanes are classes, in all.
    #[inline(always)]
    fn total<const ALONG: bool>(self, simd: S) -> S::f64s {
        match (F::KIND == Kind::F64, ALONG) {
            (true, true) => splat::<S, f64>(simd, self.exact.total()),
            (true, false) => {
                let mut lanes = [0.0; 8];
                self.exact.store(&mut lanes);
                simd::load::<S, f64>(simd, &lanes)
            }
            (false, true) => splat::<S, f64>(simd, self.plain.reduce_sum()),
            (false, false) => self.plain,
        }
    }
}

/// The exponential, and for `F = f64` what its rounding took.
#[inline(always)]
fn exp_in_two<S: Isa, F: Element>(simd: S, shift: &Shift<S, f64>, x: S::f64s) -> [S::f64s; 2] {
    let constants = F::wide_exp_constants::<S>();
    if F::KIND == Kind::F32 {
        return [shift.exp_by::<true>(simd, constants, x), splat::<S, f64>(simd, 0.0)];
    }
    shift.exp_in_two(simd, constants, x - shift.center)
}

/// The sum of all exponentials as [`Softmaxes`] keeps it, and log-sum-exp less the maximum, from the sum of those
/// below it and how many are at it.
#[inline(always)]
fn with_top<S: Isa, F: Element>(
    simd: S,
    shift: &Shift<S, f64>,
    max: S::f64s,
    [below, ties]: [S::f64s; 2],
) -> ([S::f64s; 2], S::f64s) {
    let [top, top_low] = exp_in_two::<S, F>(simd, shift, max);
    let others = (ties - splat::<S, f64>(simd, 1.0)).mul_add(top, below);
    let log = log_with_odds::<S, f64>(simd, others, [top, top_low]);
    let [sum, low] = two_sum(top, others);
    if F::KIND == Kind::F32 {
        return ([splat::<S, f64>(simd, 1.0) / sum, low], log);
    }
    ([sum, ties.mul_add(top_low, low)], log)
}

/// The softmaxes of two rows in each lane, or of one pair of rows in all.
#[derive(Clone, Copy)]
struct Softmaxes<S: Isa, F> {
    shifts: [Shift<S, f64>; 2],
    /// The sums of exponentials, in two parts; of `F = f32` their inverses.
    sums: [[S::f64s; 2]; 2],
    /// The maxima of both rows.
    max: [S::f64s; 2],
    /// By how much more the second log-sum-exp is above its maximum than the first, in two parts.
    k: [S::f64s; 2],
    precision: std::marker::PhantomData<F>,
}

impl<S: Isa, F: Element> Softmaxes<S, F> {
    /// Two passes; `None` where a maximum is infinite and not `mended`, or nobody waits.
    #[inline(always)]
    fn of<const ALONG: bool>(
        simd: S,
        block: &Block<'_, F>,
        at: usize,
        mended: bool,
    ) -> Option<Self> {
        let c = |v: f64| splat::<S, f64>(simd, v);
        let mut max = [c(f64::NEG_INFINITY); 2];
        for k in 0..block.vectors::<ALONG, S>() {
            if block.stops_at(k) {
                return None;
            }
            let x = block.load::<ALONG, S>(simd, k, at);
            // In this order a NaN is passed over; the sums will find it.
            max = [x[0].max(max[0]), x[1].max(max[1])];
        }
        if ALONG {
            max = [c(max[0].reduce_max()), c(max[1].reduce_max())];
        }
        let infinite = |m: S::f64s| m.abs().simd_eq(c(f64::INFINITY)).any_true();
        if !mended && (infinite(max[0]) || infinite(max[1])) {
            return None;
        }
        let shifts = [
            Shift::<S, f64>::of_max(simd, max[0], c(0.0)).0,
            Shift::<S, f64>::of_max(simd, max[1], c(0.0)).0,
        ];
        // Without the maxima, as everywhere: a confident row's others would be lost in its sum.
        let mut others = [Sums::<S, F>::zero(simd); 2];
        let mut ties = [c(0.0); 2];
        for k in 0..block.vectors::<ALONG, S>() {
            if block.stops_at(k) {
                return None;
            }
            let x = block.load::<ALONG, S>(simd, k, at);
            for i in 0..2 {
                let [e, low] = exp_in_two::<S, F>(simd, &shifts[i], x[i]);
                let below = x[i].simd_ne(max[i]);
                others[i].add(below.select(e, c(0.0)));
                if F::KIND == Kind::F64 {
                    others[i].add(below.select(low, c(0.0)));
                }
                ties[i] += below.select(c(0.0), c(1.0));
            }
        }
        let total = |i: usize| {
            let ties = if ALONG { c(ties[i].reduce_sum()) } else { ties[i] };
            [others[i].total::<ALONG>(simd), ties]
        };
        let (sum_a, log_a) = with_top::<S, F>(simd, &shifts[0], max[0], total(0));
        let (sum_b, log_b) = with_top::<S, F>(simd, &shifts[1], max[1], total(1));
        let k = two_sum(log_b, -log_a);
        Some(Self { shifts, sums: [sum_a, sum_b], max, k, precision: std::marker::PhantomData })
    }

    /// The mass of a class with a logit of the first or second array, and for `F = f64` what its
    /// rounding took.
    #[inline(always)]
    fn mass(&self, simd: S, of: usize, x: S::f64s) -> [S::f64s; 2] {
        let [e, e_low] = exp_in_two::<S, F>(simd, &self.shifts[of], x);
        let [sum, sum_low] = self.sums[of];
        if F::KIND == Kind::F32 {
            return [e * sum, splat::<S, f64>(simd, 0.0)];
        }
        let p = e / sum;
        // What the division is short of.
        let product = p * sum;
        let left = (e - product) - simd::lost(simd, p, sum, product);
        two_sum(p, (left + (-p).mul_add(sum_low, e_low)) / sum)
    }

    /// What is known of classes with logits `a` and `b`.
    #[inline(always)]
    fn pair(&self, simd: S, [a, b]: [S::f64s; 2]) -> Pair<S> {
        let c = |v: f64| splat::<S, f64>(simd, v);
        let ([p, p_low], [q, q_low]) = (self.mass(simd, 0, a), self.mass(simd, 1, b));
        // Gaps to the maxima, which are 0 at the top: there u is the difference of logarithms alone.
        let [of_a, of_b] = [two_sum(a, -self.max[0]), two_sum(b, -self.max[1])];
        let far = of_b[0] - of_a[0];
        let [sum, sum_low] = if F::KIND == Kind::F64 {
            let far_low = two_sum(of_b[0], -of_a[0])[1] + (of_b[1] - of_a[1]);
            let [near, near_low] = two_sum(far, -self.k[0]);
            two_sum(near, near_low + (far_low - self.k[1]))
        } else {
            [(far - self.k[0]) - self.k[1], c(0.0)]
        };
        let finite = far.abs().simd_lt(c(f64::INFINITY));
        let none = c(f64::NEG_INFINITY);
        let neither = p.simd_eq(c(0.0)) & q.simd_eq(c(0.0));
        let u = neither.select(c(0.0), finite.select(sum, far));
        Pair {
            p,
            q,
            lows: [p_low, q_low],
            u: [u, (finite & !neither).select(sum_low, c(0.0))],
            close: u.abs().simd_le(c(2.0)),
            ruled_out: b.simd_eq(none) & a.simd_gt(none),
        }
    }

    /// The divergence and the means of its slopes, and the softmaxes, mended.
    #[inline(always)]
    fn compare<const ALONG: bool, const DERIVES: bool, D: Divergence>(
        mut self,
        simd: S,
        divergence: &D,
        block: &Block<'_, F>,
        at: usize,
    ) -> (S::f64s, [S::f64s; 2], Self) {
        let c = |v: f64| splat::<S, f64>(simd, v);
        let nothing = if F::KIND == Kind::F64 { 2f64.powi(-56) } else { 2f64.powi(-32) };
        let (mut divergences, mut all_means) = (c(0.0), [c(0.0); 2]);
        // Rows that are near enough stay as they are, whatever their neighbours need.
        let mut open = c(0.0).simd_eq(c(0.0));
        for again in 1..=TRIES {
            let mut total = Sums::<S, F>::zero(simd);
            let mut means = [total; 2];
            let (mut surplus, mut stiff) = (total, c(0.0));
            for k in 0..block.vectors::<ALONG, S>() {
                if block.stops_at(k) {
                    return (divergences, all_means, self);
                }
                let pair = self.pair(simd, block.load::<ALONG, S>(simd, k, at));
                let seen = divergence.at::<S, F>(simd, &pair);
                total.add(seen.term[0]);
                surplus.add(seen.d[0]);
                if F::KIND == Kind::F64 {
                    total.add(seen.term[1]);
                    surplus.add(seen.d[1]);
                    stiff += seen.stiff;
                }
                if DERIVES && D::MEANS {
                    means[0].add(pair.p * seen.slopes[0]);
                    means[1].add(pair.q * seen.slopes[1]);
                }
            }
            let total = total.total::<ALONG>(simd);
            for (all, mean) in all_means.iter_mut().zip(means) {
                *all = open.select(mean.total::<ALONG>(simd), *all);
            }
            let s = surplus.total::<ALONG>(simd);
            let known = open & s.abs().simd_lt(c(0.5));
            let step = known.select(log1p(simd, s, c(0.0)), c(0.0));
            let stiff = if ALONG { c(stiff.reduce_sum()) } else { stiff };
            divergences = open.select(step.mul_add(stiff, total), divergences);
            let [k, lost] = two_sum(self.k[0], step);
            self.k = [k, self.k[1] + lost];
            // Means are not least anywhere: they are taken once more.
            if !(DERIVES && D::MEANS && again == 1) {
                open = known & (s * s).simd_gt(total * c(nothing));
            }
            if !open.any_true() {
                break;
            }
        }
        (divergences, all_means, self)
    }
}
