//! The sigmoid family's engine: each element gives a number, and derivatives, of its own.
//!
//! A loss of the family is an implementation of [`Pointwise`]: value and derivatives at a vector of
//! elements, in `f64` lanes whatever the type of the arrays, so that a result of `f32` is rounded
//! once. What a loss can do as well in `f32` lanes, which are twice as many, it does there: the usual
//! elements, and no others. Which way an element goes depends on it alone, not on its neighbours.
//!
//! Elements are seen as rows of classes: a row's numbers are added up where the loss is one a row,
//! and where it is not each row has one class. A [`Tile`] of them at a time is lent or staged,
//! computed, and written.

use crate::error::Result;
use crate::float::Kind;
use crate::memory::{self, resize};
use crate::pool::{self, Crew, Memory};
use crate::reduce::Upstream;
use crate::simd::sum::{Compensated, Wide, Wide64, two_sum};
use crate::simd::{self, Element, Isa, Mask32, dispatch, splat};
use crate::view::{Rows, RowsMut, Span, Spans};
use fearless_simd::prelude::*;
use std::ops::Range;

/// Bytes of an array that a tile takes: what is computed and looked at again fits the first-level cache,
/// and what calls cost by the tile is little.
const TILE: usize = 16 << 10;
/// Elements that a thread draws at a time.
const SPAN: usize = 64 << 10;
/// Rows that a thread draws at the least, where neighbours in memory are rows.
const LINE: usize = 256;
/// Tiles of a row after which it is asked whether anybody waits.
const PATIENT: usize = 64;
/// Elements from which on a call is shared between threads.
const PARALLEL: usize = 64 << 10;
/// Elements whose use of `f32` lanes is decided together: a line of the cache.
const BLOCK: usize = 16;
/// Chunks of usual elements in a row from which on they are taken by a loop of their own.
const RUN: usize = 2;
/// A sum of so few losses is made of exact ones: a float32 loss is within 2 ulp, but where one outweighs
/// the others and a mean is next to the power of two above it, its error is twice as many ulp. Of more,
/// errors average out.
const FEW: usize = 64;
/// By how many elements inputs are asked for before they are used: arithmetic hides the time that
/// memory takes only where what comes next is on its way, also beyond the end of a page.
const AHEAD: usize = 1024;

/// What an element brings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point<S: Isa> {
    pub(crate) x: S::f64s,
    /// The target; 0 where there is none.
    pub(crate) t: S::f64s,
    /// The weight of the target.
    pub(crate) positive: S::f64s,
}

/// A loss and its derivatives with respect to `x`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Jet<S: Isa> {
    pub(crate) value: S::f64s,
    /// What the value's rounding took, where it is known, of `F = f64`: a unit in which it is measured
    /// would round it again.
    pub(crate) lost: S::f64s,
    pub(crate) first: S::f64s,
    /// The second derivative; of a divergence, which has two arguments, the derivative with respect
    /// to `t`.
    pub(crate) second: S::f64s,
}

/// A loss and its derivatives in `f32` lanes.
#[derive(Clone, Copy)]
pub(crate) struct Narrow<S: Isa> {
    pub(crate) value: S::f32s,
    pub(crate) first: S::f32s,
    /// What [`Jet::second`] is, where the loss has it in `f32` lanes.
    pub(crate) second: Option<S::f32s>,
    /// Where they are what they should be; all of it is inside of where the loss is defined.
    pub(crate) holds: Mask32<S>,
}

/// An argument of a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Argument {
    X,
    T,
}

/// Where a loss is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Domain {
    Everywhere,
    /// `x` in [0, 1].
    Unit,
    /// Neither `x` nor `t` below 0.
    NotNegative,
}

impl Domain {
    /// In words.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Everywhere => "a number",
            Self::Unit => "in [0, 1]",
            Self::NotNegative => "not below 0",
        }
    }

    /// By how much an element is outside: not above 0 within.
    #[inline(always)]
    fn excess<S: Isa>(self, simd: S, p: &Point<S>) -> S::f64s {
        match self {
            Self::Everywhere => splat::<S, f64>(simd, 0.0),
            Self::Unit => (p.x - splat::<S, f64>(simd, 1.0)).max(-p.x),
            Self::NotNegative => (-p.t).max(-p.x),
        }
    }

    /// Whether there are elements outside, whether they count or not.
    fn has_outside<F: Element>(self, x: &[F], t: Option<&[F]>) -> bool {
        /// Whether one is below 0 or above `most`.
        #[inline(never)]
        fn kernel<S: Isa, F: Element>(simd: S, of: &[F], most: f64) -> bool {
            simd.vectorize(
                #[inline(always)]
                || {
                    let [zero, most] = [0.0, most].map(
                        #[inline(always)]
                        |v| splat::<S, F>(simd, F::of(v)),
                    );
                    let mut excess = zero;
                    let mut whole = of.chunks_exact(simd::lanes::<S, F>());
                    for v in &mut whole {
                        simd.prefetch(v, AHEAD);
                        let v = simd::load::<S, F>(simd, v);
                        // In this order a NaN is passed over.
                        excess = (v - most).max(-v).max(excess);
                    }
                    let rest = F::load_partial(simd, whole.remainder(), F::default());
                    excess = (rest - most).max(-rest).max(excess);
                    excess.simd_gt(zero).any_true()
                },
            )
        }
        let is_beyond =
            |of: &[F], most: f64| dispatch!(simd::level(), s => kernel::<_, F>(s, of, most));
        match self {
            Self::Everywhere => false,
            Self::Unit => is_beyond(x, 1.0),
            Self::NotNegative => {
                is_beyond(x, f64::INFINITY) || t.is_some_and(|t| is_beyond(t, f64::INFINITY))
            }
        }
    }

    /// The first element outside among those that count, if there is one: its row, its class, and which
    /// argument.
    ///
    /// # Errors
    /// Where `interrupted` says so.
    pub(crate) fn look_for_outside<F: Element>(
        self,
        input: &Rows<'_>,
        target: Option<&Rows<'_>>,
        sample: Option<&Rows<'_>>,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<(usize, usize, Argument)>> {
        let target = target.filter(|_| self == Self::NotNegative);
        let (rows, classes) = (input.rows(), input.classes());
        let across = goes_across(input);
        // Nothing is computed that would have to stay in the caches.
        let (height, width) = tile_shape(SPAN, classes, across);
        let spans = Spans::new(rows, (SPAN / classes.max(1)).max(height), Vec::new());
        let found = memory::places(spans.count())?;
        let crew = Crew::of(rows * classes, PARALLEL);
        type Buffers<F> = ((Vec<F>, Vec<F>), Vec<F>);
        pool::run(&spans, crew, interrupted, |span, s: &mut Buffers<F>| {
            let ((x, t), own) = s;
            let all = span.rows();
            for start in all.clone().step_by(height) {
                let rows = start..(start + height).min(all.end);
                for first in (0..classes).step_by(width) {
                    let classes = first..(first + width).min(classes);
                    let tile = Tile { rows: rows.clone(), classes, across };
                    let x = tile.lend_or_stage(input, x, false);
                    let t = target.map(|target| tile.lend_or_stage(target, t, false));
                    if !self.has_outside(x, t) {
                        continue;
                    }
                    let own = sample.map(|sample| tile.lend_or_stage(sample, own, false));
                    if let Some(outside) = tile.first_outside(self, x, t, own) {
                        found[span.index()].set(outside).expect("a span is drawn once");
                        return;
                    }
                }
            }
        })?;
        Ok(found.iter().find_map(|found| found.get().copied()))
    }

    /// Which argument is outside, if one is; a NaN is not.
    fn outside(self, x: f64, t: f64) -> Option<Argument> {
        match self {
            Self::Unit if !(0.0..=1.0).contains(&x) && !x.is_nan() => Some(Argument::X),
            Self::NotNegative if x < 0.0 => Some(Argument::X),
            Self::NotNegative if t < 0.0 => Some(Argument::T),
            _ => None,
        }
    }
}

/// A member of the sigmoid family.
pub(crate) trait Pointwise: Copy + Sync {
    /// Where it is defined; elsewhere a call is refused.
    const DOMAIN: Domain = Domain::Everywhere;
    /// The most that calls ask for: there are no kernels for more.
    const MOST: u8 = wanted::SECOND;

    /// The loss and its derivatives, in the precision that `F` needs. What a caller does not want
    /// is not computed, as all of it is inlined.
    fn at<S: Isa, F: Element>(&self, simd: S, p: &Point<S>) -> Jet<S>;

    /// The loss and its derivative of `f32` elements in lanes of `f32`, for losses that have such a
    /// form, which their options decide: of elements without a weight of the positive part, in fused
    /// arithmetic.
    #[inline(always)]
    fn narrow<S: Isa>(&self, _simd: S, _x: S::f32s, _t: S::f32s) -> Option<Narrow<S>> {
        None
    }
}

/// How much of a [`Jet`] is wanted.
pub(crate) mod wanted {
    /// The value alone. What has no more than that has no weights either.
    pub(crate) const VALUE: u8 = 0;
    pub(crate) const FIRST: u8 = 1;
    pub(crate) const SECOND: u8 = 2;
}

/// A computation: arrays seen as the same rows of the same classes, and where answers go.
pub(crate) struct Job<'a, L> {
    pub(crate) input: Rows<'a>,
    pub(crate) target: Option<Rows<'a>>,
    pub(crate) weight: Option<Rows<'a>>,
    pub(crate) positive: Option<Rows<'a>>,
    /// Where it is 0, an element counts nothing, whatever it is.
    pub(crate) sample: Option<Rows<'a>>,
    /// The upstream gradient, and what it is divided by.
    pub(crate) upstream: (Upstream<'a>, f64),
    pub(crate) loss: L,
    /// The losses: one a row.
    pub(crate) losses: Option<RowsMut<'a>>,
    pub(crate) grad: Option<RowsMut<'a>>,
    /// What [`Jet::second`] is.
    pub(crate) second: Option<RowsMut<'a>>,
    /// What the losses of rows are divided by.
    pub(crate) share: f64,
    /// Whether an output is the memory of the input or of the target.
    pub(crate) in_place: bool,
}

/// The sum of all losses, and the first element outside of where the loss is defined: its row, its
/// class, and which argument.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    pub(crate) sum: Compensated,
    pub(crate) outside: Option<(usize, usize, Argument)>,
}

/// Rows and classes that are computed together: side by side in memory they are rows where
/// `across`, else classes.
#[derive(Clone, Debug)]
struct Tile {
    rows: Range<usize>,
    classes: Range<usize>,
    across: bool,
}

impl Tile {
    fn len(&self) -> usize {
        self.rows.len() * self.classes.len()
    }

    /// How far apart rows and classes are, in elements.
    fn steps(&self) -> (usize, usize) {
        if self.across { (1, self.rows.len()) } else { (self.classes.len(), 1) }
    }

    /// An array's elements where they lie, if in this order and without gaps.
    fn lend<'a, F: Element>(&self, from: &Rows<'a>) -> Option<&'a [F]> {
        let (rows, classes) = (self.rows.clone(), self.classes.clone());
        if classes.len() == 1 {
            from.lends_columns::<F>(&rows).then(|| from.lines_of_rows(rows, classes).line(0))
        } else if rows.len() == 1 {
            from.lends_rows::<F>().then(|| from.row(rows.start, classes))
        } else if self.across {
            None
        } else {
            from.lends_block::<F>(&rows).then(|| from.lines_of_classes(rows, classes).dense())?
        }
    }

    /// The first of its elements outside of a domain, but for those of weight 0: its row, its class, and
    /// which argument.
    fn first_outside<F: Element>(
        &self,
        domain: Domain,
        x: &[F],
        t: Option<&[F]>,
        sample: Option<&[F]>,
    ) -> Option<(usize, usize, Argument)> {
        let (row_step, class_step) = self.steps();
        let all = (0..self.rows.len()).flat_map(|r| (0..self.classes.len()).map(move |c| (r, c)));
        all.filter_map(|(r, c)| {
            let at = r * row_step + c * class_step;
            if sample.is_some_and(|sample| sample[at].wide() == 0.0) {
                return None;
            }
            let which = domain.outside(x[at].wide(), t.map_or(0.0, |t| t[at].wide()))?;
            Some((self.rows.start + r, self.classes.start + c, which))
        })
        .next()
    }

    fn lend_or_stage<'b, F: Element>(
        &self,
        from: &Rows<'b>,
        scratch: &'b mut Vec<F>,
        copy: bool,
    ) -> &'b [F] {
        match self.lend(from) {
            Some(lent) if !copy => lent,
            _ => {
                let (row_step, class_step) = self.steps();
                resize(scratch, self.len(), F::default());
                from.stage(self.rows.clone(), self.classes.clone(), row_step, class_step, scratch);
                scratch
            }
        }
    }
}

/// Whether neighbours in memory are rows.
fn goes_across(input: &Rows<'_>) -> bool {
    input.classes() == 1 || !input.classes_are_close()
}

/// Rows and classes of a tile of so many elements at the most.
fn tile_shape(most: usize, classes: usize, across: bool) -> (usize, usize) {
    if across { (most, 1) } else { ((most / classes.max(1)).max(1), classes.clamp(1, most)) }
}

/// The arrays of a tile. Without weights and upstream gradients of their own, elements have those
/// that [`compute`] is given.
struct Sources<'b, F> {
    x: &'b [F],
    t: Option<&'b [F]>,
    /// Weights, weights of the positive part, upstream gradients, weights of losses.
    weights: Option<[&'b [F]; 4]>,
}

/// What a thread works in.
#[derive(Default)]
struct Scratch<F> {
    x: Vec<F>,
    t: Vec<F>,
    weights: [Vec<F>; 4],
    value: Vec<F>,
    first: Vec<F>,
    second: Vec<F>,
    /// The losses of a tile's rows so far, and what the roundings of their sums took.
    sums: Vec<f64>,
    lost: Vec<f64>,
}

impl<F: Element> Memory for Scratch<F> {
    fn forget(&mut self) {
        let Self { x, t, weights, value, first, second, sums, lost } = self;
        let [a, b, c, d] = weights;
        for buffer in [x, t, a, b, c, d, value, first, second] {
            buffer.clear();
        }
        for buffer in [sums, lost] {
            buffer.clear();
        }
    }
}

/// What a kernel finds in a tile.
struct Seen {
    sum: f64,
    outside: bool,
}

/// What a kernel has seen so far.
#[derive(Clone, Copy)]
struct Seeing<S: Isa> {
    /// Of `f64` elements, whose ulp has no room for the roundings of a sum.
    exact: Wide64<S>,
    sum: S::f64s,
    /// Of those in `f32` lanes: as many sums as hide the time that adding takes.
    usual: [S::f64s; 4],
    excess: S::f64s,
}

impl<S: Isa> Seeing<S> {
    /// Takes a vector of elements, of which the first `live` count, and what is known of them, from a
    /// place on; returns the loss and its derivatives times the upstream gradient.
    #[inline(always)]
    fn take<F: Element, L: Pointwise>(
        &mut self,
        simd: S,
        loss: &L,
        upstream: f64,
        from: &Sources<'_, F>,
        live: usize,
        known: Option<(&Known, usize)>,
    ) -> [S::f64s; 3] {
        let c = |v: f64| splat::<S, f64>(simd, v);
        let load = |from: &[F]| F::load_f64s::<S>(simd, from);
        let mut point = Point {
            x: load(from.x),
            t: from.t.map_or(c(0.0), load),
            positive: from.weights.map_or(c(1.0), |[_, positive, ..]| load(positive)),
        };
        if let Some([.., sample]) = from.weights {
            let left_out = load(sample).simd_eq(c(0.0));
            point.x = left_out.select(c(0.0), point.x);
            point.t = left_out.select(c(0.0), point.t);
        }
        let Jet { mut value, mut first, mut second, .. } = match known {
            None => loss.at::<S, F>(simd, &point),
            Some((known, at)) => known.or::<S>(
                simd,
                at,
                #[inline(always)]
                || loss.at::<S, F>(simd, &point),
            ),
        };
        if let Some([weight, _, own, sample]) = from.weights {
            let (weight, sample) = (load(weight), load(sample));
            // No weight on an infinite loss is nothing.
            let nothing = weight.simd_eq(c(0.0)) & value.abs().simd_eq(c(f64::INFINITY));
            value = nothing.select(c(0.0), weight * value);
            let left_out = sample.simd_eq(c(0.0));
            value = left_out.select(c(0.0), sample * value);
            let factor = c(upstream) * load(own) * weight * sample;
            (first, second) = (first * factor, second * factor);
            first = left_out.select(c(0.0), first);
            second = left_out.select(c(0.0), second);
        } else {
            (first, second) = (first * c(upstream), second * c(upstream));
        }
        if L::DOMAIN != Domain::Everywhere {
            self.excess = L::DOMAIN.excess(simd, &point).max(self.excess);
        }
        let mut counted = value;
        if live < S::f64s::LEN {
            let mut lanes = [0.0; 8];
            simd::store::<S, f64>(counted, &mut lanes);
            lanes[live..].fill(0.0);
            counted = simd::load::<S, f64>(simd, &lanes);
        }
        if F::KIND == Kind::F64 {
            self.exact.add(counted);
        } else {
            self.sum += counted;
        }
        [value, first, second]
    }
}

/// Takes whole blocks up to the first with an element that is not usual, as [`Pointwise::narrow`] has
/// it; returns how many elements, and adds their losses to sums. Derivatives are multiplied by `scale`.
/// A function of its own, as what a loss looks up is to have all registers.
#[inline(never)]
fn take_usual<const WANTED: u8, S: Isa, L: Pointwise>(
    simd: S,
    loss: &L,
    scale: f32,
    (x, t): (&[f32], &[f32]),
    [value, first, second]: [&mut [f32]; 3],
    sums: &mut [S::f64s; 4],
) -> usize {
    simd.vectorize(
        #[inline(always)]
        || {
            // A copy, which no output can be the memory of.
            let loss = &{ *loss };
            let n = S::f32s::LEN;
            let scale = splat::<S, f32>(simd, scale);
            let load = |from: &[f32]| simd::load::<S, f32>(simd, from);
            let mut taken = 0;
            let inputs = x.chunks_exact(BLOCK).zip(t.chunks_exact(BLOCK));
            let losses = value.chunks_exact_mut(BLOCK);
            let (mut first, mut second) =
                (first.chunks_exact_mut(BLOCK), second.chunks_exact_mut(BLOCK));
            for ((x, t), value) in inputs.zip(losses) {
                simd.prefetch(x, AHEAD);
                simd.prefetch(t, AHEAD);
                let first = if WANTED >= wanted::FIRST { first.next() } else { None };
                let second = if WANTED >= wanted::SECOND { second.next() } else { None };
                let (first, second) = (first.unwrap_or_default(), second.unwrap_or_default());
                let mut all = true;
                for at in (0..BLOCK).step_by(n) {
                    let usual = loss.narrow(simd, load(&x[at..]), load(&t[at..]));
                    let Some(usual) = usual else { return 0 };
                    all &= usual.holds.all_true();
                    simd::store::<S, f32>(usual.value, &mut value[at..]);
                    // Of several outputs those that nobody asked for are empty.
                    if WANTED >= wanted::FIRST && !first.is_empty() {
                        simd::store::<S, f32>(usual.first * scale, &mut first[at..]);
                    }
                    if WANTED >= wanted::SECOND {
                        let Some(curve) = usual.second else { return 0 };
                        simd::store::<S, f32>(curve * scale, &mut second[at..]);
                    }
                }
                if !all {
                    break;
                }
                taken += BLOCK;
            }
            add_usual(simd, &value[..taken], sums);
            taken
        },
    )
}

/// Adds losses to sums: in a loop of its own, as widening what comes from memory is half the work.
#[inline(always)]
fn add_usual<S: Isa>(simd: S, value: &[f32], sums: &mut [S::f64s; 4]) {
    let n = S::f64s::LEN;
    let mut all = *sums;
    let mut whole = value.chunks_exact(4 * n);
    for values in &mut whole {
        for (i, sum) in all.iter_mut().enumerate() {
            *sum += simd.load_f64s_f32(&values[i * n..(i + 1) * n]);
        }
    }
    for (values, sum) in whole.remainder().chunks_exact(n).zip(&mut all) {
        *sum += simd.load_f64s_f32(values);
    }
    *sums = all;
}

/// Takes all whole vectors of elements without weights in `f64` lanes; returns how many elements.
#[inline(always)]
fn take_wide<const WANTED: u8, S: Isa, F: Element, L: Pointwise>(
    simd: S,
    loss: &L,
    upstream: f64,
    from: &Sources<'_, F>,
    [value, first, second]: [&mut [F]; 3],
    seeing: &mut Seeing<S>,
) -> usize {
    let n = S::f64s::LEN;
    let (mut seen, mut taken) = (*seeing, 0);
    // A loss without targets does not look at them.
    for (x, t) in from.x.chunks_exact(n).zip(from.t.unwrap_or(from.x).chunks_exact(n)) {
        simd.prefetch(x, AHEAD);
        simd.prefetch(t, AHEAD);
        let part = Sources { x, t: from.t.map(|_| t), weights: None };
        let jet = seen.take(simd, loss, upstream, &part, n, None);
        for (wanted, (v, to)) in
            jet.into_iter().zip([&mut *value, &mut *first, &mut *second]).enumerate()
        {
            if wanted <= WANTED.into()
                && let Some(to) = to.get_mut(taken..taken + n)
            {
                F::store_f64s(simd, v, to);
            }
        }
        taken += n;
    }
    *seeing = seen;
    taken
}

/// What is known of a whole vector of `f32` lanes: the loss, its derivatives, and 1 where they hold.
struct Known {
    lanes: [[f32; 16]; 4],
    /// Whether the derivatives are used.
    first: bool,
    second: bool,
    /// Whether it is all that is wanted of all elements that count.
    all: bool,
}

impl Known {
    /// By [`Pointwise::narrow`], of elements with weights of 1: others would round twice.
    #[inline(always)]
    fn of<S: Isa, F: Element, L: Pointwise>(
        simd: S,
        loss: &L,
        from: &Sources<'_, F>,
        derives: bool,
        enough: bool,
    ) -> Option<Self> {
        let c = |v: f32| splat::<S, f32>(simd, v);
        let load = |from: &[f32]| simd::load::<S, f32>(simd, from);
        let x = load(F::as_f32s(from.x)?);
        let t = from.t.and_then(F::as_f32s).map_or(x, load);
        let (mut unit, mut left_out) = (c(0.0).simd_eq(c(0.0)), c(0.0).simd_ne(c(0.0)));
        if let Some([weight, positive, _, sample]) = from.weights {
            for weight in [weight, positive, sample] {
                unit &= load(F::as_f32s(weight)?).simd_eq(c(1.0));
            }
            left_out = load(F::as_f32s(sample)?).simd_eq(c(0.0));
            if !unit.any_true() {
                return None;
            }
        }
        let Narrow { value, first, second, holds } = loss.narrow(simd, x, t)?;
        let holds = holds & unit;
        let mut lanes = [[0.0; 16]; 4];
        simd::store::<S, f32>(value, &mut lanes[0]);
        simd::store::<S, f32>(first, &mut lanes[1]);
        simd::store::<S, f32>(second.unwrap_or(c(0.0)), &mut lanes[2]);
        simd::store::<S, f32>(holds.select(c(1.0), c(0.0)), &mut lanes[3]);
        let all = enough && (holds | left_out).all_true();
        Some(Self { lanes, first: derives, second: derives && second.is_some(), all })
    }

    /// What is known from `at` on, and elsewhere what `wide` computes.
    #[inline(always)]
    fn or<S: Isa>(&self, simd: S, at: usize, wide: impl FnOnce() -> Jet<S>) -> Jet<S> {
        let load = |lanes: &[f32; 16]| simd.load_f64s_f32(&lanes[at..at + S::f64s::LEN]);
        let [value, first, second, holds] = &self.lanes;
        let (value, first, second) = (load(value), load(first), load(second));
        if self.all {
            let lost = splat::<S, f64>(simd, 0.0);
            return Jet { value, lost, first, second };
        }
        let holds = load(holds).simd_gt(splat::<S, f64>(simd, 0.0));
        let jet = wide();
        Jet {
            value: holds.select(value, jet.value),
            lost: jet.lost,
            first: if self.first { holds.select(first, jet.first) } else { jet.first },
            second: if self.second { holds.select(second, jet.second) } else { jet.second },
        }
    }
}

/// As many elements as `f32` lanes, zeros after the last.
struct Filled<F> {
    x: [F; 16],
    t: [F; 16],
    weights: [[F; 16]; 4],
}

impl<F: Element> Filled<F> {
    #[inline(always)]
    fn from(from: &Sources<'_, F>, start: usize) -> Self {
        let fill = |from: &[F]| {
            let mut lanes = [F::default(); 16];
            lanes[..from.len() - start].copy_from_slice(&from[start..]);
            lanes
        };
        let none = [F::default(); 16];
        let weights = from.weights.map_or([none; 4], |all| all.map(fill));
        Self { x: fill(from.x), t: from.t.map_or(none, fill), weights }
    }
}

impl<'b, F> Sources<'b, F> {
    #[inline(always)]
    fn part(&self, range: Range<usize>) -> Sources<'b, F> {
        Sources {
            x: &self.x[range.clone()],
            t: self.t.map(|t| &t[range.clone()]),
            weights: self.weights.map(|all| all.map(|w| &w[range.clone()])),
        }
    }
}

/// Computes a tile: the loss is written to `value`, derivatives as wanted.
fn compute<F: Element, L: Pointwise>(
    loss: &L,
    upstream: f64,
    from: &Sources<'_, F>,
    wanted: u8,
    few: bool,
    to: [&mut [F]; 3],
) -> Seen {
    #[inline(never)]
    fn kernel<const WANTED: u8, const PLAIN: bool, S: Isa, F: Element, L: Pointwise>(
        simd: S,
        loss: &L,
        upstream: f64,
        from: &Sources<'_, F>,
        few: bool,
        [value, first, second]: [&mut [F]; 3],
    ) -> Seen {
        simd.vectorize(
            #[inline(always)]
            || {
                let (n, many) = (S::f64s::LEN, S::f32s::LEN);
                let len = from.x.len();
                let zero = splat::<S, f64>(simd, 0.0);
                let mut seeing =
                    Seeing { exact: Wide64::zero(simd), sum: zero, usual: [zero; 4], excess: zero };
                let weights = from.weights.filter(|_| !PLAIN);
                let from = Sources { weights, ..*from };
                let scale = upstream as f32;
                // A copy, which no output can be the memory of.
                let loss = &{ *loss };
                let nought = splat::<S, f32>(simd, 0.0);
                let narrow = loss.narrow(simd, nought, nought);
                let narrows = S::FUSED && F::KIND == Kind::F32 && narrow.is_some() && !few;
                let has_second = narrow.is_some_and(|narrow| narrow.second.is_some());
                // Whether derivatives may be multiplied in `f32`. Losses are the same either way.
                let scales = narrows && (scale.is_normal() || upstream == 0.0);
                let upstream = if scales { f64::from(scale) } else { upstream };
                let narrow_first = WANTED == wanted::VALUE || scales;
                // Whether all that is wanted may be known in `f32` lanes.
                let enough = narrow_first && (WANTED < wanted::SECOND || has_second);
                let mut start = 0;
                // How many chunks of usual elements have been seen in a row.
                let mut usual = RUN;
                if PLAIN && !narrows {
                    let to = [&mut *value, &mut *first, &mut *second];
                    start =
                        take_wide::<WANTED, S, F, L>(simd, loss, upstream, &from, to, &mut seeing);
                }
                while start < len {
                    if PLAIN && narrows && enough && usual >= RUN {
                        usual = 0;
                        let x = F::as_f32s(&from.x[start..]).expect("they are narrow");
                        // A loss without targets does not look at them.
                        let t = from.t.and_then(|t| F::as_f32s(&t[start..])).unwrap_or(x);
                        let to = [&mut *value, &mut *first, &mut *second].map(|to| {
                            let to = to.get_mut(start..).unwrap_or_default();
                            F::as_f32s_mut(to).expect("they are narrow")
                        });
                        let sums = &mut seeing.usual;
                        start += take_usual::<WANTED, S, L>(simd, loss, scale, (x, t), to, sums);
                    }
                    if start == len {
                        break;
                    }
                    let end = (start + many).min(len);
                    simd::prefetch_all(simd, &from.x[start..end], AHEAD);
                    if let Some(t) = from.t {
                        simd::prefetch_all(simd, &t[start..end], AHEAD);
                    }
                    let filled;
                    let chunk = if end - start == many {
                        from.part(start..end)
                    } else {
                        // Zeros count nothing, and are nowhere outside.
                        filled = Filled::from(&from, start);
                        Sources {
                            x: &filled.x,
                            t: from.t.is_some().then_some(&filled.t[..]),
                            weights: from
                                .weights
                                .map(|_| filled.weights.each_ref().map(|w| &w[..])),
                        }
                    };
                    let known = if narrows {
                        Known::of::<S, F, L>(simd, loss, &chunk, narrow_first, enough)
                    } else {
                        None
                    };
                    usual =
                        if known.as_ref().is_some_and(|known| known.all) { usual + 1 } else { 0 };
                    for at in (0..end - start).step_by(n) {
                        let live = (end - start - at).min(n);
                        let known = known.as_ref().map(|known| (known, at));
                        let part = chunk.part(at..at + n);
                        let jet = seeing.take(simd, loss, upstream, &part, live, known);
                        let to = [&mut *value, &mut *first, &mut *second];
                        for (wanted, (v, to)) in jet.into_iter().zip(to).enumerate() {
                            if wanted <= WANTED.into() && !to.is_empty() {
                                let at = start + at;
                                simd::store_wide(simd, v, &mut to[at..at + live]);
                            }
                        }
                    }
                    start = end;
                }
                Seen {
                    sum: if F::KIND == Kind::F64 {
                        seeing.exact.total()
                    } else {
                        let [a, b, c, d] = seeing.usual;
                        (seeing.sum + ((a + b) + (c + d))).reduce_sum()
                    },
                    outside: L::DOMAIN != Domain::Everywhere
                        && seeing.excess.simd_gt(zero).any_true(),
                }
            },
        )
    }
    let plain = from.weights.is_none();
    dispatch!(simd::level(), s => match (wanted, plain) {
        (wanted::VALUE, true) => {
            kernel::<{ wanted::VALUE }, true, _, F, L>(s, loss, upstream, from, few, to)
        }
        (wanted::VALUE, false) if L::MOST >= wanted::FIRST => {
            kernel::<{ wanted::VALUE }, false, _, F, L>(s, loss, upstream, from, few, to)
        }
        (wanted::FIRST, true) if L::MOST >= wanted::FIRST => {
            kernel::<{ wanted::FIRST }, true, _, F, L>(s, loss, upstream, from, few, to)
        }
        (wanted::FIRST, false) if L::MOST >= wanted::FIRST => {
            kernel::<{ wanted::FIRST }, false, _, F, L>(s, loss, upstream, from, few, to)
        }
        (_, true) if L::MOST >= wanted::SECOND => {
            kernel::<{ wanted::SECOND }, true, _, F, L>(s, loss, upstream, from, few, to)
        }
        (_, false) if L::MOST >= wanted::SECOND => {
            kernel::<{ wanted::SECOND }, false, _, F, L>(s, loss, upstream, from, few, to)
        }
        _ => unreachable!("no call asks a loss for more than it has"),
    })
}

/// Places of the outputs among those of a span.
#[derive(Clone, Copy)]
struct Places {
    losses: Option<usize>,
    grad: Option<usize>,
    second: Option<usize>,
}

impl Found {
    fn merge(&mut self, later: Self) {
        self.sum.merge(later.sum);
        self.outside = self.outside.or(later.outside);
    }
}

impl<L: Pointwise> Job<'_, L> {
    /// Computes everything.
    ///
    /// # Errors
    /// Where `interrupted` says so.
    pub(crate) fn run<F: Element>(mut self, interrupted: &dyn Fn() -> bool) -> Result<Found> {
        let (rows, classes) = (self.input.rows(), self.input.classes());
        let mut outputs = Vec::new();
        let mut place = |output: Option<_>| {
            output.map(|output| {
                outputs.push(output);
                outputs.len() - 1
            })
        };
        let places = Places {
            losses: place(self.losses.take()),
            grad: place(self.grad.take()),
            second: place(self.second.take()),
        };
        // Lines across rows are to be long enough for their calls to be worth it.
        let least = if self.across() { LINE } else { 1 };
        let spans = Spans::new(rows, (SPAN / classes.max(1)).max(least), outputs);
        let found = memory::places::<Found>(spans.count())?;
        let crew = Crew::of(rows * classes, PARALLEL);
        pool::run(&spans, crew, interrupted, |span, scratch: &mut Scratch<F>| {
            let all = self.span(span, places, scratch);
            found[span.index()].set(all).expect("a span is drawn once");
        })?;
        let mut all = Found::default();
        for found in &found {
            all.merge(*found.get().expect("every span was drawn"));
        }
        Ok(all)
    }

    /// Whether neighbours in memory are rows.
    fn across(&self) -> bool {
        goes_across(&self.input)
    }

    /// Whether an answer is the sum of few losses.
    fn sums_few(&self, to: Places) -> bool {
        let classes = self.input.classes();
        let terms = if to.losses.is_some() { classes } else { self.input.rows() * classes };
        (2..=FEW).contains(&terms)
    }

    fn span<F: Element>(&self, span: &mut Span<'_>, to: Places, s: &mut Scratch<F>) -> Found {
        let classes = self.input.classes();
        let across = self.across();
        let (height, width) = tile_shape(TILE / size_of::<F>(), classes, across);
        let mut found = Found::default();
        let all = span.rows();
        for start in all.clone().step_by(height) {
            let rows = start..(start + height).min(all.end);
            if classes != 1 && to.losses.is_some() {
                for sums in [&mut s.sums, &mut s.lost] {
                    sums.clear();
                    resize(sums, rows.len(), 0.0);
                }
            }
            for (asked, first) in (0..classes).step_by(width).enumerate() {
                if asked % PATIENT == PATIENT - 1 && span.stops() {
                    break;
                }
                let block = first..(first + width).min(classes);
                let tile = Tile { rows: rows.clone(), classes: block, across };
                found.merge(self.tile(span, to, &tile, s));
            }
            if let Some(output) = to.losses {
                if classes != 1 {
                    // An infinite sum has a NaN for what it lost.
                    let whole = |(sum, lost): (&f64, &f64)| {
                        if lost.is_nan() { *sum } else { sum + lost }
                    };
                    s.value.clear();
                    memory::reserve(&mut s.value, rows.len());
                    let rows = s.sums.iter().zip(&s.lost).map(whole);
                    s.value.extend(rows.map(|sum| F::of(sum / self.share)));
                }
                put(span, output, &Tile { rows, classes: 0..1, across: true }, &s.value);
            }
        }
        simd::fence();
        found
    }

    fn tile<F: Element>(
        &self,
        span: &mut Span<'_>,
        to: Places,
        tile: &Tile,
        s: &mut Scratch<F>,
    ) -> Found {
        let len = tile.len();
        let (upstream, denominator) = &self.upstream;
        let of_all = match upstream {
            // Where nothing counts there is nothing to differentiate.
            _ if *denominator == 0.0 => 0.0,
            Upstream::Same(g) => g / denominator,
            Upstream::PerRow(_) => 1.0 / denominator,
        };
        let own = match upstream {
            Upstream::PerRow(g) if to.grad.is_some() || to.second.is_some() => Some(g),
            _ => None,
        };
        let given = [self.weight.as_ref(), self.positive.as_ref(), own, self.sample.as_ref()];
        let some = given.iter().any(Option::is_some);
        let [w, p, u, o] = &mut s.weights;
        let weights = some.then(|| {
            let [weight, positive, own, sample] = given;
            [(weight, w), (positive, p), (own, u), (sample, o)].map(|(from, scratch)| -> &[F] {
                let Some(from) = from else {
                    scratch.clear();
                    resize(scratch, len, F::of(1.0));
                    return scratch;
                };
                tile.lend_or_stage(from, scratch, false)
            })
        });
        let from = Sources {
            x: tile.lend_or_stage(&self.input, &mut s.x, self.in_place),
            t: self.target.as_ref().map(|t| tile.lend_or_stage(t, &mut s.t, self.in_place)),
            weights,
        };
        let wanted = match (to.grad, to.second) {
            (_, Some(_)) => wanted::SECOND,
            (Some(_), None) => wanted::FIRST,
            _ => wanted::VALUE,
        };
        for (buffer, is_wanted) in [
            (&mut s.value, true),
            (&mut s.first, to.grad.is_some()),
            (&mut s.second, to.second.is_some()),
        ] {
            resize(buffer, if is_wanted { len } else { 0 }, F::default());
        }
        let into = [&mut s.value[..], &mut s.first[..], &mut s.second[..]];
        let seen = compute(&self.loss, of_all, &from, wanted, self.sums_few(to), into);

        let mut found = Found::default();
        found.sum.add(seen.sum);
        if seen.outside {
            let sample = from.weights.map(|[.., sample]| sample);
            found.outside = tile.first_outside(L::DOMAIN, from.x, from.t, sample);
        }
        if self.input.classes() != 1 && to.losses.is_some() {
            add_rows(&s.value, tile, &mut s.sums, &mut s.lost);
        }
        for (output, from) in [(to.grad, &s.first), (to.second, &s.second)] {
            if let Some(output) = output {
                put(span, output, tile, from);
            }
        }
        found
    }
}

/// Adds a tile's values to the sums of its rows.
fn add_rows<F: Element>(values: &[F], tile: &Tile, sums: &mut [f64], lost: &mut [f64]) {
    #[inline(never)]
    fn across<S: Isa, F: Element>(simd: S, values: &[F], sums: &mut [f64], lost: &mut [f64]) {
        simd.vectorize(
            #[inline(always)]
            || {
                let n = S::f64s::LEN;
                let whole = values.len() - values.len() % n;
                let parts = values.chunks_exact(n).zip(sums.chunks_exact_mut(n));
                for ((v, sum), lost) in parts.zip(lost.chunks_exact_mut(n)) {
                    let load = |from: &[f64]| simd::load::<S, f64>(simd, from);
                    let [total, error] = two_sum(load(sum), F::load_f64s(simd, v));
                    simd::store::<S, f64>(total, sum);
                    simd::store::<S, f64>(load(lost) + error, lost);
                }
                for at in whole..values.len() {
                    add(values[at].wide(), &mut sums[at], &mut lost[at]);
                }
            },
        );
    }
    #[inline(never)]
    fn along<S: Isa, F: Element>(
        simd: S,
        values: &[F],
        classes: usize,
        sums: &mut [f64],
        lost: &mut [f64],
    ) {
        simd.vectorize(
            #[inline(always)]
            || {
                let n = simd::lanes::<S, F>();
                for ((row, sum), lost) in values.chunks_exact(classes).zip(sums).zip(lost) {
                    let mut total = F::Wide::<S>::zero(simd);
                    let mut whole = row.chunks_exact(n);
                    for v in &mut whole {
                        total.add(simd::load(simd, v));
                    }
                    total.add(F::load_partial(simd, whole.remainder(), F::default()));
                    add(total.total(), sum, lost);
                }
            },
        );
    }
    #[inline(always)]
    fn add(v: f64, sum: &mut f64, lost: &mut f64) {
        let [total, error] = two_sum(*sum, v);
        (*sum, *lost) = (total, *lost + error);
    }
    let classes = tile.classes.len();
    dispatch!(simd::level(), s => if tile.across {
        across(s, values, sums, lost);
    } else {
        along(s, values, classes, sums, lost);
    });
}

/// Writes a tile of an output, past the caches where it is large.
fn put<F: Element>(span: &mut Span<'_>, output: usize, tile: &Tile, from: &[F]) {
    let (rows, classes) = (tile.rows.clone(), tile.classes.clone());
    let to = span.layout(output);
    let streams = to.streams::<F>();
    if streams && classes.len() == 1 && to.lends_columns::<F>(&rows) {
        simd::stream_slice(from, span.lines_of_rows_mut(output, rows, classes).line(0));
    } else if streams && rows.len() == 1 && to.lends_rows::<F>() {
        simd::stream_slice(from, span.row_mut(output, rows.start, classes));
    } else {
        let (row_step, class_step) = tile.steps();
        span.write(output, rows, classes, row_step, class_step, from);
    }
}
