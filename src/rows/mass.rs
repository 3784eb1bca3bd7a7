//! How much of the target lies on each class, beyond a single target class.
//!
//! `q = (share * target + base) * weight`: soft targets, their smoothing, the even spread of a
//! smoothed hard target (`share = 0`), class weights. Each part that is absent costs nothing.
//!
//! Of `f64`, whose ulp has no room for the roundings of a product of three, a mass is held in two
//! numbers; `f32` serves for masses that are not products.

use crate::float::Kind;
use crate::simd::sum::Wide;
use crate::simd::{self, Element, Isa, V, select, splat};
use crate::view::Rows;
use fearless_simd::SimdBase;
use fearless_simd::prelude::*;

/// The masses of a call.
#[derive(Clone, Debug)]
pub(crate) struct Mass<'a, F> {
    /// Soft targets, shaped as the input.
    pub(crate) soft: Option<Rows<'a>>,
    /// Class weights.
    pub(crate) weight: Option<Vec<F>>,
    pub(crate) share: [F; 2],
    pub(crate) base: [F; 2],
    /// Whether the mass of a class is its own exponential instead, in the unit of its summary.
    pub(crate) own: bool,
    /// Whether classes above the target are counted besides.
    pub(crate) ranked: bool,
}

impl<F: Element> Mass<'_, F> {
    /// Each class's own exponential.
    pub(crate) fn own(ranked: bool) -> Self {
        let zero = [F::of(0.0); 2];
        Self { soft: None, weight: None, share: zero, base: zero, own: true, ranked }
    }
}

/// Which parts a mass has, known when a kernel is compiled.
pub(crate) trait Parts: Copy + 'static {
    /// Whether there is any mass.
    const USED: bool;
    const SOFT: bool;
    const WEIGHTED: bool;
    /// Whether it is the exponential itself.
    const OWN: bool;
    /// Whether classes above the target are counted.
    const RANKED: bool;
}

macro_rules! parts {
    ($($name:ident: $used:literal, $soft:literal, $weighted:literal, $own:literal, $ranked:literal;)*) => {
        $(
            #[derive(Clone, Copy, Debug)]
            pub(crate) struct $name;
            impl Parts for $name {
                const USED: bool = $used;
                const SOFT: bool = $soft;
                const WEIGHTED: bool = $weighted;
                const OWN: bool = $own;
                const RANKED: bool = $ranked;
            }
        )*
    };
}

parts! {
    Nothing: false, false, false, false, false;
    Even: true, false, false, false, false;
    EvenWeighted: true, false, true, false, false;
    Soft: true, true, false, false, false;
    SoftWeighted: true, true, true, false, false;
    Own: true, false, false, true, false;
    OwnRanked: true, false, false, true, true;
}

/// Runs an expression with the type of a mass's parts bound to a name.
macro_rules! with_parts {
    ($mass:expr, $parts:ident => $body:expr) => {
        match $mass {
            None => {
                type $parts = $crate::rows::mass::Nothing;
                $body
            }
            Some(m) if m.ranked => {
                type $parts = $crate::rows::mass::OwnRanked;
                $body
            }
            Some(m) if m.own => {
                type $parts = $crate::rows::mass::Own;
                $body
            }
            Some(m) => match (m.soft.is_some(), m.weight.is_some()) {
                (false, false) => {
                    type $parts = $crate::rows::mass::Even;
                    $body
                }
                (false, true) => {
                    type $parts = $crate::rows::mass::EvenWeighted;
                    $body
                }
                (true, false) => {
                    type $parts = $crate::rows::mass::Soft;
                    $body
                }
                (true, true) => {
                    type $parts = $crate::rows::mass::SoftWeighted;
                    $body
                }
            },
        }
    };
}
pub(crate) use with_parts;

/// `q` from its parts, and what its roundings took.
#[inline(always)]
fn combine<P: Parts, S: Isa, F: Element>(
    simd: S,
    share: [F; 2],
    base: [F; 2],
    soft: impl FnOnce() -> V<F, S>,
    weight: impl FnOnce() -> V<F, S>,
) -> [V<F, S>; 2] {
    let [mut q, mut low] = base.map(
        #[inline(always)]
        |v| splat::<S, F>(simd, v),
    );
    if P::SOFT {
        let (soft, high) = (soft(), splat::<S, F>(simd, share[0]));
        if F::KIND == Kind::F64 {
            let [part, part_low] = F::times::<S>(simd, soft, high);
            let [sum, sum_low] = F::plus::<S>(simd, part, q);
            low = soft.mul_add(splat::<S, F>(simd, share[1]), low) + (part_low + sum_low);
            q = sum;
        } else {
            q = soft.mul_add(high, q);
        }
    }
    if P::WEIGHTED {
        let weight = weight();
        let [product, product_low] = F::times::<S>(simd, q, weight);
        low = low.mul_add(weight, product_low);
        q = product;
    }
    [q, low]
}

/// The sums that masses make: see [`super::summary::Summary`].
#[derive(Clone, Copy)]
pub(crate) struct MassSums<S: Isa, F: Element> {
    pub(crate) dot: F::Wide<S>,
    pub(crate) top: F::Wide<S>,
    pub(crate) rest: F::Wide<S>,
}

impl<S: Isa, F: Element> MassSums<S, F> {
    #[inline(always)]
    pub(crate) fn zero(simd: S) -> Self {
        let zero = F::Wide::<S>::zero(simd);
        Self { dot: zero, top: zero, rest: zero }
    }

    /// Takes the masses `q`, in two parts, of the logits `x` of which some are below the maximum.
    #[inline(always)]
    pub(crate) fn take<P: Parts>(
        &mut self,
        simd: S,
        q: [V<F, S>; 2],
        below: <V<F, S> as SimdBase<S>>::Mask,
        max: V<F, S>,
        x: V<F, S>,
    ) {
        let zero = splat::<S, F>(simd, F::of(0.0));
        // No mass on an infinite gap is nothing.
        let weighs = q[0].simd_ne(zero) & below;
        let [q_dot, low_dot, max, x] = [q[0], q[1], max, x].map(
            #[inline(always)]
            |v| select::<S, F>(weighs, v, zero),
        );
        self.dot.add_gap(simd, [q_dot, low_dot], max, x);
        if P::OWN {
            return;
        }
        self.top.add(select::<S, F>(below, zero, q[0]));
        self.rest.add(select::<S, F>(below, q[0], zero));
        if F::KIND == Kind::F64 {
            self.top.add(select::<S, F>(below, zero, q[1]));
            self.rest.add(select::<S, F>(below, q[1], zero));
        }
    }
}

/// The masses of a block of one row's classes: lanes are classes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowMass<'b, F> {
    pub(crate) soft: &'b [F],
    pub(crate) weight: &'b [F],
    pub(crate) share: [F; 2],
    pub(crate) base: [F; 2],
    /// The target's logit, above which classes are counted.
    pub(crate) picked: F,
}

impl<F: Element> RowMass<'_, F> {
    /// No mass anywhere.
    pub(crate) fn none() -> Self {
        let zero = [F::of(0.0); 2];
        Self { soft: &[], weight: &[], share: zero, base: zero, picked: zero[0] }
    }

    /// The masses of the classes from `at` on, in two parts; of `n` only where that is less than a
    /// vector.
    #[inline(always)]
    pub(crate) fn q<P: Parts, S: Isa>(&self, simd: S, at: usize, n: usize) -> [V<F, S>; 2] {
        let [q, low] = combine::<P, S, F>(
            simd,
            self.share,
            self.base,
            #[inline(always)]
            || load_classes(simd, self.soft, at, n),
            #[inline(always)]
            || load_classes(simd, self.weight, at, n),
        );
        if n == simd::lanes::<S, F>() || P::WEIGHTED {
            return [q, low];
        }
        // Beyond the classes there is no mass, where nothing else has made it 0.
        let mut keep = [F::of(0.0); 16];
        keep[..n].fill(F::of(1.0));
        let keep = simd::load::<S, F>(simd, &keep);
        [q * keep, low * keep]
    }
}

/// The masses of a tile: lanes are rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TileMass<'b, F> {
    /// Laid as the tile.
    pub(crate) soft: &'b [F],
    pub(crate) weight: &'b [F],
    pub(crate) share: [F; 2],
    pub(crate) base: [F; 2],
}

impl<F: Element> TileMass<'_, F> {
    /// No mass anywhere.
    pub(crate) fn none() -> Self {
        Self { soft: &[], weight: &[], share: [F::of(0.0); 2], base: [F::of(0.0); 2] }
    }

    /// The masses, in two parts, of a class in the rows from `at` on, of a tile with `step` rows a
    /// class.
    #[inline(always)]
    pub(crate) fn q<P: Parts, S: Isa>(
        &self,
        simd: S,
        class: usize,
        step: usize,
        at: usize,
    ) -> [V<F, S>; 2] {
        combine::<P, S, F>(
            simd,
            self.share,
            self.base,
            #[inline(always)]
            || simd::load(simd, &self.soft[class * step + at..]),
            #[inline(always)]
            || splat::<S, F>(simd, self.weight[class]),
        )
    }
}

/// A vector of the classes from `at` on, zero beyond the first `n`.
#[inline(always)]
pub(crate) fn load_classes<S: Isa, F: Element>(
    simd: S,
    from: &[F],
    at: usize,
    n: usize,
) -> V<F, S> {
    if n == simd::lanes::<S, F>() {
        simd::load(simd, &from[at..])
    } else {
        F::load_partial(simd, &from[at..at + n], F::of(0.0))
    }
}
