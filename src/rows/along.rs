//! Kernels along the classes of one row: lanes are classes.

use super::emit::Map;
use super::mass::{Parts, RowMass, load_classes};
use super::settle::Coefficients;
use super::summary::Summary;
use crate::simd::exp::Shift;
use crate::simd::sum::{CHAIN, Wide};
use crate::simd::{self, Element, Isa, V, dispatch, select, splat};
use fearless_simd::prelude::*;

/// The largest of some logits; NaN only where the instruction set has it so.
pub(super) fn largest<F: Element>(x: &[F]) -> F {
    #[inline(never)]
    fn kernel<S: Isa, F: Element>(simd: S, x: &[F]) -> F {
        simd.vectorize(
            #[inline(always)]
            || {
                let n = simd::lanes::<S, F>();
                let lowest = F::of(f64::NEG_INFINITY);
                let mut max = [splat::<S, F>(simd, lowest); 8];
                if let Some(end) = x.len().checked_sub(8 * n) {
                    // The last vectors may have been seen before: that changes no maximum.
                    for at in (0..end).step_by(8 * n).chain([end]) {
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
    dispatch!(simd::level(), s => kernel(s, x))
}

/// Summarises a block of logits against `max`, which none exceeds, and where `STORE` keeps the
/// exponentials in `e`. Asks for the memory `ahead` elements on while it computes.
pub(super) fn summarise<P: Parts, F: Element, const STORE: bool>(
    x: &[F],
    max: F,
    headroom: F,
    mass: &RowMass<'_, F>,
    e: &mut [F],
    ahead: usize,
) -> Summary {
    #[inline(never)]
    fn kernel<P: Parts, S: Isa, F: Element, const STORE: bool>(
        simd: S,
        x: &[F],
        max: F,
        headroom: F,
        mass: &RowMass<'_, F>,
        e: &mut [F],
        ahead: usize,
    ) -> Summary {
        simd.vectorize(
            #[inline(always)]
            || {
                let n = simd::lanes::<S, F>();
                // Accumulators cover the latency of an addition; masses need the registers.
                let unroll = if P::USED { 2 } else { 4 };
                let (shift, k) = Shift::<S, F>::of_max(
                    simd,
                    splat::<S, F>(simd, max),
                    splat::<S, F>(simd, headroom),
                );
                let mut block = Sums::<S, F>::new(simd, max);
                let mut at = 0;
                for x in x.chunks(unroll * n * CHAIN) {
                    let mut lanes = [Lanes::<S, F>::new(simd); 4];
                    let mut wide = x.chunks_exact(unroll * n);
                    for x in &mut wide {
                        for line in (0..unroll * n).step_by(64 / size_of::<F>()) {
                            simd.prefetch(&x[line..], ahead);
                        }
                        for (j, lanes) in lanes.iter_mut().take(unroll).enumerate() {
                            let v = simd::load::<S, F>(simd, &x[j * n..]);
                            let exp = block.add::<P>(simd, &shift, v, mass, at + j * n, n, lanes);
                            if STORE {
                                simd::store::<S, F>(exp, &mut e[at + j * n..]);
                            }
                        }
                        at += unroll * n;
                    }
                    let mut narrow = wide.remainder().chunks_exact(n);
                    for x in &mut narrow {
                        let v = simd::load::<S, F>(simd, x);
                        let exp = block.add::<P>(simd, &shift, v, mass, at, n, &mut lanes[0]);
                        if STORE {
                            simd::store::<S, F>(exp, &mut e[at..]);
                        }
                        at += n;
                    }
                    let rest = narrow.remainder();
                    if !rest.is_empty() {
                        let v = F::load_partial(simd, rest, F::of(f64::NEG_INFINITY));
                        let len = rest.len();
                        let exp = block.add::<P>(simd, &shift, v, mass, at, len, &mut lanes[1]);
                        if STORE {
                            F::store_partial(simd, exp, &mut e[at..at + len]);
                        }
                        at += len;
                    }
                    block.flush::<P>(&lanes);
                }
                block.summary(max, shift.center[0], k[0])
            },
        )
    }
    let s = dispatch!(simd::level(), s => kernel::<P, _, F, STORE>(s, x, max, headroom, mass, e, ahead));
    if STORE && max.wide().is_infinite() {
        mend_infinite(x, max, s.k, e);
    }
    s
}

/// At an infinite maximum the shift leaves NaN where the limit is known: the maximum itself, and
/// nothing where all is -inf.
#[cold]
pub(super) fn mend_infinite<F: Element>(x: &[F], max: F, k: f64, e: &mut [F]) {
    let top = if max.wide() > 0.0 { (-k).exp2() } else { 0.0 };
    for (e, x) in e.iter_mut().zip(x) {
        if *x == max {
            *e = F::of(top);
        }
    }
}

/// Sums of one accumulator, in the kernel's type.
#[derive(Clone, Copy)]
struct Lanes<S: Isa, F: Element> {
    rest: V<F, S>,
    ties: V<F, S>,
    dot: V<F, S>,
    mass: V<F, S>,
    mass_rest: V<F, S>,
}

impl<S: Isa, F: Element> Lanes<S, F> {
    #[inline(always)]
    fn new(simd: S) -> Self {
        let zero = splat::<S, F>(simd, F::of(0.0));
        Self { rest: zero, ties: zero, dot: zero, mass: zero, mass_rest: zero }
    }
}

/// Sums of a block, widened.
struct Sums<S: Isa, F: Element> {
    max: V<F, S>,
    zero: V<F, S>,
    one: V<F, S>,
    rest: F::Wide<S>,
    ties: V<F, S>,
    dot: F::Wide<S>,
    mass: F::Wide<S>,
    mass_rest: F::Wide<S>,
}

impl<S: Isa, F: Element> Sums<S, F> {
    #[inline(always)]
    fn new(simd: S, max: F) -> Self {
        let wide = F::Wide::<S>::zero(simd);
        let zero = splat::<S, F>(simd, F::of(0.0));
        let one = splat::<S, F>(simd, F::of(1.0));
        let max = splat::<S, F>(simd, max);
        Self { max, zero, one, rest: wide, ties: zero, dot: wide, mass: wide, mass_rest: wide }
    }

    /// Adds a vector of logits, of which `n` are there; returns their exponentials.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "the inside of a kernel")]
    fn add<P: Parts>(
        &self,
        simd: S,
        shift: &Shift<S, F>,
        x: V<F, S>,
        mass: &RowMass<'_, F>,
        at: usize,
        n: usize,
        to: &mut Lanes<S, F>,
    ) -> V<F, S> {
        let e = shift.exp(simd, x);
        let top = x.simd_eq(self.max);
        to.rest = select::<S, F>(top, to.rest, to.rest + e);
        to.ties = select::<S, F>(top, to.ties + self.one, to.ties);
        if P::USED {
            let q = mass.q::<P, S>(simd, at, n);
            let gap = select::<S, F>(top, self.zero, self.max - x);
            // No mass on an infinite gap is nothing.
            to.dot += select::<S, F>(q.simd_eq(self.zero), self.zero, q * gap);
            to.mass += q;
            to.mass_rest += select::<S, F>(top, self.zero, q);
        }
        e
    }

    #[inline(always)]
    fn flush<P: Parts>(&mut self, lanes: &[Lanes<S, F>; 4]) {
        let [a, b, c, d] = lanes;
        if P::USED {
            // Two accumulators are in use.
            self.rest.add(a.rest + b.rest);
            self.ties += a.ties + b.ties;
            self.dot.add(a.dot + b.dot);
            self.mass.add(a.mass + b.mass);
            self.mass_rest.add(a.mass_rest + b.mass_rest);
        } else {
            self.rest.add((a.rest + b.rest) + (c.rest + d.rest));
            self.ties += (a.ties + b.ties) + (c.ties + d.ties);
        }
    }

    #[inline(always)]
    fn summary(self, max: F, center: F, k: F) -> Summary {
        Summary {
            max: max.wide(),
            center: center.wide(),
            k: k.wide(),
            rest: self.rest.total(),
            ties: self.ties.reduce_sum().wide(),
            dot: self.dot.total(),
            mass: self.mass.total(),
            mass_rest: self.mass_rest.total(),
        }
    }
}

/// The inputs of an output: exponentials, logits and masses of a block of one row; what the map
/// does not read may be empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sources<'b, F> {
    pub(super) e: &'b [F],
    pub(super) x: &'b [F],
    pub(super) mass: RowMass<'b, F>,
}

/// Writes an output's block of one row, past the caches where `stream`.
pub(super) fn emit<M: Map, P: Parts, F: Element>(
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
    let q = if M::MASS { from.mass.q::<P, S>(simd, at, len) } else { zero };
    M::apply::<S, F>(c, e, x, q)
}
