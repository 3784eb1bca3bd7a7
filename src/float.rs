//! Storage types and the type that each computes in.
//!
//! Four floating-point formats are read and written, in either byte order; kernels exist for two
//! ([`Real`]: `f32` and `f64`). The 16-bit formats compute in `f32`.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// The element types that a buffer may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Kind {
    F16,
    Bf16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
}

impl Kind {
    /// Bytes an element.
    pub const fn size(self) -> usize {
        match self {
            Kind::I8 | Kind::U8 => 1,
            Kind::F16 | Kind::Bf16 | Kind::I16 | Kind::U16 => 2,
            Kind::F32 | Kind::I32 | Kind::U32 => 4,
            Kind::F64 | Kind::I64 | Kind::U64 => 8,
        }
    }

    /// Whether it is one of the four floating-point formats.
    pub const fn is_float(self) -> bool {
        matches!(self, Kind::F16 | Kind::Bf16 | Kind::F32 | Kind::F64)
    }
}

/// An element type and its byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// The element type.
    pub kind: Kind,
    /// True where the bytes stand in the other order than this machine's.
    pub swapped: bool,
}

impl Format {
    /// `kind` in this machine's byte order.
    pub const fn native(kind: Kind) -> Self {
        Self { kind, swapped: false }
    }
}

mod sealed {
    /// What only this crate's types are: memory is cast on what a [`super::Real`] says of itself.
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// A type that kernels compute in: `f32` or `f64`.
pub trait Real:
    sealed::Sealed
    + zerocopy::FromZeros
    + Copy
    + PartialOrd
    + Default
    + Send
    + Sync
    + std::fmt::Debug
    + 'static
{
    /// Its storage kind.
    const KIND: Kind;
    /// Rounds to this type.
    fn of(x: f64) -> Self;
    /// Widens to `f64`, exactly.
    fn wide(self) -> f64;
    /// The `half` crate's slice conversions, which use the instructions for it.
    #[doc(hidden)]
    fn widen_f16(src: &[f16], dst: &mut [Self]);
    #[doc(hidden)]
    fn narrow_f16(src: &[Self], dst: &mut [f16]);
    #[doc(hidden)]
    fn widen_bf16(src: &[bf16], dst: &mut [Self]);
    #[doc(hidden)]
    fn narrow_bf16(src: &[Self], dst: &mut [bf16]);
}

/// On the way to a 16-bit type: what is lost shows in the last bit, so that rounding once more is
/// rounding once (round to odd: Boldo and Melquiond, "Emulation of FMA and correctly rounded sums",
/// 2008). The `half` crate's conversions from `f64` look at the first 32 bits alone.
#[inline(always)]
fn to_odd(x: f64) -> f32 {
    let near = x as f32;
    let wide = f64::from(near);
    if wide == x {
        return near;
    }
    let toward_0 = near.to_bits() - u32::from(wide.abs() > x.abs());
    f32::from_bits(toward_0 | 1)
}

macro_rules! half_slices {
    ($widen:ident, $narrow:ident) => {
        fn widen_f16(src: &[f16], dst: &mut [Self]) {
            src.$widen(dst);
        }
        fn narrow_f16(src: &[Self], dst: &mut [f16]) {
            $narrow!(f16, src, dst);
        }
        fn widen_bf16(src: &[bf16], dst: &mut [Self]) {
            src.$widen(dst);
        }
        fn narrow_bf16(src: &[Self], dst: &mut [bf16]) {
            $narrow!(bf16, src, dst);
        }
    };
}

macro_rules! narrow_f32 {
    ($half:ident, $src:ident, $dst:ident) => {
        $dst.convert_from_f32_slice($src)
    };
}

macro_rules! narrow_f64 {
    ($half:ident, $src:ident, $dst:ident) => {
        for (src, dst) in $src.iter().zip($dst) {
            *dst = $half::from_f32(to_odd(*src));
        }
    };
}

impl Real for f32 {
    const KIND: Kind = Kind::F32;
    #[inline(always)]
    fn of(x: f64) -> Self {
        x as f32
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }
    half_slices!(convert_to_f32_slice, narrow_f32);
}

impl Real for f64 {
    const KIND: Kind = Kind::F64;
    #[inline(always)]
    fn of(x: f64) -> Self {
        x
    }
    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
    half_slices!(convert_to_f64_slice, narrow_f64);
}

/// A type that buffers hold: its bytes, and how it converts to and from a [`Real`].
///
/// # Safety
/// Every bit pattern of the type must be valid.
#[allow(unsafe_code, reason = "the view reads these from raw memory")]
pub(crate) unsafe trait Stored: Copy {
    fn swap_bytes(self) -> Self;
    fn to<F: Real>(self) -> F;
    fn rounded<F: Real>(x: F) -> Self;
    /// Converts a slice; both have one length.
    fn read_slice<F: Real>(src: &[Self], dst: &mut [F]) {
        for (s, d) in src.iter().zip(dst) {
            *d = s.to();
        }
    }
    /// Converts a slice; both have one length.
    fn write_slice<F: Real>(src: &[F], dst: &mut [Self]) {
        for (s, d) in src.iter().zip(dst) {
            *d = Self::rounded(*s);
        }
    }
}

macro_rules! stored {
    ($type:ty, $to:expr, $from:expr $(, $slices:item)*) => {
        // SAFETY: a plain number; every bit pattern is one.
        #[allow(unsafe_code, reason = "see Stored")]
        unsafe impl Stored for $type {
            #[inline(always)]
            fn swap_bytes(self) -> Self {
                <$type>::from_bits(self.to_bits().swap_bytes())
            }
            #[inline(always)]
            fn to<F: Real>(self) -> F {
                $to(self)
            }
            #[inline(always)]
            fn rounded<F: Real>(x: F) -> Self {
                $from(x)
            }
            $($slices)*
        }
    };
}

stored!(f32, |x: f32| F::of(x.wide()), |x: F| x.wide() as f32);
stored!(f64, F::of, F::wide);
stored!(
    f16,
    |x: f16| F::of(x.to_f64()),
    |x: F| f16::from_f32(to_odd(x.wide())),
    fn read_slice<F: Real>(src: &[f16], dst: &mut [F]) {
        F::widen_f16(src, dst);
    },
    fn write_slice<F: Real>(src: &[F], dst: &mut [f16]) {
        F::narrow_f16(src, dst);
    }
);
stored!(
    bf16,
    |x: bf16| F::of(x.to_f64()),
    |x: F| bf16::from_f32(to_odd(x.wide())),
    fn read_slice<F: Real>(src: &[bf16], dst: &mut [F]) {
        F::widen_bf16(src, dst);
    },
    fn write_slice<F: Real>(src: &[F], dst: &mut [bf16]) {
        F::narrow_bf16(src, dst);
    }
);

/// Integers are read as numbers, rounded where they are beyond the digits of the type that is
/// computed in.
macro_rules! stored_integers {
    ($($type:ty),*) => {$(
        // SAFETY: a plain number; every bit pattern is one.
        #[allow(unsafe_code, reason = "see Stored")]
        unsafe impl Stored for $type {
            #[inline(always)]
            fn swap_bytes(self) -> Self {
                <$type>::swap_bytes(self)
            }
            #[inline(always)]
            fn to<F: Real>(self) -> F {
                F::of(self as f64)
            }
            #[inline(always)]
            fn rounded<F: Real>(x: F) -> Self {
                x.wide() as $type
            }
        }
    )*};
}

stored_integers!(i8, i16, i32, i64, u8, u16, u32, u64);

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds by exact distances: to the nearer neighbour, to the even one between two.
    fn nearest(x: f64, value: impl Fn(u16) -> f64) -> u16 {
        let finite = (0..0x7c00_u16).filter(|bits| value(*bits).is_finite());
        finite
            .min_by(|a, b| {
                let far = |bits: u16| (value(bits) - x).abs();
                far(*a).total_cmp(&far(*b)).then((a % 2).cmp(&(b % 2)))
            })
            .expect("some are finite")
    }

    #[test]
    fn halves_are_rounded_once() {
        let close = [0.0, 1e-12, -1e-12, 3e-8, -3e-8, 1e-3];
        for bits in [0_u16, 1, 2, 77, 0x3c00, 0x3c01, 0x3fff, 0x4000, 0x7000] {
            for tilt in close {
                let between = |low: f64, high: f64| (low + high) / 2.0 * (1.0 + tilt);
                let x = between(f16::from_bits(bits).into(), f16::from_bits(bits + 1).into());
                let want = nearest(x, |bits| f16::from_bits(bits).into());
                assert_eq!(f16::rounded(x).to_bits(), want, "{x:e} {tilt:e}");
                let mut slice = [f16::default()];
                f64::narrow_f16(&[x], &mut slice);
                assert_eq!(slice[0].to_bits(), want);
                let x = between(bf16::from_bits(bits).into(), bf16::from_bits(bits + 1).into());
                let want = nearest(x, |bits| bf16::from_bits(bits).into());
                assert_eq!(bf16::rounded(x).to_bits(), want, "{x:e} {tilt:e}");
                assert_eq!(bf16::rounded(x as f32), bf16::from_f32(x as f32));
            }
        }
        for x in [f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300, 1e-300] {
            assert_eq!(f64::from(bf16::rounded(x)), if x.abs() < 1.0 { 0.0 } else { x * 1e300 });
        }
        assert!(f16::rounded(f64::NAN).is_nan());
    }
}
