//! Kernels along the classes of rows: lanes are classes.

use crate::float::Kind;
use crate::rows::emit::Map;
use crate::rows::mass::{MassSums, Parts, RowMass, load_classes};
use crate::rows::settle::{Coefficients, Room};
use crate::rows::summary::{Field, ROWS, Summary};
use crate::rows::tile::turned;
use crate::simd::exp::Shift;
use crate::simd::sum::Wide;
use crate::simd::{self, Element, Isa, V, dispatch, select, splat};
use crate::view::Lines;
use fearless_simd::prelude::*;
use std::marker::PhantomData;

/// Elements that a pass asks memory for ahead of those that it computes with.
const AHEAD: usize = 4096;

/// The largest of some logits; NaN only where the instruction set has it so.
pub(in crate::rows) fn largest<F: Element, const PREFETCH: bool>(x: &[F]) -> F {
    #[inline(never)]
    fn kernel<S: Isa, F: Element, const PREFETCH: bool>(simd: S, x: &[F]) -> F {
        simd.vectorize(
            #[inline(always)]
            || {
                let n = simd::lanes::<S, F>();
                let lowest = F::of(f64::NEG_INFINITY);
                let mut max = [splat::<S, F>(simd, lowest); 8];
                if let Some(end) = x.len().checked_sub(8 * n) {
                    // The last vectors may have been seen before: that changes no maximum.
                    for at in (0..end).step_by(8 * n).chain([end]) {
                        if PREFETCH {
                            simd::prefetch_all(simd, &x[at..at + 8 * n], AHEAD);
                        }
                        for (j, max) in max.iter_mut().enumerate() {
                            // In this order a NaN is passed over; the exponentials will find it.
                            *max = simd::load::<S, F>(simd, &x[at + j * n..]).max(*max);
                        }
                    }
                } else {
                    let mut whole = x.chunks_exact(n);
                    for x in &mut whole {
                        max[0] = simd::load::<S, F>(simd, x).max(max[0]);
                    }
                    max[1] = F::load_partial(simd, whole.remainder(), lowest).max(max[1]);
                }
                let half = [
                    max[0].max(max[4]),
                    max[1].max(max[5]),
                    max[2].max(max[6]),
                    max[3].max(max[7]),
                ];
                let max = half[0].max(half[2]).max(half[1].max(half[3]));
                max.reduce_max()
            },
        )
    }
    dispatch!(simd::level(), s => kernel::<_, F, PREFETCH>(s, x))
}

/// What a pass over a block does with its vectors.
trait Pass<S: Isa, F: Element> {
    /// Accumulators, at most 4: more than one so that additions need not wait for each other.
    const LANES: usize;
    /// Vectors that a lane takes before they are added up.
    const ROUNDS: usize;
    /// Whether the exponentials are kept.
    const STORE: bool;

    /// Takes a vector of the classes from `at` on, of which `len` are there, and returns their
    /// exponentials.
    fn take(&mut self, simd: S, lane: usize, x: V<F, S>, at: usize, len: usize) -> V<F, S>;

    /// Adds up what was taken since the last time.
    fn add_up(&mut self, simd: S);
}

/// Hands a block's vectors to a pass, and keeps the exponentials where it says so.
#[inline(always)]
fn walk<S: Isa, F: Element, P: Pass<S, F>>(simd: S, x: &[F], e: &mut [F], pass: &mut P) {
    let n = simd::lanes::<S, F>();
    let (step, block) = (P::LANES * n, P::LANES * P::ROUNDS * n);
    let mut at = 0;
    let mut rounds = x.chunks_exact(block);
    for x in &mut rounds {
        simd::prefetch_all(simd, x, AHEAD);
        // One check for all of a block's stores.
        let to = if P::STORE { &mut e[at..at + block] } else { &mut [] };
        for round in 0..P::ROUNDS {
            for lane in 0..P::LANES {
                let first = round * step + lane * n;
                let v = pass.take(simd, lane, simd::load(simd, &x[first..]), at + first, n);
                if P::STORE {
                    simd::store::<S, F>(v, &mut to[first..]);
                }
            }
        }
        pass.add_up(simd);
        at += block;
    }
    simd::prefetch_all(simd, rounds.remainder(), AHEAD);
    let mut round = rounds.remainder().chunks_exact(step);
    for x in &mut round {
        let to = if P::STORE { &mut e[at..at + step] } else { &mut [] };
        for lane in 0..P::LANES {
            let v = pass.take(simd, lane, simd::load(simd, &x[lane * n..]), at + lane * n, n);
            if P::STORE {
                simd::store::<S, F>(v, &mut to[lane * n..]);
            }
        }
        pass.add_up(simd);
        at += step;
    }
    let mut single = round.remainder().chunks_exact(n);
    for x in &mut single {
        let v = pass.take(simd, 0, simd::load(simd, x), at, n);
        if P::STORE {
            simd::store::<S, F>(v, &mut e[at..]);
        }
        at += n;
    }
    let tail = single.remainder();
    if !tail.is_empty() {
        let x = F::load_partial(simd, tail, F::of(f64::NEG_INFINITY));
        let v = pass.take(simd, 1, x, at, tail.len());
        if P::STORE {
            F::store_partial(simd, v, &mut e[at..at + tail.len()]);
        }
    }
    pass.add_up(simd);
}

/// One pass that needs not know the maximum: of each lane's exponentials the largest so far is held
/// back, and the loser of every comparison joins the rest.
struct Sweep<S: Isa, F: Element, const STORE: bool> {
    shift: Shift<S, F>,
    max: [V<F, S>; 4],
    top: [V<F, S>; 4],
    losers: [V<F, S>; 4],
    rest: F::Wide<S>,
}

impl<S: Isa, F: Element, const STORE: bool> Pass<S, F> for Sweep<S, F, STORE> {
    const LANES: usize = 4;
    const ROUNDS: usize = 2;
    const STORE: bool = STORE;

    #[inline(always)]
    fn take(&mut self, simd: S, lane: usize, x: V<F, S>, _: usize, _: usize) -> V<F, S> {
        let e = self.shift.exp::<false>(simd, x);
        // In this order a NaN goes to the sums and is passed over by the maxima.
        self.max[lane] = x.max(self.max[lane]);
        self.losers[lane] += self.top[lane].min(e);
        self.top[lane] = e.max(self.top[lane]);
        e
    }

    #[inline(always)]
    fn add_up(&mut self, simd: S) {
        // In pairs, which add equal numbers without error. What weighs most is held back longest
        // and added alone.
        let [a, b, c, d] = self.losers;
        self.rest.add((a + b) + (c + d));
        self.losers = [Self::none(simd); 4];
    }
}

impl<S: Isa, F: Element, const STORE: bool> Sweep<S, F, STORE> {
    /// No losers: what adding anything to leaves as it is, so that no addition remains of it.
    #[inline(always)]
    fn none(simd: S) -> V<F, S> {
        splat::<S, F>(simd, F::of(-0.0))
    }

    /// Of no classes.
    #[inline(always)]
    fn new(simd: S, shift: Shift<S, F>) -> Self {
        Self {
            shift,
            max: [splat::<S, F>(simd, F::of(f64::NEG_INFINITY)); 4],
            top: [splat::<S, F>(simd, F::of(0.0)); 4],
            losers: [Self::none(simd); 4],
            rest: F::Wide::<S>::zero(simd),
        }
    }

    /// The maxima and the exponentials held back, a lane each; those of other accumulators join the
    /// rest.
    #[inline(always)]
    fn lanes(&mut self) -> [V<F, S>; 2] {
        let [a, b, c, d] = self.top;
        let (ab, cd) = (a.max(b), c.max(d));
        for loser in [a.min(b), c.min(d), ab.min(cd)] {
            self.rest.add(loser);
        }
        let top = ab.max(cd);
        let [a, b, c, d] = self.max;
        [a.max(b).max(c.max(d)), top]
    }

    /// Brings the lanes together; all but one of the exponentials held back join the rest.
    #[inline(always)]
    fn summary(mut self, simd: S, k: F) -> Summary {
        let zero = splat::<S, F>(simd, F::of(0.0));
        let [max, top] = self.lanes();
        let below = top.simd_ne(splat::<S, F>(simd, top.reduce_max()));
        self.rest.add(select::<S, F>(below, top, zero));
        let ties = simd::lanes::<S, F>() as u32 - below.to_bitmask().count_ones();
        Summary {
            max: max.reduce_max().wide(),
            center: 0.0,
            k: k.wide(),
            rest: self.rest.total(),
            ties: f64::from(ties),
            ..Summary::default()
        }
    }
}

/// Summarises a block in one pass, without masses, in a unit chosen by a guess at the maximum, and
/// where `STORE` keeps the exponentials in `e`. It is for the caller to see from the summary's
/// maximum whether the guess was near enough; `None` where it is too large a number to begin with.
pub(super) fn sweep<F: Element, const STORE: bool>(
    x: &[F],
    guess: F,
    headroom: F,
    e: &mut [F],
) -> Option<Summary> {
    #[inline(never)]
    fn kernel<S: Isa, F: Element, const STORE: bool>(
        simd: S,
        x: &[F],
        guess: F,
        headroom: F,
        e: &mut [F],
    ) -> Summary {
        simd.vectorize(
            #[inline(always)]
            || {
                let (shift, k) = Shift::<S, F>::of_max(
                    simd,
                    splat::<S, F>(simd, guess),
                    splat::<S, F>(simd, headroom),
                );
                let mut pass = Sweep::<S, F, STORE>::new(simd, shift);
                walk(simd, x, e, &mut pass);
                pass.summary(simd, k[0])
            },
        )
    }
    let within_reach = guess.wide().abs() <= F::REACH.wide();
    within_reach
        .then(|| dispatch!(simd::level(), s => kernel::<_, F, STORE>(s, x, guess, headroom, e)))
}

/// [`sweep`] of rows that are a block each, of those whose bit is set in `live`. In `f32` their lanes
/// are brought together in one go, with lanes for rows: of ties all but one are part of the rest.
/// Sums of masses are left as they are.
pub(super) fn sweep_rows<F: Element, const STORE: bool>(
    from: &Lines<'_, F>,
    live: u32,
    (guess, room, exponents): (F, Room<F>, &Field),
    (e, pitch): (&mut [F], usize),
    out: &mut Summary<Field>,
) {
    #[inline(never)]
    fn kernel<S: Isa, F: Element, const STORE: bool>(
        simd: S,
        from: &Lines<'_, F>,
        live: u32,
        (guess, room, exponents): (F, Room<F>, &Field),
        (e, pitch): (&mut [F], usize),
        out: &mut Summary<Field>,
    ) {
        simd.vectorize(
            #[inline(always)]
            || {
                let n = simd::lanes::<S, F>();
                let zero = splat::<S, F>(simd, F::of(0.0));
                let mut shifts = [[F::of(0.0); ROWS]; 2];
                for at in (0..ROWS).step_by(n) {
                    let exponent = F::load_narrow(simd, &exponents.0[at..]);
                    let headroom = room.of_guess::<S>(simd, exponent);
                    let guess = splat::<S, F>(simd, guess);
                    let (shift, k) = Shift::<S, F>::of_max(simd, guess, headroom);
                    F::store_wide::<S>(k, &mut out.k.0[at..]);
                    for (part, to) in shift.parts().into_iter().zip(&mut shifts) {
                        simd::store::<S, F>(part, &mut to[at..]);
                    }
                }
                for first in (0..from.count()).step_by(n) {
                    let (mut max, mut top) = ([zero; 16], [zero; 16]);
                    let mut rests = [splat::<S, f64>(simd, 0.0); 16];
                    let rows = first..(first + n).min(from.count());
                    for (i, row) in rows.enumerate() {
                        if live >> row & 1 == 0 {
                            continue;
                        }
                        let shift = [shifts[0][row], shifts[1][row]].map(
                            #[inline(always)]
                            |part| splat::<S, F>(simd, part),
                        );
                        let mut pass =
                            Sweep::<S, F, STORE>::new(simd, Shift::within_reach(simd, shift));
                        let x = from.line(row);
                        let e = if STORE { &mut e[row * pitch..][..x.len()] } else { &mut [] };
                        walk(simd, x, e, &mut pass);
                        if F::KIND == Kind::F64 {
                            // Added up with what roundings take.
                            let k = out.k.0[row];
                            let s = pass.summary(simd, F::of(k));
                            (out.max.0[row], out.rest.0[row], out.ties.0[row]) =
                                (s.max, s.rest, s.ties);
                        } else {
                            [max[i], top[i]] = pass.lanes();
                            rests[i] = pass.rest.folded();
                        }
                    }
                    if F::KIND == Kind::F64 {
                        continue;
                    }
                    let (maxima, tops) = (turned::<S, F>(max), turned::<S, F>(top));
                    let (mut max, mut top) = (maxima[0], tops[0]);
                    let mut rest = F::Wide::<S>::zero(simd);
                    for (m, e) in maxima[1..n].iter().zip(&tops[1..n]) {
                        max = m.max(max);
                        rest.add(top.min(*e));
                        top = e.max(top);
                    }
                    F::store_wide::<S>(max, &mut out.max.0[first..]);
                    rest.store(&mut out.rest.0[first..]);
                    let wide = simd::lanes::<S, f64>();
                    for at in (0..n).step_by(wide) {
                        let mut square = [splat::<S, f64>(simd, 0.0); 16];
                        square[..wide].copy_from_slice(&rests[at..at + wide]);
                        let to = &mut out.rest.0[first + at..];
                        let mut rest = simd::load::<S, f64>(simd, to);
                        for part in &turned::<S, f64>(square)[..wide] {
                            rest += *part;
                        }
                        simd::store::<S, f64>(rest, to);
                    }
                }
            },
        );
    }
    (out.center, out.ties) = (Field([0.0; ROWS]), Field([1.0; ROWS]));
    let unit = (guess, room, exponents);
    dispatch!(simd::level(), s => kernel::<_, F, STORE>(s, from, live, unit, (e, pitch), out));
}

/// A pass that knows the maximum, as the sums of masses do: a class at the maximum takes no part in
/// the rest, so that nothing cancels.
struct Against<'b, S: Isa, F: Element, P: Parts, const STORE: bool> {
    shift: Shift<S, F>,
    max: V<F, S>,
    mass: &'b RowMass<'b, F>,
    /// What each lane has taken for the rest.
    taken: [V<F, S>; 2],
    rest: F::Wide<S>,
    ties: V<F, S>,
    picked: V<F, S>,
    above: V<F, S>,
    sums: MassSums<S, F>,
    parts: PhantomData<P>,
}

impl<S: Isa, F: Element, P: Parts, const STORE: bool> Pass<S, F> for Against<'_, S, F, P, STORE> {
    const LANES: usize = 2;
    const ROUNDS: usize = 1;
    const STORE: bool = STORE;

    #[inline(always)]
    fn take(&mut self, simd: S, lane: usize, x: V<F, S>, at: usize, len: usize) -> V<F, S> {
        let zero = splat::<S, F>(simd, F::of(0.0));
        let one = splat::<S, F>(simd, F::of(1.0));
        let e = self.shift.exp::<true>(simd, x);
        let below = x.simd_ne(self.max);
        self.taken[lane] = select::<S, F>(below, e, zero);
        self.ties += select::<S, F>(below, zero, one);
        if P::USED {
            let q = if P::OWN { [e, zero] } else { self.mass.q::<P, S>(simd, at, len) };
            self.sums.take::<P>(simd, q, below, self.max, x);
        }
        if P::RANKED {
            self.above += select::<S, F>(x.simd_gt(self.picked), one, zero);
        }
        e
    }

    #[inline(always)]
    fn add_up(&mut self, simd: S) {
        for rest in &mut self.taken {
            self.rest.add(*rest);
            *rest = splat::<S, F>(simd, F::of(0.0));
        }
    }
}

/// Summarises a block of logits against `max`, which none exceeds, and where `STORE` keeps the
/// exponentials in `e`.
pub(super) fn summarise<P: Parts, F: Element, const STORE: bool>(
    x: &[F],
    max: F,
    headroom: F,
    mass: &RowMass<'_, F>,
    e: &mut [F],
) -> Summary {
    #[inline(never)]
    fn kernel<P: Parts, S: Isa, F: Element, const STORE: bool>(
        simd: S,
        x: &[F],
        max: F,
        headroom: F,
        mass: &RowMass<'_, F>,
        e: &mut [F],
    ) -> Summary {
        simd.vectorize(
            #[inline(always)]
            || {
                let highest = splat::<S, F>(simd, max);
                let (shift, k) =
                    Shift::<S, F>::of_max(simd, highest, splat::<S, F>(simd, headroom));
                let mut pass = Against::<S, F, P, STORE> {
                    shift,
                    max: highest,
                    mass,
                    taken: [splat::<S, F>(simd, F::of(0.0)); 2],
                    rest: F::Wide::<S>::zero(simd),
                    ties: splat::<S, F>(simd, F::of(0.0)),
                    picked: splat::<S, F>(simd, mass.picked),
                    above: splat::<S, F>(simd, F::of(0.0)),
                    sums: MassSums::zero(simd),
                    parts: PhantomData,
                };
                walk(simd, x, e, &mut pass);
                Summary {
                    max: max.wide(),
                    center: shift.center[0].wide(),
                    k: k[0].wide(),
                    rest: pass.rest.total(),
                    ties: pass.ties.reduce_sum().wide(),
                    dot: pass.sums.dot.total(),
                    mass_top: pass.sums.top.total(),
                    mass_rest: pass.sums.rest.total(),
                    above: pass.above.reduce_sum().wide(),
                }
            },
        )
    }
    let s = dispatch!(simd::level(), s => kernel::<P, _, F, STORE>(s, x, max, headroom, mass, e));
    if STORE {
        mend_infinite(x, &s, e);
    }
    s
}

/// Exponentials in the unit of a summary: the second pass over a row too long to keep them.
pub(super) fn exponentials<F: Element>(x: &[F], unit: &Summary, e: &mut [F]) {
    #[inline(never)]
    fn kernel<S: Isa, F: Element>(simd: S, x: &[F], center: F, k: F, e: &mut [F]) {
        simd.vectorize(
            #[inline(always)]
            || {
                let n = simd::lanes::<S, F>();
                let shift =
                    Shift::<S, F>::new(simd, splat::<S, F>(simd, center), splat::<S, F>(simd, k));
                let whole = x.len() - x.len() % n;
                let ((x, x_tail), (e, e_tail)) = (x.split_at(whole), e.split_at_mut(whole));
                for (x, e) in x.chunks_exact(n).zip(e.chunks_exact_mut(n)) {
                    simd::store::<S, F>(shift.exp::<true>(simd, simd::load(simd, x)), e);
                }
                if !x_tail.is_empty() {
                    let x = F::load_partial(simd, x_tail, F::of(f64::NEG_INFINITY));
                    let e_tail = &mut e_tail[..x_tail.len()];
                    F::store_partial(simd, shift.exp::<true>(simd, x), e_tail);
                }
            },
        );
    }
    let (center, k) = (F::of(unit.center), F::of(unit.k));
    dispatch!(simd::level(), s => kernel(s, x, center, k, e));
    mend_infinite(x, unit, e);
}

/// At an infinite maximum the shift leaves NaN where the limit is known: the maximum itself, and
/// nothing where all is -inf.
pub(in crate::rows) fn mend_infinite<F: Element>(x: &[F], unit: &Summary, e: &mut [F]) {
    if unit.max.is_finite() || unit.max.is_nan() {
        return;
    }
    let top = if unit.max > 0.0 { (-unit.k).exp2() } else { 0.0 };
    for (e, x) in e.iter_mut().zip(x) {
        if x.wide() == unit.max {
            *e = F::of(top);
        }
    }
}

/// The inputs of an output: exponentials, logits and masses of a block of one row; what the map
/// does not read may be empty.
#[derive(Clone, Copy, Debug)]
pub(in crate::rows) struct Sources<'b, F> {
    pub(in crate::rows) e: &'b [F],
    pub(in crate::rows) x: &'b [F],
    pub(in crate::rows) mass: RowMass<'b, F>,
}

/// Writes an output's block of one row, past the caches where `stream`.
pub(in crate::rows) fn emit<M: Map, P: Parts, F: Element>(
    coefficients: &Coefficients<F>,
    from: &Sources<'_, F>,
    out: &mut [F],
    stream: bool,
) {
    #[inline(never)]
    fn kernel<M: Map, P: Parts, S: Isa, F: Element>(
        simd: S,
        coefficients: &Coefficients<F>,
        from: &Sources<'_, F>,
        out: &mut [F],
        stream: bool,
    ) {
        simd.vectorize(
            #[inline(always)]
            || {
                let n = simd::lanes::<S, F>();
                let c = Coefficients {
                    a: splat::<S, F>(simd, coefficients.a),
                    b: splat::<S, F>(simd, coefficients.b),
                    c: splat::<S, F>(simd, coefficients.c),
                    max: splat::<S, F>(simd, coefficients.max),
                    at_max: splat::<S, F>(simd, coefficients.at_max),
                };
                let bytes = n * size_of::<F>();
                // Streaming stores need whole, aligned vectors.
                let head = if stream {
                    let misaligned = out.as_ptr().addr() % bytes;
                    ((bytes - misaligned) % bytes / size_of::<F>()).min(out.len())
                } else {
                    0
                };
                let (first, body) = out.split_at_mut(head);
                if head > 0 {
                    F::store_partial(simd, value::<M, P, S, F>(simd, &c, from, 0, head), first);
                }
                let mut at = head;
                let mut whole = body.chunks_exact_mut(n);
                if stream {
                    for out in &mut whole {
                        F::stream(simd, value::<M, P, S, F>(simd, &c, from, at, n), out);
                        at += n;
                    }
                } else {
                    for out in &mut whole {
                        simd::store::<S, F>(value::<M, P, S, F>(simd, &c, from, at, n), out);
                        at += n;
                    }
                }
                let tail = whole.into_remainder();
                if !tail.is_empty() {
                    F::store_partial(
                        simd,
                        value::<M, P, S, F>(simd, &c, from, at, tail.len()),
                        tail,
                    );
                }
            },
        );
    }
    dispatch!(simd::level(), s => kernel::<M, P, _, F>(s, coefficients, from, out, stream));
}

/// A vector of an output from class `at` of the block on, of which `len` are there.
#[inline(always)]
fn value<M: Map, P: Parts, S: Isa, F: Element>(
    simd: S,
    c: &Coefficients<V<F, S>>,
    from: &Sources<'_, F>,
    at: usize,
    len: usize,
) -> V<F, S> {
    let zero = splat::<S, F>(simd, F::of(0.0));
    let e = if M::EXP { load_classes(simd, from.e, at, len) } else { zero };
    let x = if M::LOGIT { load_classes(simd, from.x, at, len) } else { zero };
    let q = if M::MASS { from.mass.q::<P, S>(simd, at, len)[0] } else { zero };
    M::apply::<S, F>(simd, c, e, x, q)
}
