//! Kernels across rows: lanes are rows of a [tile](crate::rows::tile).

use crate::rows::along::kernels::mend_infinite;
use crate::rows::emit::Map;
use crate::rows::mass::{MassSums, Parts, TileMass};
use crate::rows::scratch::Buffer;
use crate::rows::settle::{Coefficients, NEAR, Room, Term};
use crate::rows::summary::{Field, ROWS, Summary};
use crate::rows::tile::step;
use crate::simd::exp::Shift;
use crate::simd::sum::Wide;
use crate::simd::{self, Element, Isa, V, dispatch, select, splat};
use crate::view::{Lines, LinesMut};
use fearless_simd::prelude::*;

/// A tile of logits, and what lies beside them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile<'b, F> {
    pub(super) x: &'b [F],
    pub(super) rows: usize,
    pub(super) classes: usize,
    /// Each row's target class in the tile.
    pub(super) index: &'b [F],
    pub(super) mass: TileMass<'b, F>,
}

/// Summarises a tile's rows, picks their targets' logits, and where `STORE` keeps the exponentials
/// in `e`, laid as the tile.
pub(super) fn summarise<P: Parts, F: Element, const STORE: bool>(
    tile: &Tile<'_, F>,
    room: Room<F>,
    terms: &mut [Term<Field>],
    e: &mut [F],
    out: &mut [Summary<Field>],
) {
    #[inline(never)]
    fn kernel<P: Parts, S: Isa, F: Element, const STORE: bool>(
        simd: S,
        tile: &Tile<'_, F>,
        room: Room<F>,
        terms: &mut [Term<Field>],
        e: &mut [F],
        out: &mut [Summary<Field>],
    ) {
        let Tile { x, rows, classes, index, mass } = *tile;
        simd.vectorize(
            #[inline(always)]
            || {
                let n = simd::lanes::<S, F>();
                let step = step(rows);
                let zero = splat::<S, F>(simd, F::of(0.0));
                let one = splat::<S, F>(simd, F::of(1.0));
                let all = splat::<S, F>(simd, F::of(classes as f64));
                for at in (0..out.len() * ROWS).step_by(n) {
                    let x = &x[at..];
                    let (term, lane) = (&mut terms[at / ROWS], at % ROWS);
                    let mut max = splat::<S, F>(simd, F::of(f64::NEG_INFINITY));
                    let mut picked = F::load_narrow(simd, &term.picked.0[lane..]);
                    let mut until = simd::load::<S, F>(simd, &index[at..]);
                    for class in 0..classes {
                        let v = simd::load::<S, F>(simd, &x[class * step..]);
                        // In this order a NaN is passed over; the exponentials will find it.
                        max = v.max(max);
                        picked = select::<S, F>(until.simd_eq(zero), v, picked);
                        until -= one;
                    }
                    F::store_wide::<S>(picked, &mut term.picked.0[lane..]);
                    let headroom =
                        room.of::<S>(simd, F::load_narrow(simd, &term.exponent.0[lane..]));
                    let (shift, k) = Shift::<S, F>::of_max(simd, max, headroom);
                    let mut rest = F::Wide::<S>::zero(simd);
                    let mut sums = MassSums::<S, F>::zero(simd);
                    let (mut others, mut above) = (zero, zero);
                    for class in 0..classes {
                        let v = simd::load::<S, F>(simd, &x[class * step..]);
                        let exp = shift.exp::<true>(simd, v);
                        let below = v.simd_ne(max);
                        rest.add(select::<S, F>(below, exp, zero));
                        others = select::<S, F>(below, others + one, others);
                        if P::USED {
                            let q = if P::OWN {
                                [exp, zero]
                            } else {
                                mass.q::<P, S>(simd, class, step, at)
                            };
                            sums.take::<P>(simd, q, below, max, v);
                        }
                        if P::RANKED {
                            above += select::<S, F>(v.simd_gt(picked), one, zero);
                        }
                        if STORE {
                            simd::store::<S, F>(exp, &mut e[class * step + at..]);
                        }
                    }
                    let out = &mut out[at / ROWS];
                    F::store_wide::<S>(max, &mut out.max.0[lane..]);
                    F::store_wide::<S>(shift.center, &mut out.center.0[lane..]);
                    F::store_wide::<S>(k, &mut out.k.0[lane..]);
                    F::store_wide::<S>(all - others, &mut out.ties.0[lane..]);
                    rest.store(&mut out.rest.0[lane..]);
                    if P::USED {
                        sums.dot.store(&mut out.dot.0[lane..]);
                        sums.top.store(&mut out.mass_top.0[lane..]);
                        sums.rest.store(&mut out.mass_rest.0[lane..]);
                    }
                    if P::RANKED {
                        F::store_wide::<S>(above, &mut out.above.0[lane..]);
                    }
                }
            },
        );
    }
    let out = &mut out[..tile.rows.div_ceil(ROWS)];
    dispatch!(simd::level(), s => kernel::<P, _, F, STORE>(s, tile, room, terms, e, out));
    if STORE {
        mend(tile.x, (tile.rows, tile.classes), out, e);
    }
}

/// What the lanes of a sweep hold between classes: vectors of each column of rows, one after the
/// other.
#[derive(Debug)]
pub(super) struct Held<'b, F> {
    pub(super) lanes: &'b mut Buffer<F>,
    pub(super) sums: &'b mut Buffer<f64>,
}

/// Vectors a column in [`Held::lanes`].
const LANES: usize = 5;
/// Classes that a column takes at a time.
const TOGETHER: usize = 4;
/// Classes in which the maxima of rows are guessed.
const GUESS: usize = 4;

/// Summarises rows in one pass over the lines of their classes, without masses, in units chosen by
/// guesses at the maxima, and where `STORE` keeps the exponentials in `e`, laid as a tile. Of each
/// row's exponentials the largest so far is held back, and the loser of every comparison joins the
/// rest. Of few classes it picks the logits of targets, too: `index` has the class of each row.
/// Answers whether every guess was near enough for its unit; a row that does not count has no say.
pub(super) fn sweep<F: Element, const STORE: bool>(
    from: &Lines<'_, F>,
    (room, index): (Room<F>, &[F]),
    terms: &mut [Term<Field>],
    held: &mut Held<'_, F>,
    e: &mut [F],
    out: &mut [Summary<Field>],
) -> bool {
    #[inline(never)]
    fn kernel<S: Isa, F: Element, const STORE: bool>(
        simd: S,
        from: &Lines<'_, F>,
        (room, index): (Room<F>, &[F]),
        terms: &mut [Term<Field>],
        held: &mut Held<'_, F>,
        e: &mut [F],
        out: &mut [Summary<Field>],
    ) -> bool {
        simd.vectorize(
            #[inline(always)]
            || {
                let n = simd::lanes::<S, F>();
                let wide = 2 * simd::lanes::<S, f64>();
                let (rows, classes) = (from.width(), from.count());
                let [zero, lowest] =
                    [0.0, f64::NEG_INFINITY].map(|v| splat::<S, F>(simd, F::of(v)));
                let mut all_near = true;

                if is_few(classes) {
                    let (step, one) = (step(rows), splat::<S, F>(simd, F::of(1.0)));
                    for at in (0..rows).step_by(n) {
                        let (out, term) = (&mut out[at / ROWS], &mut terms[at / ROWS]);
                        let (guess, shift) = guess::<S, F>(simd, from, at, room, term, out);
                        let mut top = Top::<S, F>::none(simd);
                        let mut picked = F::load_narrow(simd, &term.picked.0[at % ROWS..]);
                        let mut until = simd::load::<S, F>(simd, &index[at..]);
                        for class in 0..classes {
                            let (next, ahead) = from.ahead(class);
                            simd.prefetch(&next[at..], ahead);
                            let x = column::<S, F>(simd, from.line(class), at);
                            let exp = top.take(simd, &shift, x);
                            if STORE {
                                simd::store::<S, F>(exp, &mut e[class * step + at..]);
                            }
                            picked = select::<S, F>(until.simd_eq(zero), x, picked);
                            until -= one;
                        }
                        F::store_wide::<S>(picked, &mut term.picked.0[at % ROWS..]);
                        all_near &= top.put(simd, guess, term, out, at % ROWS);
                    }
                    return all_near;
                }

                let columns = rows.div_ceil(n);
                let lanes = held.lanes.fit(columns * LANES * n);
                let sums = held.sums.fit(columns * wide);
                sums.fill(0.0);
                for (at, lanes) in (0..rows).step_by(n).zip(lanes.chunks_exact_mut(LANES * n)) {
                    let (out, term) = (&mut out[at / ROWS], &terms[at / ROWS]);
                    let (guess, shift) = guess::<S, F>(simd, from, at, room, term, out);
                    let [floor, round] = shift.parts();
                    for (v, lane) in [guess, floor, round, lowest, zero]
                        .into_iter()
                        .zip(lanes.chunks_exact_mut(n))
                    {
                        simd::store::<S, F>(v, lane);
                    }
                }
                let whole = classes / TOGETHER * TOGETHER;
                for class in (0..whole).step_by(TOGETHER) {
                    hold::<TOGETHER, S, F, STORE>(simd, from, class, lanes, sums, e);
                }
                for class in whole..classes {
                    hold::<1, S, F, STORE>(simd, from, class, lanes, sums, e);
                }
                for ((at, lanes), sums) in (0..rows)
                    .step_by(n)
                    .zip(lanes.chunks_exact(LANES * n))
                    .zip(sums.chunks_exact(wide))
                {
                    let (out, term) = (&mut out[at / ROWS], &terms[at / ROWS]);
                    let guess = simd::load::<S, F>(simd, lanes);
                    let top = Top::<S, F>::load(simd, lanes, sums);
                    all_near &= top.put(simd, guess, term, out, at % ROWS);
                }
                all_near
            },
        )
    }
    let out = &mut out[..from.width().div_ceil(ROWS)];
    let rows = (room, index);
    dispatch!(simd::level(), s => kernel::<_, F, STORE>(s, from, rows, terms, held, e, out))
}

/// Whether classes are so few that a sweep holds a column of rows in registers.
pub(super) fn is_few(classes: usize) -> bool {
    classes <= GUESS
}

/// A guess at the maxima of a column of rows, and the shift to the unit that it chooses.
#[inline(always)]
fn guess<S: Isa, F: Element>(
    simd: S,
    from: &Lines<'_, F>,
    at: usize,
    room: Room<F>,
    term: &Term<Field>,
    out: &mut Summary<Field>,
) -> (V<F, S>, Shift<S, F>) {
    let mut guess = splat::<S, F>(simd, F::of(f64::NEG_INFINITY));
    for class in 0..from.count().min(GUESS) {
        guess = column::<S, F>(simd, from.line(class), at).max(guess);
    }
    let exponent = F::load_narrow(simd, &term.exponent.0[at % ROWS..]);
    let headroom = room.of_guess::<S>(simd, exponent);
    let (shift, k) = Shift::<S, F>::of_max(simd, guess, headroom);
    F::store_wide::<S>(k, &mut out.k.0[at % ROWS..]);
    (guess, Shift::within_reach(simd, shift.parts()))
}

/// What a sweep knows of a column of rows: the maxima, their exponentials, and the sum of all others.
struct Top<S: Isa, F: Element> {
    max: V<F, S>,
    exp: V<F, S>,
    rest: F::Wide<S>,
}

impl<S: Isa, F: Element> Top<S, F> {
    /// Of no classes.
    #[inline(always)]
    fn none(simd: S) -> Self {
        let [max, exp] = [f64::NEG_INFINITY, 0.0].map(|v| splat::<S, F>(simd, F::of(v)));
        Self { max, exp, rest: F::Wide::<S>::zero(simd) }
    }

    /// From [`Held`], in whose lanes it is behind three others.
    #[inline(always)]
    fn load(simd: S, lanes: &[F], sums: &[f64]) -> Self {
        let n = simd::lanes::<S, F>();
        Self {
            max: simd::load::<S, F>(simd, &lanes[3 * n..]),
            exp: simd::load::<S, F>(simd, &lanes[4 * n..]),
            rest: F::Wide::<S>::load(simd, sums),
        }
    }

    #[inline(always)]
    fn save(self, lanes: &mut [F], sums: &mut [f64]) {
        let n = simd::lanes::<S, F>();
        simd::store::<S, F>(self.max, &mut lanes[3 * n..]);
        simd::store::<S, F>(self.exp, &mut lanes[4 * n..]);
        self.rest.save(sums);
    }

    /// Takes a class, whose exponentials it returns.
    #[inline(always)]
    fn take(&mut self, simd: S, shift: &Shift<S, F>, x: V<F, S>) -> V<F, S> {
        let exp = shift.exp::<false>(simd, x);
        // In this order a NaN goes to the sum and is passed over by the maxima.
        self.max = x.max(self.max);
        self.rest.add(self.exp.min(exp));
        self.exp = exp.max(self.exp);
        exp
    }

    /// Makes it the summaries of rows; whether their guesses were near enough.
    #[inline(always)]
    fn put(
        self,
        simd: S,
        guess: V<F, S>,
        term: &Term<Field>,
        out: &mut Summary<Field>,
        lane: usize,
    ) -> bool {
        let c = |v: f64| splat::<S, F>(simd, F::of(v));
        let dead = F::load_narrow(simd, &term.live.0[lane..]).simd_eq(c(0.0));
        let above = self.max - guess;
        let near = above.simd_ge(c(NEAR.start))
            & above.simd_lt(c(NEAR.end))
            & guess.abs().simd_le(c(F::REACH.wide()));
        F::store_wide::<S>(self.max, &mut out.max.0[lane..]);
        F::store_wide::<S>(c(0.0), &mut out.center.0[lane..]);
        F::store_wide::<S>(c(1.0), &mut out.ties.0[lane..]);
        self.rest.store(&mut out.rest.0[lane..]);
        let mut all = (near | dead).all_true();
        for at in (lane..lane + simd::lanes::<S, F>()).step_by(simd::lanes::<S, f64>()) {
            let read = |of: &Field| simd::load::<S, f64>(simd, &of.0[at..]);
            all &= Room::<F>::are_whole(simd, read(&out.rest), read(&term.live));
        }
        all
    }
}

/// Takes `N` classes, from `class` on, into what is held of every column of rows.
#[inline(always)]
fn hold<const N: usize, S: Isa, F: Element, const STORE: bool>(
    simd: S,
    from: &Lines<'_, F>,
    class: usize,
    lanes: &mut [F],
    sums: &mut [f64],
    e: &mut [F],
) {
    let n = simd::lanes::<S, F>();
    let (rows, step) = (from.width(), step(from.width()));
    let lines: [_; N] = std::array::from_fn(
        #[inline(always)]
        |i| (from.line(class + i), from.ahead(class + i)),
    );
    for ((at, lanes), sums) in (0..rows)
        .step_by(n)
        .zip(lanes.chunks_exact_mut(LANES * n))
        .zip(sums.chunks_exact_mut(2 * simd::lanes::<S, f64>()))
    {
        let parts = [n, 2 * n].map(
            #[inline(always)]
            |at| simd::load::<S, F>(simd, &lanes[at..]),
        );
        let shift = Shift::<S, F>::within_reach(simd, parts);
        let mut top = Top::<S, F>::load(simd, lanes, sums);
        for (i, (line, (next, ahead))) in lines.iter().enumerate() {
            simd.prefetch(&next[at..], *ahead);
            let x = column::<S, F>(simd, line, at);
            let exp = top.take(simd, &shift, x);
            if STORE {
                simd::store::<S, F>(exp, &mut e[(class + i) * step + at..]);
            }
        }
        top.save(lanes, sums);
    }
}

/// A column of rows: a vector, or what is left of the line.
#[inline(always)]
fn column<S: Isa, F: Element>(simd: S, line: &[F], at: usize) -> V<F, S> {
    let rest = &line[at..];
    if rest.len() >= simd::lanes::<S, F>() {
        simd::load(simd, rest)
    } else {
        F::load_partial(simd, rest, F::of(f64::NEG_INFINITY))
    }
}

/// Exponentials of a tile's rows with shifts that are known: the second pass over classes too many
/// to keep.
pub(super) fn exponentials<F: Element>(
    x: &[F],
    (rows, classes): (usize, usize),
    summaries: &[Summary<Field>],
    [centers, ks]: [&mut Buffer<F>; 2],
    e: &mut [F],
) {
    #[inline(never)]
    fn kernel<S: Isa, F: Element>(
        simd: S,
        x: &[F],
        rows: usize,
        centers: &[F],
        ks: &[F],
        e: &mut [F],
    ) {
        simd.vectorize(
            #[inline(always)]
            || {
                let step = step(rows);
                for at in (0..rows).step_by(simd::lanes::<S, F>()) {
                    let (center, k) =
                        (simd::load(simd, &centers[at..]), simd::load(simd, &ks[at..]));
                    let shift = Shift::<S, F>::new(simd, center, k);
                    for (x, e) in x.chunks_exact(step).zip(e.chunks_exact_mut(step)) {
                        let exp = shift.exp::<true>(simd, simd::load::<S, F>(simd, &x[at..]));
                        simd::store::<S, F>(exp, &mut e[at..]);
                    }
                }
            },
        );
    }
    let n = step(rows);
    let groups = &summaries[..rows.div_ceil(ROWS)];
    let narrow = |field: fn(&Summary<Field>) -> &Field, out: &mut Buffer<F>| {
        let from = groups.iter().flat_map(|s| field(s).0);
        out.fit(groups.len() * ROWS).iter_mut().zip(from).for_each(|(to, v)| *to = F::of(v));
    };
    narrow(|s| &s.center, centers);
    narrow(|s| &s.k, ks);
    let x = &x[..n * classes];
    dispatch!(simd::level(), s => kernel(s, x, rows, centers, ks, e));
    mend(x, (rows, classes), summaries, e);
}

/// [`mend_infinite`] for the rows that need it.
fn mend<F: Element>(
    x: &[F],
    (rows, classes): (usize, usize),
    summaries: &[Summary<Field>],
    e: &mut [F],
) {
    let step = step(rows);
    let summaries = &summaries[..rows.div_ceil(ROWS)];
    for (group, s) in summaries.iter().enumerate() {
        let infinite = |m: &f64| m.is_infinite();
        let any = s.max.0.iter().fold(false, |any, m| any | infinite(m));
        if !any {
            continue;
        }
        for i in (0..ROWS).filter(|i| infinite(&s.max.0[*i])) {
            for class in 0..classes {
                let at = class * step + group * ROWS + i;
                mend_infinite(&x[at..=at], &s.row(i), &mut e[at..=at]);
            }
        }
    }
}

/// The target class's place in a tile, and what becomes of its exponential: see
/// [`crate::rows::settle::Factors`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<T> {
    pub(super) index: T,
    pub(super) keep: T,
    pub(super) patch: T,
}

/// The inputs of an output's tile; what the map does not read may be empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sources<'b, F> {
    /// One of each a row.
    pub(super) coefficients: Coefficients<&'b [F]>,
    /// One of each a row, too, for maps with [`Map::TARGET`].
    pub(super) target: Target<&'b [F]>,
    /// Where given, rows where it is nonzero get zeros instead.
    pub(super) ignored: Option<&'b [F]>,
    pub(super) e: &'b [F],
    pub(super) x: &'b [F],
    pub(super) mass: TileMass<'b, F>,
}

/// Writes an output's tile, past the caches where `stream`.
pub(super) fn emit<M: Map, P: Parts, F: Element>(
    from: &Sources<'_, F>,
    rows: usize,
    out: &mut LinesMut<'_, F>,
    stream: bool,
) {
    #[inline(never)]
    fn kernel<M: Map, P: Parts, S: Isa, F: Element>(
        simd: S,
        from: &Sources<'_, F>,
        rows: usize,
        out: &mut LinesMut<'_, F>,
        stream: bool,
    ) {
        simd.vectorize(
            #[inline(always)]
            || {
                let n = simd::lanes::<S, F>();
                for class in 0..out.count() {
                    let out = out.line(class);
                    let aligned = out.as_ptr().addr().is_multiple_of(n * size_of::<F>());
                    let mut at = 0;
                    let mut whole = out.chunks_exact_mut(n);
                    if stream && aligned {
                        for out in &mut whole {
                            F::stream(simd, value::<M, P, S, F>(simd, from, rows, class, at), out);
                            at += n;
                        }
                    } else {
                        for out in &mut whole {
                            let value = value::<M, P, S, F>(simd, from, rows, class, at);
                            simd::store::<S, F>(value, out);
                            at += n;
                        }
                    }
                    let tail = whole.into_remainder();
                    if !tail.is_empty() {
                        let value = value::<M, P, S, F>(simd, from, rows, class, at);
                        F::store_partial(simd, value, tail);
                    }
                }
            },
        );
    }
    dispatch!(simd::level(), s => kernel::<M, P, _, F>(s, from, rows, out, stream));
}

/// A vector of an output: a class in the rows from `at` on.
#[inline(always)]
fn value<M: Map, P: Parts, S: Isa, F: Element>(
    simd: S,
    from: &Sources<'_, F>,
    rows: usize,
    class: usize,
    at: usize,
) -> V<F, S> {
    let zero = splat::<S, F>(simd, F::of(0.0));
    let step = step(rows);
    let c = &from.coefficients;
    let a = simd::load::<S, F>(simd, &c.a[at..]);
    let more = if M::MORE { simd::load::<S, F>(simd, &c.c[at..]) } else { zero };
    let c = if M::LOGIT {
        Coefficients {
            a,
            b: simd::load::<S, F>(simd, &c.b[at..]),
            c: more,
            max: simd::load::<S, F>(simd, &c.max[at..]),
            at_max: simd::load::<S, F>(simd, &c.at_max[at..]),
        }
    } else {
        Coefficients { a, b: zero, c: more, max: zero, at_max: zero }
    };
    let mut e = if M::EXP { simd::load(simd, &from.e[class * step + at..]) } else { zero };
    if M::TARGET {
        let t = from.target;
        let this = splat::<S, F>(simd, F::of(class as f64));
        let keep = simd::load::<S, F>(simd, &t.keep[at..]);
        let replaced = keep.mul_add(e, simd::load(simd, &t.patch[at..]));
        e = select::<S, F>(simd::load::<S, F>(simd, &t.index[at..]).simd_eq(this), replaced, e);
    }
    let x = if M::LOGIT { simd::load(simd, &from.x[class * step + at..]) } else { zero };
    let q = if M::MASS { from.mass.q::<P, S>(simd, class, step, at)[0] } else { zero };
    let value = M::apply::<S, F>(simd, &c, e, x, q);
    match from.ignored {
        Some(rows) => {
            let live = simd::load::<S, F>(simd, &rows[at..]).simd_eq(zero);
            select::<S, F>(live, value, zero)
        }
        None => value,
    }
}
