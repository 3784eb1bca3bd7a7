//! Vector mathematics, written once for every instruction set.
//!
//! A kernel is generic over [`Isa`], a token that exists only where its instructions do, and over
//! [`Element`], the float type it computes in. `dispatch!` turns the level found at run time into
//! a token; [`fearless_simd`] supplies the portable operations, and [`Isa`] the few that it lacks.
//!
//! Whatever a kernel calls is `#[inline(always)]`, up to the closure given to `vectorize`: one
//! missing attribute, and the instructions of the level are lost in that call.

pub(crate) mod apart;
pub(crate) mod exp;
pub(crate) mod expm1;
pub(crate) mod fitted;
pub(crate) mod log;
pub(crate) mod log1p;
pub(crate) mod logistic;
pub(crate) mod sum;
pub(crate) mod two;

pub(crate) use fearless_simd::prelude::*;

use crate::float::Real;
use std::sync::OnceLock;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use fearless_simd::Fallback as Baseline;
#[cfg(target_arch = "aarch64")]
use fearless_simd::aarch64::Neon as Baseline;
#[cfg(target_arch = "x86_64")]
use fearless_simd::x86::{Avx2, Avx512, Sse2 as Baseline};

/// The instruction sets that kernels are compiled for; each variant holds the proof that this
/// machine has them.
#[derive(Clone, Copy, Debug)]
pub enum Level {
    /// AVX-512 as of Ice Lake and Zen 4.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// What every machine of the architecture has: SSE2, NEON.
    Baseline(Baseline),
}

impl Level {
    /// The highest level that this machine has and that `name` allows: `avx512`, `avx2` or
    /// `baseline`; `None` where the name is another.
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables, reason = "one level only"))]
    pub fn at_most(name: &str) -> Option<Self> {
        let found = fearless_simd::Level::new();
        let rank = ["baseline", "avx2", "avx512"].iter().position(|n| *n == name)?;
        #[cfg(target_arch = "x86_64")]
        {
            if rank >= 2
                && let Some(token) = found.as_avx512()
            {
                return Some(Level::Avx512(token));
            }
            if rank >= 1
                && let Some(token) = found.as_avx2()
            {
                return Some(Level::Avx2(token));
            }
            found.as_sse2().map(Level::Baseline)
        }
        #[cfg(target_arch = "aarch64")]
        {
            found.as_neon().map(Level::Baseline)
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            Some(Level::Baseline(Baseline::new()))
        }
    }

    /// Its name, as `CROSSENT_SIMD` spells it.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(_) => "avx2",
            Level::Baseline(_) => "baseline",
        }
    }
}

/// The level in force: the machine's best, or what the environment variable `CROSSENT_SIMD` lowers
/// it to (`avx2`, `baseline`). Read once.
///
/// # Panics
/// Where `CROSSENT_SIMD` names no level: a typing error must not pass for a measurement.
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let wanted = std::env::var("CROSSENT_SIMD").unwrap_or_else(|_| "avx512".into());
        Level::at_most(&wanted).unwrap_or_else(|| {
            panic!("CROSSENT_SIMD must be avx512, avx2 or baseline, got {wanted:?}")
        })
    })
}

/// Runs an expression with the token of a level bound to a name.
macro_rules! dispatch {
    ($level:expr, $simd:ident => $body:expr) => {
        match $level {
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Level::Avx512($simd) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Level::Avx2($simd) => $body,
            $crate::simd::Level::Baseline($simd) => $body,
        }
    };
}
pub(crate) use dispatch;

/// Lanes of a vector at the level in force.
pub(crate) fn lanes_in_force<F: Element>() -> usize {
    fn of<S: Isa, F: Element>(_: S) -> usize {
        lanes::<S, F>()
    }
    dispatch!(level(), s => of::<_, F>(s))
}

/// The constants of the exponential in `f32` lanes, where the level in force has [`Isa::look_up`] as an
/// instruction.
pub(crate) fn looked_up() -> Option<&'static exp::Constants<f32>> {
    fn of<S: Isa>(_: S) -> Option<&'static exp::Constants<f32>> {
        S::LOOKS_UP.then(exp::f32_constants::<S>)
    }
    dispatch!(level(), s => of(s))
}

/// Runs plain loops, compiled for the level in force. The closure must be `#[inline(always)]`.
#[inline(always)]
pub(crate) fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    dispatch!(level(), s => s.vectorize(f))
}

/// The vector of an [`Element`] on an [`Isa`].
pub(crate) type V<F, S> = <F as Element>::Lanes<S>;

/// Which lanes of `f32` vectors.
pub(crate) type Mask32<S> = <<S as Simd>::f32s as SimdBase<S>>::Mask;

/// A [`Real`] with its vectors.
pub trait Element: Real + SimdFloatElement {
    /// The vector of this type in the widest registers of `S`.
    type Lanes<S: Isa>: SimdFloat<S, Element = Self>;
    /// Sums of [`Self::Lanes`] held more widely.
    type Wide<S: Isa>: sum::Wide<S, Self>;
    /// The largest `|max|` of a row whose exponentials are shifted by a power of two: see `exp`.
    const REACH: Self;

    /// The constants of its exponential.
    fn exp_constants<S: Isa>() -> &'static exp::Constants<Self>;
    /// Those of an exponential in `f64` lanes that is as good as exact to this type.
    fn wide_exp_constants<S: Isa>() -> &'static exp::Constants<f64>;
    /// See [`Isa::exp2_f32`].
    fn exp2<S: Isa>(simd: S, t: Self::Lanes<S>) -> Self::Lanes<S>;
    /// `v`, or 0 where `x` is below the floor; a NaN is not below anything.
    fn unless_below<S: Isa>(
        simd: S,
        v: Self::Lanes<S>,
        x: Self::Lanes<S>,
        floor: Self::Lanes<S>,
    ) -> Self::Lanes<S>;
    /// `a b`, and of `f64` what its rounding took; of `f32`, whose sums are wider, 0.
    fn times<S: Isa>(simd: S, a: Self::Lanes<S>, b: Self::Lanes<S>) -> [Self::Lanes<S>; 2];
    /// `a + b`, likewise.
    fn plus<S: Isa>(simd: S, a: Self::Lanes<S>, b: Self::Lanes<S>) -> [Self::Lanes<S>; 2];
    /// `1 / v`, as good as exact to this type.
    fn reciprocal<S: Isa>(simd: S, v: S::f64s) -> S::f64s;
    /// A slice of `f32`, if it is one.
    fn as_f32s(slice: &[Self]) -> Option<&[f32]>;
    /// The same, to write to.
    fn as_f32s_mut(slice: &mut [Self]) -> Option<&mut [f32]>;
    /// As many numbers as `f64` lanes hold, widened.
    fn load_f64s<S: Isa>(simd: S, src: &[Self]) -> S::f64s;
    /// The reverse of [`Self::load_f64s`].
    fn store_f64s<S: Isa>(simd: S, v: S::f64s, dst: &mut [Self]);
    /// Widens each lane, in order.
    fn store_wide<S: Isa>(v: Self::Lanes<S>, dst: &mut [f64]);
    /// Narrows a vector's lanes, in order.
    fn load_narrow<S: Isa>(simd: S, src: &[f64]) -> Self::Lanes<S>;
    /// Fewer than a vector's lanes, the others filled.
    fn load_partial<S: Isa>(simd: S, src: &[Self], fill: Self) -> Self::Lanes<S>;
    /// The first `dst.len()` lanes, which is fewer than all.
    fn store_partial<S: Isa>(simd: S, v: Self::Lanes<S>, dst: &mut [Self]);
    /// Writes past the caches to an aligned place; plainly where the level has no such store.
    fn stream<S: Isa>(simd: S, v: Self::Lanes<S>, dst: &mut [Self]);
}

impl Element for f32 {
    type Lanes<S: Isa> = S::f32s;
    type Wide<S: Isa> = sum::Wide32<S>;
    const REACH: f32 = 512.0;

    #[inline(always)]
    fn exp_constants<S: Isa>() -> &'static exp::Constants<f32> {
        exp::f32_constants::<S>()
    }
    #[inline(always)]
    fn wide_exp_constants<S: Isa>() -> &'static exp::Constants<f64> {
        exp::f64_constants::<S>(true)
    }
    #[inline(always)]
    fn exp2<S: Isa>(simd: S, t: S::f32s) -> S::f32s {
        simd.exp2_f32(t)
    }
    #[inline(always)]
    fn unless_below<S: Isa>(simd: S, v: S::f32s, x: S::f32s, floor: S::f32s) -> S::f32s {
        simd.unless_below_f32(v, x, floor)
    }
    #[inline(always)]
    fn times<S: Isa>(simd: S, a: S::f32s, b: S::f32s) -> [S::f32s; 2] {
        [a * b, splat::<S, f32>(simd, 0.0)]
    }
    #[inline(always)]
    fn plus<S: Isa>(simd: S, a: S::f32s, b: S::f32s) -> [S::f32s; 2] {
        [a + b, splat::<S, f32>(simd, 0.0)]
    }
    #[inline(always)]
    fn reciprocal<S: Isa>(simd: S, v: S::f64s) -> S::f64s {
        simd.short_reciprocal_f64(v)
    }
    #[inline(always)]
    fn as_f32s(slice: &[f32]) -> Option<&[f32]> {
        Some(slice)
    }
    #[inline(always)]
    fn as_f32s_mut(slice: &mut [f32]) -> Option<&mut [f32]> {
        Some(slice)
    }
    #[inline(always)]
    fn load_f64s<S: Isa>(simd: S, src: &[f32]) -> S::f64s {
        simd.load_f64s_f32(&src[..S::f64s::LEN])
    }
    #[inline(always)]
    fn store_f64s<S: Isa>(simd: S, v: S::f64s, dst: &mut [f32]) {
        simd.store_f64s_f32(v, &mut dst[..S::f64s::LEN]);
    }
    #[inline(always)]
    fn store_wide<S: Isa>(v: S::f32s, dst: &mut [f64]) {
        let (low, high) = v.widen();
        store::<S, f64>(low, dst);
        store::<S, f64>(high, &mut dst[lanes::<S, f64>()..]);
    }
    #[inline(always)]
    fn load_narrow<S: Isa>(simd: S, src: &[f64]) -> S::f32s {
        let high = load::<S, f64>(simd, &src[lanes::<S, f64>()..]);
        load::<S, f64>(simd, src).narrow(high)
    }
    #[inline(always)]
    fn load_partial<S: Isa>(simd: S, src: &[f32], fill: f32) -> S::f32s {
        simd.load_partial_f32(src, fill)
    }
    #[inline(always)]
    fn store_partial<S: Isa>(simd: S, v: S::f32s, dst: &mut [f32]) {
        simd.store_partial_f32(v, dst);
    }
    #[inline(always)]
    fn stream<S: Isa>(simd: S, v: S::f32s, dst: &mut [f32]) {
        simd.stream_f32(v, dst);
    }
}

impl Element for f64 {
    type Lanes<S: Isa> = S::f64s;
    type Wide<S: Isa> = sum::Wide64<S>;
    const REACH: f64 = 4096.0;

    #[inline(always)]
    fn exp_constants<S: Isa>() -> &'static exp::Constants<f64> {
        exp::f64_constants::<S>(false)
    }
    #[inline(always)]
    fn wide_exp_constants<S: Isa>() -> &'static exp::Constants<f64> {
        Self::exp_constants::<S>()
    }
    #[inline(always)]
    fn exp2<S: Isa>(simd: S, t: S::f64s) -> S::f64s {
        simd.exp2_f64(t)
    }
    #[inline(always)]
    fn unless_below<S: Isa>(simd: S, v: S::f64s, x: S::f64s, floor: S::f64s) -> S::f64s {
        simd.unless_below_f64(v, x, floor)
    }
    #[inline(always)]
    fn times<S: Isa>(simd: S, a: S::f64s, b: S::f64s) -> [S::f64s; 2] {
        let product = a * b;
        [product, lost(simd, a, b, product)]
    }
    #[inline(always)]
    fn plus<S: Isa>(_: S, a: S::f64s, b: S::f64s) -> [S::f64s; 2] {
        sum::two_sum(a, b)
    }
    #[inline(always)]
    fn reciprocal<S: Isa>(simd: S, v: S::f64s) -> S::f64s {
        splat::<S, f64>(simd, 1.0) / v
    }
    #[inline(always)]
    fn as_f32s(_: &[f64]) -> Option<&[f32]> {
        None
    }
    #[inline(always)]
    fn as_f32s_mut(_: &mut [f64]) -> Option<&mut [f32]> {
        None
    }
    #[inline(always)]
    fn load_f64s<S: Isa>(simd: S, src: &[f64]) -> S::f64s {
        load::<S, f64>(simd, src)
    }
    #[inline(always)]
    fn store_f64s<S: Isa>(_: S, v: S::f64s, dst: &mut [f64]) {
        store::<S, f64>(v, dst);
    }
    #[inline(always)]
    fn store_wide<S: Isa>(v: S::f64s, dst: &mut [f64]) {
        store::<S, f64>(v, dst);
    }
    #[inline(always)]
    fn load_narrow<S: Isa>(simd: S, src: &[f64]) -> S::f64s {
        load::<S, f64>(simd, src)
    }
    #[inline(always)]
    fn load_partial<S: Isa>(simd: S, src: &[f64], fill: f64) -> S::f64s {
        simd.load_partial_f64(src, fill)
    }
    #[inline(always)]
    fn store_partial<S: Isa>(simd: S, v: S::f64s, dst: &mut [f64]) {
        simd.store_partial_f64(v, dst);
    }
    #[inline(always)]
    fn stream<S: Isa>(simd: S, v: S::f64s, dst: &mut [f64]) {
        simd.stream_f64(v, dst);
    }
}

/// What the portable layer lacks. The defaults are right everywhere; an instruction set overrides
/// what it does better.
pub trait Isa: Simd {
    /// Steps to an octave that [`Self::exp2_f32`] takes: as many numbers as it can look up.
    const STEPS_F32: usize = 1;
    /// The same of [`Self::exp2_f64`].
    const STEPS_F64: usize = 1;

    /// Whether a multiply-add rounds once.
    const FUSED: bool = cfg!(target_arch = "aarch64");

    /// Whether [`Self::look_up`] is an instruction.
    const LOOKS_UP: bool = false;

    /// What a table holds at the five lowest bits of each lane.
    #[inline(always)]
    fn look_up(self, table: &[u32; 32], index: Self::u32s) -> Self::u32s {
        Self::u32s::from_fn(self, |i: usize| table[(index[i] % 32) as usize])
    }

    /// `c 2^(n / STEPS - bias)` for the integer `n >= STEPS` in the lowest bits of each lane, as
    /// adding `exp::Constants`'s `round` leaves it; `c` is that of the table, or 1 without one.
    #[inline(always)]
    fn exp2_f32(self, t: Self::f32s) -> Self::f32s {
        (t.bitcast::<Self::u32s>() << 23).bitcast()
    }
    /// See [`Self::exp2_f32`].
    #[inline(always)]
    fn exp2_f64(self, t: Self::f64s) -> Self::f64s {
        (t.bitcast::<Self::u64s>() << 52).bitcast()
    }
    /// See [`Element::unless_below`].
    #[inline(always)]
    fn unless_below_f32(self, v: Self::f32s, x: Self::f32s, floor: Self::f32s) -> Self::f32s {
        x.simd_lt(floor).select(splat::<Self, f32>(self, 0.0), v)
    }
    /// See [`Element::unless_below`].
    #[inline(always)]
    fn unless_below_f64(self, v: Self::f64s, x: Self::f64s, floor: Self::f64s) -> Self::f64s {
        x.simd_lt(floor).select(splat::<Self, f64>(self, 0.0), v)
    }
    /// `1 / v` to 2^-27 of itself.
    #[inline(always)]
    fn short_reciprocal_f64(self, v: Self::f64s) -> Self::f64s {
        splat::<Self, f64>(self, 1.0) / v
    }
    /// See [`Element::load_f64s`].
    #[inline(always)]
    fn load_f64s_f32(self, src: &[f32]) -> Self::f64s {
        Self::f64s::from_fn(self, |i: usize| f64::from(src[i]))
    }
    /// See [`Element::store_f64s`].
    #[inline(always)]
    fn store_f64s_f32(self, v: Self::f64s, dst: &mut [f32]) {
        for (d, s) in dst.iter_mut().zip(v.as_slice()) {
            *d = *s as f32;
        }
    }
    /// See [`Element::load_partial`].
    #[inline(always)]
    fn load_partial_f32(self, src: &[f32], fill: f32) -> Self::f32s {
        Self::f32s::from_fn(self, |i: usize| if i < src.len() { src[i] } else { fill })
    }
    /// See [`Element::load_partial`].
    #[inline(always)]
    fn load_partial_f64(self, src: &[f64], fill: f64) -> Self::f64s {
        Self::f64s::from_fn(self, |i: usize| if i < src.len() { src[i] } else { fill })
    }
    /// See [`Element::store_partial`].
    #[inline(always)]
    fn store_partial_f32(self, v: Self::f32s, dst: &mut [f32]) {
        for (d, s) in dst.iter_mut().zip(v.as_slice()) {
            *d = *s;
        }
    }
    /// See [`Element::store_partial`].
    #[inline(always)]
    fn store_partial_f64(self, v: Self::f64s, dst: &mut [f64]) {
        for (d, s) in dst.iter_mut().zip(v.as_slice()) {
            *d = *s;
        }
    }
    /// See [`Element::stream`].
    #[inline(always)]
    fn stream_f32(self, v: Self::f32s, dst: &mut [f32]) {
        v.store_slice(dst);
    }
    /// See [`Element::stream`].
    #[inline(always)]
    fn stream_f64(self, v: Self::f64s, dst: &mut [f64]) {
        v.store_slice(dst);
    }
    /// Asks for the cache line `ahead` elements past the start of `src`; never faults.
    #[inline(always)]
    fn prefetch<F>(self, src: &[F], ahead: usize) {
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code, reason = "a hint")]
        // SAFETY: a prefetch reads nothing into the program, wherever it points.
        unsafe {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(src.as_ptr().wrapping_add(ahead).cast());
        }
    }
    /// Orders streamed writes before whatever publishes them.
    #[inline(always)]
    fn fence(self) {
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code, reason = "an instruction of the x86-64 baseline")]
        // SAFETY: SSE is part of x86-64.
        unsafe {
            core::arch::x86_64::_mm_sfence();
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #![allow(unsafe_code, reason = "masked and streaming accesses have no safe form")]

    use super::*;
    use core::arch::x86_64::*;

    /// Panics unless `dst` holds a whole, aligned vector: a streaming store faults on less.
    #[inline(always)]
    fn check<T, const N: usize>(dst: &mut [T]) -> *mut T {
        assert!(dst.len() == N && dst.as_ptr().addr().is_multiple_of(size_of::<T>() * N));
        dst.as_mut_ptr()
    }

    impl Isa for Avx512 {
        const FUSED: bool = true;
        const STEPS_F32: usize = 16;
        const STEPS_F64: usize = 8;
        const LOOKS_UP: bool = true;

        #[inline(always)]
        fn look_up(self, table: &[u32; 32], index: Self::u32s) -> Self::u32s {
            let (low, high) = table.split_at(16);
            let low = Self::u32s::from_slice(self, low);
            let high = Self::u32s::from_slice(self, high);
            // SAFETY: the token proves AVX-512.
            unsafe { _mm512_permutex2var_epi32(low.into(), index.into(), high.into()) }
                .simd_into(self)
        }

        #[inline(always)]
        fn exp2_f32(self, t: Self::f32s) -> Self::f32s {
            const TABLE: [u32; 16] = exp::table_f32(&exp::SIXTEENTHS);
            let t = t.bitcast::<Self::u32s>();
            let table = Self::u32s::from_slice(self, &TABLE);
            // SAFETY: the token proves AVX-512.
            let part: Self::u32s =
                unsafe { _mm512_permutexvar_epi32(t.into(), table.into()) }.simd_into(self);
            (part + (t << 19)).bitcast()
        }
        #[inline(always)]
        fn exp2_f64(self, t: Self::f64s) -> Self::f64s {
            const TABLE: [u64; 8] = exp::table_f64();
            let t = t.bitcast::<Self::u64s>();
            let table = Self::u64s::from_slice(self, &TABLE);
            // SAFETY: the token proves AVX-512.
            let part: Self::u64s =
                unsafe { _mm512_permutexvar_epi64(t.into(), table.into()) }.simd_into(self);
            (part + (t << 49)).bitcast()
        }
        #[inline(always)]
        fn unless_below_f32(self, v: Self::f32s, x: Self::f32s, floor: Self::f32s) -> Self::f32s {
            // The comparison that a mask takes as it is; the portable layer has but its opposite.
            // SAFETY: the token proves AVX-512.
            unsafe {
                let kept = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x.into(), floor.into());
                _mm512_maskz_mov_ps(kept, v.into())
            }
            .simd_into(self)
        }
        #[inline(always)]
        fn unless_below_f64(self, v: Self::f64s, x: Self::f64s, floor: Self::f64s) -> Self::f64s {
            // SAFETY: as above.
            unsafe {
                let kept = _mm512_cmp_pd_mask::<_CMP_NLT_UQ>(x.into(), floor.into());
                _mm512_maskz_mov_pd(kept, v.into())
            }
            .simd_into(self)
        }
        #[inline(always)]
        fn short_reciprocal_f64(self, v: Self::f64s) -> Self::f64s {
            // SAFETY: the token proves AVX-512.
            let r: Self::f64s = unsafe { _mm512_rcp14_pd(v.into()) }.simd_into(self);
            // Newton's step squares the error, 2^-14.
            let short = (-v).mul_add(r, splat::<Self, f64>(self, 1.0));
            short.mul_add(r, r)
        }
        #[inline(always)]
        fn load_f64s_f32(self, src: &[f32]) -> Self::f64s {
            assert!(src.len() == 8);
            // SAFETY: eight numbers are there; the token proves AVX-512.
            unsafe { _mm512_cvtps_pd(_mm256_loadu_ps(src.as_ptr())) }.simd_into(self)
        }
        #[inline(always)]
        fn store_f64s_f32(self, v: Self::f64s, dst: &mut [f32]) {
            assert!(dst.len() == 8);
            // SAFETY: there is room for eight numbers; the token proves AVX-512.
            unsafe { _mm256_storeu_ps(dst.as_mut_ptr(), _mm512_cvtpd_ps(v.into())) }
        }
        #[inline(always)]
        fn load_partial_f32(self, src: &[f32], fill: f32) -> Self::f32s {
            let mask = ((1u32 << src.len().min(16)) - 1) as u16;
            // SAFETY: the token proves AVX-512; a masked load touches only lanes below src.len().
            unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), mask, src.as_ptr()) }
                .simd_into(self)
        }
        #[inline(always)]
        fn load_partial_f64(self, src: &[f64], fill: f64) -> Self::f64s {
            let mask = ((1u32 << src.len().min(8)) - 1) as u8;
            // SAFETY: as above.
            unsafe { _mm512_mask_loadu_pd(_mm512_set1_pd(fill), mask, src.as_ptr()) }
                .simd_into(self)
        }
        #[inline(always)]
        fn store_partial_f32(self, v: Self::f32s, dst: &mut [f32]) {
            let mask = ((1u32 << dst.len().min(16)) - 1) as u16;
            // SAFETY: the token proves AVX-512; a masked store touches only lanes below dst.len().
            unsafe { _mm512_mask_storeu_ps(dst.as_mut_ptr(), mask, v.into()) }
        }
        #[inline(always)]
        fn store_partial_f64(self, v: Self::f64s, dst: &mut [f64]) {
            let mask = ((1u32 << dst.len().min(8)) - 1) as u8;
            // SAFETY: as above.
            unsafe { _mm512_mask_storeu_pd(dst.as_mut_ptr(), mask, v.into()) }
        }
        #[inline(always)]
        fn stream_f32(self, v: Self::f32s, dst: &mut [f32]) {
            // SAFETY: checked for length and alignment; the token proves the instruction.
            unsafe { _mm512_stream_ps(check::<_, 16>(dst), v.into()) }
        }
        #[inline(always)]
        fn stream_f64(self, v: Self::f64s, dst: &mut [f64]) {
            // SAFETY: as above.
            unsafe { _mm512_stream_pd(check::<_, 8>(dst), v.into()) }
        }
    }

    /// Masks of `n` lanes are read from here at `8 - n`.
    static LANES32: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    static LANES64: [i64; 8] = [-1, -1, -1, -1, 0, 0, 0, 0];

    /// A mask of the first `n` of eight lanes.
    #[inline(always)]
    fn mask32(_: Avx2, n: usize) -> __m256i {
        let lanes = &LANES32[8 - n.min(8)..][..8];
        // SAFETY: eight lanes are there, by the slice above; the token proves AVX.
        unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
    }

    /// A mask of the first `n` of four lanes.
    #[inline(always)]
    fn mask64(_: Avx2, n: usize) -> __m256i {
        let lanes = &LANES64[4 - n.min(4)..][..4];
        // SAFETY: four lanes are there, by the slice above; the token proves AVX.
        unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
    }

    impl Isa for Avx2 {
        const FUSED: bool = true;
        const STEPS_F32: usize = 8;

        #[inline(always)]
        fn exp2_f32(self, t: Self::f32s) -> Self::f32s {
            const TABLE: [u32; 8] = exp::table_f32(&exp::EIGHTHS);
            let t = t.bitcast::<Self::u32s>();
            let table = Self::u32s::from_slice(self, &TABLE);
            // SAFETY: the token proves AVX2.
            let part: Self::u32s =
                unsafe { _mm256_permutevar8x32_epi32(table.into(), t.into()) }.simd_into(self);
            (part + (t << 20)).bitcast()
        }
        #[inline(always)]
        fn load_f64s_f32(self, src: &[f32]) -> Self::f64s {
            assert!(src.len() == 4);
            // SAFETY: four numbers are there; the token proves AVX.
            unsafe { _mm256_cvtps_pd(_mm_loadu_ps(src.as_ptr())) }.simd_into(self)
        }
        #[inline(always)]
        fn store_f64s_f32(self, v: Self::f64s, dst: &mut [f32]) {
            assert!(dst.len() == 4);
            // SAFETY: there is room for four numbers; the token proves AVX.
            unsafe { _mm_storeu_ps(dst.as_mut_ptr(), _mm256_cvtpd_ps(v.into())) }
        }
        #[inline(always)]
        fn load_partial_f32(self, src: &[f32], fill: f32) -> Self::f32s {
            let mask = mask32(self, src.len());
            // SAFETY: the token proves AVX; a masked load touches only lanes below src.len().
            unsafe {
                let v = _mm256_maskload_ps(src.as_ptr(), mask);
                _mm256_blendv_ps(_mm256_set1_ps(fill), v, _mm256_castsi256_ps(mask))
            }
            .simd_into(self)
        }
        #[inline(always)]
        fn load_partial_f64(self, src: &[f64], fill: f64) -> Self::f64s {
            let mask = mask64(self, src.len());
            // SAFETY: as above.
            unsafe {
                let v = _mm256_maskload_pd(src.as_ptr(), mask);
                _mm256_blendv_pd(_mm256_set1_pd(fill), v, _mm256_castsi256_pd(mask))
            }
            .simd_into(self)
        }
        #[inline(always)]
        fn store_partial_f32(self, v: Self::f32s, dst: &mut [f32]) {
            let mask = mask32(self, dst.len());
            // SAFETY: the token proves AVX; a masked store touches only lanes below dst.len().
            unsafe { _mm256_maskstore_ps(dst.as_mut_ptr(), mask, v.into()) }
        }
        #[inline(always)]
        fn store_partial_f64(self, v: Self::f64s, dst: &mut [f64]) {
            let mask = mask64(self, dst.len());
            // SAFETY: as above.
            unsafe { _mm256_maskstore_pd(dst.as_mut_ptr(), mask, v.into()) }
        }
        #[inline(always)]
        fn stream_f32(self, v: Self::f32s, dst: &mut [f32]) {
            // SAFETY: checked for length and alignment; the token proves the instruction.
            unsafe { _mm256_stream_ps(check::<_, 8>(dst), v.into()) }
        }
        #[inline(always)]
        fn stream_f64(self, v: Self::f64s, dst: &mut [f64]) {
            // SAFETY: as above.
            unsafe { _mm256_stream_pd(check::<_, 4>(dst), v.into()) }
        }
    }

    impl Isa for Baseline {
        #[inline(always)]
        fn stream_f32(self, v: Self::f32s, dst: &mut [f32]) {
            // SAFETY: checked for length and alignment; SSE2 is x86-64's baseline.
            unsafe { _mm_stream_ps(check::<_, 4>(dst), v.into()) }
        }
        #[inline(always)]
        fn stream_f64(self, v: Self::f64s, dst: &mut [f64]) {
            // SAFETY: as above.
            unsafe { _mm_stream_pd(check::<_, 2>(dst), v.into()) }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Isa for Baseline {}

/// All lanes where the mask holds get one value, the others another.
#[inline(always)]
pub(crate) fn select<S: Isa, F: Element>(
    mask: <V<F, S> as SimdBase<S>>::Mask,
    yes: V<F, S>,
    no: V<F, S>,
) -> V<F, S> {
    mask.select(yes, no)
}

/// Asks for as much memory as `src` takes, `ahead` elements past it.
#[inline(always)]
pub(crate) fn prefetch_all<S: Isa, F>(simd: S, src: &[F], ahead: usize) {
    for at in (0..src.len()).step_by(64 / size_of::<F>()) {
        simd.prefetch(&src[at..], ahead);
    }
}

/// The first numbers of a slice in `f64`: a vector of them or, where it has fewer, all and `fill`.
#[inline(always)]
pub(crate) fn load_wide<S: Isa, F: Element>(simd: S, from: &[F], fill: f64) -> S::f64s {
    if from.len() >= S::f64s::LEN {
        return F::load_f64s::<S>(simd, from);
    }
    let mut lanes = [F::of(fill); 8];
    lanes[..from.len()].copy_from_slice(from);
    F::load_f64s::<S>(simd, &lanes)
}

/// The reverse of [`load_wide`].
#[inline(always)]
pub(crate) fn store_wide<S: Isa, F: Element>(simd: S, v: S::f64s, to: &mut [F]) {
    if to.len() >= S::f64s::LEN {
        return F::store_f64s(simd, v, to);
    }
    let mut lanes = [F::of(0.0); 8];
    F::store_f64s(simd, v, &mut lanes);
    let n = to.len();
    to.copy_from_slice(&lanes[..n]);
}

/// A polynomial, coefficients in rising order: four at a time by themselves, then by Horner's rule
/// in `x^4`, so that a chain of dependent steps is short.
#[inline(always)]
pub(crate) fn polynomial<S: Isa, F: Element, const N: usize>(
    simd: S,
    of: &[F; N],
    x: V<F, S>,
) -> V<F, S> {
    #[inline(always)]
    fn pair<S: Isa, F: Element, const N: usize>(
        simd: S,
        of: &[F; N],
        i: usize,
        x: V<F, S>,
    ) -> V<F, S> {
        let low = splat::<S, F>(simd, of[i]);
        if i + 1 < N { splat::<S, F>(simd, of[i + 1]).mul_add(x, low) } else { low }
    }
    #[inline(always)]
    fn four<S: Isa, F: Element, const N: usize>(
        simd: S,
        of: &[F; N],
        i: usize,
        [x, square]: [V<F, S>; 2],
    ) -> V<F, S> {
        let low = pair(simd, of, i, x);
        if i + 2 < N { pair(simd, of, i + 2, x).mul_add(square, low) } else { low }
    }
    let square = x * x;
    let fourth = square * square;
    let last = (N - 1) / 4;
    let mut p = four(simd, of, 4 * last, [x, square]);
    for i in (0..last).rev() {
        p = p.mul_add(fourth, four(simd, of, 4 * i, [x, square]));
    }
    p
}

/// What the rounding of a product took from it: `a b - product`, exactly. Without fused arithmetic by
/// Veltkamp's splitting and Dekker's product (Numerische Mathematik 18, 1971); 0 where a part
/// of that is out of range.
#[inline(always)]
pub(crate) fn lost<S: Isa>(simd: S, a: S::f64s, b: S::f64s, product: S::f64s) -> S::f64s {
    if S::FUSED {
        return a.mul_add(b, -product);
    }
    let factor = splat::<S, f64>(simd, 134_217_729.0);
    let (far_a, far_b) = (a * factor, b * factor);
    let (high_a, high_b) = (far_a - (far_a - a), far_b - (far_b - b));
    let (a, a_low, b, b_low) = (high_a, a - high_a, high_b, b - high_b);
    let lost = ((a * b - product) + a * b_low + a_low * b) + a_low * b_low;
    // Above 2^996 a part overflows, below 2^-968 one rounds.
    let known = lost.simd_eq(lost) & product.abs().simd_gt(splat::<S, f64>(simd, 2f64.powi(-960)));
    known.select(lost, splat::<S, f64>(simd, 0.0))
}

/// Copies past the caches.
pub(crate) fn stream_slice<F: Element>(from: &[F], to: &mut [F]) {
    #[inline(never)]
    fn kernel<S: Isa, F: Element>(simd: S, from: &[F], to: &mut [F]) {
        simd.vectorize(
            #[inline(always)]
            || {
                let n = lanes::<S, F>();
                // Streaming stores need whole, aligned vectors.
                let misaligned = to.as_ptr().addr() / size_of::<F>() % n;
                let head = ((n - misaligned) % n).min(to.len());
                let (from_head, from) = from.split_at(head);
                let (to_head, to) = to.split_at_mut(head);
                to_head.copy_from_slice(from_head);
                let mut whole = to.chunks_exact_mut(n);
                for (to, from) in (&mut whole).zip(from.chunks_exact(n)) {
                    F::stream(simd, load::<S, F>(simd, from), to);
                }
                let tail = whole.into_remainder();
                tail.copy_from_slice(&from[from.len() - tail.len()..]);
            },
        );
    }
    assert_eq!(from.len(), to.len());
    dispatch!(level(), s => kernel(s, from, to));
}

/// Orders streamed writes before whatever publishes them.
pub(crate) fn fence() {
    dispatch!(level(), s => s.fence());
}

/// `v` in every lane.
#[inline(always)]
pub(crate) fn splat<S: Isa, F: Element>(simd: S, v: F) -> V<F, S> {
    V::<F, S>::splat(simd, v)
}

/// Lanes of a vector.
#[inline(always)]
pub(crate) const fn lanes<S: Isa, F: Element>() -> usize {
    <V<F, S> as SimdBase<S>>::LEN
}

/// The vector that starts a slice.
#[inline(always)]
pub(crate) fn load<S: Isa, F: Element>(simd: S, src: &[F]) -> V<F, S> {
    V::<F, S>::from_slice(simd, &src[..lanes::<S, F>()])
}

/// Writes a vector to the start of a slice.
#[inline(always)]
pub(crate) fn store<S: Isa, F: Element>(v: V<F, S>, dst: &mut [F]) {
    v.store_slice(&mut dst[..lanes::<S, F>()]);
}

/// Error in units of the last place of the `f32` nearest to the truth.
#[cfg(test)]
pub(crate) fn ulp32(got: f32, truth: f64) -> f64 {
    let near = truth as f32;
    let exponent = ((near.abs().to_bits() >> 23) as i32).max(1) - 150;
    (f64::from(got) - truth).abs() / 2f64.powi(exponent)
}
