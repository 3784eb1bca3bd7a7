//! Kernels across rows: lanes are rows. A tile holds a class after the other, [`step`] rows each,
//! of which the last are padding.

use super::along::mend_infinite;
use super::emit::Map;
use super::mass::{Parts, TileMass};
use super::settle::Coefficients;
use super::summary::Summaries;
use crate::simd::exp::Shift;
use crate::simd::sum::{CHAIN, Wide};
use crate::simd::{self, Element, Isa, V, dispatch, select, splat};
use crate::view::LinesMut;
use fearless_simd::prelude::*;

/// Rows a class takes in a tile: whole vectors at every level, and an odd number of cache lines so
/// that the classes of a row do not meet in one set of the cache.
pub(super) fn step(rows: usize) -> usize {
    (rows.div_ceil(16) | 1) * 16
}

/// A tile of a number of rows and of classes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) rows: usize,
    pub(super) classes: usize,
}

/// Summarises a tile's rows and, where `STORE`, keeps the exponentials in `e`, laid as the tile.
/// `headroom` holds a value a row.
pub(super) fn summarise<P: Parts, F: Element, const STORE: bool>(
    x: &[F],
    size: Size,
    headroom: &[F],
    mass: &TileMass<'_, F>,
    e: &mut [F],
    out: &mut Summaries,
) {
    #[inline(never)]
    fn kernel<P: Parts, S: Isa, F: Element, const STORE: bool>(
        simd: S,
        x: &[F],
        Size { rows, classes }: Size,
        headroom: &[F],
        mass: &TileMass<'_, F>,
        e: &mut [F],
        out: &mut Summaries,
    ) {
        simd.vectorize(
            #[inline(always)]
            || {
                let n = simd::lanes::<S, F>();
                let step = step(rows);
                let zero = splat::<S, F>(simd, F::of(0.0));
                let one = splat::<S, F>(simd, F::of(1.0));
                for at in (0..rows).step_by(n) {
                    let mut max = splat::<S, F>(simd, F::of(f64::NEG_INFINITY));
                    for x in x.chunks_exact(step).take(classes) {
                        // In this order a NaN is passed over; the exponentials will find it.
                        max = simd::load::<S, F>(simd, &x[at..]).max(max);
                    }
                    let (shift, k) =
                        Shift::<S, F>::of_max(simd, max, simd::load(simd, &headroom[at..]));
                    let wide = F::Wide::<S>::zero(simd);
                    let (mut rest, mut dot, mut total, mut total_rest) = (wide, wide, wide, wide);
                    let mut ties = zero;
                    for (chunk, x) in x[..classes * step].chunks(CHAIN * step).enumerate() {
                        let first = chunk * CHAIN;
                        let mut chain = [zero; 4];
                        for (i, x) in x.chunks_exact(step).enumerate() {
                            let v = simd::load::<S, F>(simd, &x[at..]);
                            let exp = shift.exp(simd, v);
                            let top = v.simd_eq(max);
                            chain[0] = select::<S, F>(top, chain[0], chain[0] + exp);
                            ties = select::<S, F>(top, ties + one, ties);
                            if P::USED {
                                let q = mass.q::<P, S>(simd, first + i, step, at);
                                let gap = select::<S, F>(top, zero, max - v);
                                // No mass on an infinite gap is nothing.
                                chain[1] += select::<S, F>(q.simd_eq(zero), zero, q * gap);
                                chain[2] += q;
                                chain[3] += select::<S, F>(top, zero, q);
                            }
                            if STORE {
                                simd::store::<S, F>(exp, &mut e[(first + i) * step + at..]);
                            }
                        }
                        rest.add(chain[0]);
                        if P::USED {
                            dot.add(chain[1]);
                            total.add(chain[2]);
                            total_rest.add(chain[3]);
                        }
                    }
                    F::store_wide::<S>(max, &mut out.max[at..]);
                    F::store_wide::<S>(shift.center, &mut out.center[at..]);
                    F::store_wide::<S>(k, &mut out.k[at..]);
                    F::store_wide::<S>(ties, &mut out.ties[at..]);
                    rest.store(&mut out.rest[at..]);
                    if P::USED {
                        dot.store(&mut out.dot[at..]);
                        total.store(&mut out.mass[at..]);
                        total_rest.store(&mut out.mass_rest[at..]);
                    }
                }
            },
        );
    }
    dispatch!(simd::level(), s =>
        kernel::<P, _, F, STORE>(s, x, size, headroom, mass, e, out));
    if STORE {
        mend(x, size, headroom, out, e);
    }
}

/// Exponentials of a tile's rows with shifts that are known: the second pass over classes too many
/// to keep.
pub(super) fn exponentials<F: Element>(
    x: &[F],
    size: Size,
    headroom: &[F],
    summaries: &Summaries,
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
                        let exp = shift.exp(simd, simd::load::<S, F>(simd, &x[at..]));
                        simd::store::<S, F>(exp, &mut e[at..]);
                    }
                }
            },
        );
    }
    let n = step(size.rows);
    let narrow = |from: &[f64]| -> Vec<F> {
        let mut padded: Vec<F> = from[..size.rows].iter().map(|v| F::of(*v)).collect();
        padded.resize(n, F::of(0.0));
        padded
    };
    let (centers, ks) = (narrow(&summaries.center), narrow(&summaries.k));
    let x = &x[..n * size.classes];
    dispatch!(simd::level(), s => kernel(s, x, size.rows, &centers, &ks, e));
    mend(x, size, headroom, summaries, e);
}

/// [`mend_infinite`] for the rows that need it.
fn mend<F: Element>(x: &[F], size: Size, headroom: &[F], summaries: &Summaries, e: &mut [F]) {
    let step = step(size.rows);
    for row in (0..size.rows).filter(|row| summaries.max[*row].is_infinite()) {
        for class in 0..size.classes {
            let at = class * step + row;
            let max = F::of(summaries.max[row]);
            mend_infinite(&x[at..=at], max, headroom[row], &mut e[at..=at]);
        }
    }
}

/// The inputs of an output's tile; what the map does not read may be empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sources<'b, F> {
    /// One of each a row.
    pub(super) coefficients: Coefficients<&'b [F]>,
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
    let c = if M::LOGIT {
        Coefficients {
            a,
            b: simd::load::<S, F>(simd, &c.b[at..]),
            max: simd::load::<S, F>(simd, &c.max[at..]),
            at_max: simd::load::<S, F>(simd, &c.at_max[at..]),
        }
    } else {
        Coefficients { a, b: zero, max: zero, at_max: zero }
    };
    let e = if M::EXP { simd::load(simd, &from.e[class * step + at..]) } else { zero };
    let x = if M::LOGIT { simd::load(simd, &from.x[class * step + at..]) } else { zero };
    let q = if M::MASS { from.mass.q::<P, S>(simd, class, step, at) } else { zero };
    let value = M::apply::<S, F>(&c, e, x, q);
    match from.ignored {
        Some(rows) => {
            let live = simd::load::<S, F>(simd, &rows[at..]).simd_eq(zero);
            select::<S, F>(live, value, zero)
        }
        None => value,
    }
}
