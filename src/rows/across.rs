//! Kernels across rows: lanes are rows, the classes of a tile follow each other.

use super::along::mend_infinite;
use super::emit::Map;
use super::mass::{Parts, TileMass, load_rows};
use super::settle::Coefficients;
use super::summary::Summaries;
use crate::simd::exp::Shift;
use crate::simd::sum::{CHAIN, Wide};
use crate::simd::{self, Element, Isa, V, dispatch, select, splat};
use crate::view::{Tile, TileMut};
use fearless_simd::prelude::*;

/// Summarises a tile's rows and, where `STORE`, keeps the exponentials in `e`, laid as the tile.
/// `headroom` holds a value a row.
pub(super) fn summarise<P: Parts, F: Element, const STORE: bool>(
    x: &Tile<'_, F>,
    (rows, classes): (usize, usize),
    headroom: &[F],
    mass: &TileMass<'_, F>,
    e: &mut [F],
    out: &mut Summaries,
) {
    #[inline(never)]
    fn kernel<P: Parts, S: Isa, F: Element, const STORE: bool>(
        simd: S,
        x: &Tile<'_, F>,
        (rows, classes): (usize, usize),
        headroom: &[F],
        mass: &TileMass<'_, F>,
        e: &mut [F],
        out: &mut Summaries,
    ) {
        simd.vectorize(
            #[inline(always)]
            || {
                let n = simd::lanes::<S, F>();
                let zero = splat::<S, F>(simd, F::of(0.0));
                let one = splat::<S, F>(simd, F::of(1.0));
                let mut at = 0;
                while at < rows {
                    let mut max = splat::<S, F>(simd, F::of(f64::NEG_INFINITY));
                    for class in 0..classes {
                        // In this order a NaN is passed over; the exponentials will find it.
                        max = load_rows::<S, F>(simd, x.class(class), at).max(max);
                    }
                    let (shift, k) =
                        Shift::<S, F>::of_max(simd, max, simd::load(simd, &headroom[at..]));
                    let wide = F::Wide::<S>::zero(simd);
                    let (mut rest, mut dot, mut total, mut total_rest) = (wide, wide, wide, wide);
                    let mut ties = zero;
                    let mut first = 0;
                    while first < classes {
                        let last = (first + CHAIN).min(classes);
                        let mut chain = [zero; 4];
                        for class in first..last {
                            let v = load_rows::<S, F>(simd, x.class(class), at);
                            let exp = shift.exp(simd, v);
                            let top = v.simd_eq(max);
                            chain[0] = select::<S, F>(top, chain[0], chain[0] + exp);
                            ties = select::<S, F>(top, ties + one, ties);
                            if P::USED {
                                let q = mass.q::<P, S>(simd, class, at);
                                let gap = select::<S, F>(top, zero, max - v);
                                // No mass on an infinite gap is nothing.
                                chain[1] +=
                                    select::<S, F>(q.simd_eq(zero), zero, q * gap);
                                chain[2] += q;
                                chain[3] += select::<S, F>(top, zero, q);
                            }
                            if STORE {
                                put::<S, F>(simd, exp, &mut e[class * rows..(class + 1) * rows], at);
                            }
                        }
                        rest.add(chain[0]);
                        if P::USED {
                            dot.add(chain[1]);
                            total.add(chain[2]);
                            total_rest.add(chain[3]);
                        }
                        first = last;
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
                    at += n;
                }
            },
        );
    }
    dispatch!(simd::level(), s => kernel::<P, _, F, STORE>(s, x, (rows, classes), headroom, mass, e, out));
    if STORE {
        for row in 0..rows {
            let max = out.max[row];
            if max.is_infinite() {
                for class in 0..classes {
                    let x = &x.class(class)[row..=row];
                    let e = &mut e[class * rows + row..=class * rows + row];
                    mend_infinite(x, F::of(max), headroom[row], e);
                }
            }
        }
    }
}

/// Exponentials of a tile's rows with shifts that are known: the second pass over classes too many
/// to keep.
pub(super) fn exponentials<F: Element>(
    x: &Tile<'_, F>,
    (rows, classes): (usize, usize),
    headroom: &[F],
    summaries: &Summaries,
    e: &mut [F],
) {
    #[inline(never)]
    fn kernel<S: Isa, F: Element>(
        simd: S,
        x: &Tile<'_, F>,
        (rows, classes): (usize, usize),
        centers: &[F],
        ks: &[F],
        e: &mut [F],
    ) {
        simd.vectorize(
            #[inline(always)]
            || {
                let n = simd::lanes::<S, F>();
                for at in (0..rows).step_by(n) {
                    let shift = Shift::<S, F>::new(
                        simd,
                        load_rows(simd, centers, at),
                        load_rows(simd, ks, at),
                    );
                    for class in 0..classes {
                        let exp = shift.exp(simd, load_rows(simd, x.class(class), at));
                        put::<S, F>(simd, exp, &mut e[class * rows..(class + 1) * rows], at);
                    }
                }
            },
        );
    }
    let narrow = |from: &[f64]| -> Vec<F> { from[..rows].iter().map(|v| F::of(*v)).collect() };
    let (centers, ks) = (narrow(&summaries.center), narrow(&summaries.k));
    dispatch!(simd::level(), s => kernel(s, x, (rows, classes), &centers, &ks, e));
    for row in (0..rows).filter(|r| summaries.max[*r].is_infinite()) {
        for class in 0..classes {
            let e = &mut e[class * rows + row..=class * rows + row];
            mend_infinite(&x.class(class)[row..=row], F::of(summaries.max[row]), headroom[row], e);
        }
    }
}

/// Writes an output's tile. Where `ignored` is given, its rows (nonzero) get zeros instead.
#[allow(clippy::too_many_arguments, reason = "a kernel's sources and sink")]
pub(super) fn emit<M: Map, P: Parts, F: Element>(
    coefficients: &Coefficients<&[F]>,
    ignored: Option<&[F]>,
    e: &Tile<'_, F>,
    x: &Tile<'_, F>,
    mass: &TileMass<'_, F>,
    out: &mut TileMut<'_, F>,
    (rows, classes): (usize, usize),
) {
    #[inline(never)]
    #[allow(clippy::too_many_arguments, reason = "a kernel's sources and sink")]
    fn kernel<M: Map, P: Parts, S: Isa, F: Element>(
        simd: S,
        coefficients: &Coefficients<&[F]>,
        ignored: Option<&[F]>,
        e: &Tile<'_, F>,
        x: &Tile<'_, F>,
        mass: &TileMass<'_, F>,
        out: &mut TileMut<'_, F>,
        (rows, classes): (usize, usize),
    ) {
        simd.vectorize(
            #[inline(always)]
            || {
                let zero = splat::<S, F>(simd, F::of(0.0));
                for at in (0..rows).step_by(simd::lanes::<S, F>()) {
                    let c = Coefficients {
                        a: simd::load::<S, F>(simd, &coefficients.a[at..]),
                        b: simd::load::<S, F>(simd, &coefficients.b[at..]),
                        max: simd::load::<S, F>(simd, &coefficients.max[at..]),
                        at_max: simd::load::<S, F>(simd, &coefficients.at_max[at..]),
                    };
                    let live = match ignored {
                        Some(rows) => simd::load::<S, F>(simd, &rows[at..]).simd_eq(zero),
                        None => zero.simd_eq(zero),
                    };
                    for class in 0..classes {
                        let e = if M::EXP { load_rows(simd, e.class(class), at) } else { zero };
                        let x = if M::LOGIT { load_rows(simd, x.class(class), at) } else { zero };
                        let q = if M::MASS { mass.q::<P, S>(simd, class, at) } else { zero };
                        let mut value = M::apply::<S, F>(&c, e, x, q);
                        if ignored.is_some() {
                            value = select::<S, F>(live, value, zero);
                        }
                        put::<S, F>(simd, value, out.class(class), at);
                    }
                }
            },
        );
    }
    dispatch!(simd::level(), s =>
        kernel::<M, P, _, F>(s, coefficients, ignored, e, x, mass, out, (rows, classes)));
}

/// Writes a vector to the rows from `at` on, as many as there are.
#[inline(always)]
fn put<S: Isa, F: Element>(simd: S, v: V<F, S>, rows: &mut [F], at: usize) {
    let rows = &mut rows[at..];
    if rows.len() >= simd::lanes::<S, F>() {
        simd::store::<S, F>(v, rows);
    } else {
        F::store_partial(simd, v, rows);
    }
}
