//! The ruler: how far an answer may be from the reference.

use crossent::float::Kind;

/// The least number above 0.
pub const TINY: f64 = f64::from_bits(1);

/// What an answer should be.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    pub value: f64,
    /// The size of the terms that it is made of, where those may cancel.
    pub size: f64,
    /// By how much the reference itself may be wrong.
    pub slack: f64,
}

impl Want {
    /// A value whose terms have a size, from so many roundings of the reference.
    pub fn new(value: f64, size: f64, roundings: f64) -> Self {
        // Below the normal numbers a rounding is of one size.
        let size = size.abs().max(value.abs());
        let slack = roundings * (size * f64::EPSILON + if size == 0.0 { 0.0 } else { TINY });
        Self { value, size, slack }
    }

    /// With an error of the reference besides.
    pub fn or(self, more: f64) -> Self {
        Self { slack: self.slack + more.abs(), ..self }
    }

    /// Times a number; 0 times anything is 0.
    pub fn times(self, by: f64) -> Self {
        let times = |x: f64| if by == 0.0 { 0.0 } else { x * by };
        // What nobody promises stays so.
        let slack = if self.slack.is_finite() { times(self.slack).abs() } else { f64::INFINITY };
        Self { value: times(self.value), size: times(self.size).abs(), slack }
    }

    /// Times the slope of what is between the logits and the model. Of a number that is none, 0 times it
    /// is anyone's guess.
    pub fn along(self, slope: f64) -> Self {
        if slope == 0.0 && !self.value.is_finite() { Self::anything() } else { self.times(slope) }
    }

    /// Times the factor of a derivative. Of a number that is none, 0 times it is anyone's guess, unless
    /// its row does not count.
    pub fn derived(self, by: Factor) -> Self {
        match by {
            Factor::Dead => Self::exactly(0.0),
            Factor::By(0.0, _) if !self.size.is_finite() => Self::anything(),
            Factor::By(by, _) if self.value.is_nan() => Self::exactly(self.value * by),
            Factor::By(by, 0.0) => self.times(by),
            Factor::By(by, slip) => self.times(by).or(self.size * slip),
        }
    }

    /// Of what nobody promises.
    pub fn anything() -> Self {
        Self { value: 0.0, size: 0.0, slack: f64::INFINITY }
    }

    pub fn exactly(value: f64) -> Self {
        Self { value, size: value.abs(), slack: 0.0 }
    }
}

/// What the derivative of a loss is multiplied by.
#[derive(Clone, Copy, Debug)]
pub enum Factor {
    /// Of a row that does not count.
    Dead,
    /// The upstream gradient, with a reduction's share, and by how much it may be wrong.
    By(f64, f64),
}

impl Factor {
    pub fn over(self, unit: f64) -> Self {
        match self {
            Self::Dead => Self::Dead,
            Self::By(by, slip) => Self::By(by / unit, slip / unit.abs()),
        }
    }
}

/// Bits of the significand after the first, the least exponent of a normal number, and the largest one.
fn format(kind: Kind) -> (i32, i32, f64) {
    match kind {
        Kind::F16 => (10, -14, 65504.0),
        Kind::Bf16 => (7, -126, f64::from(half::bf16::MAX)),
        Kind::F32 => (23, -126, f64::from(f32::MAX)),
        _ => (52, -1022, f64::MAX),
    }
}

/// The type that is computed in, which is that of losses.
pub fn loss_kind(input: Kind) -> Kind {
    if input == Kind::F64 { Kind::F64 } else { Kind::F32 }
}

/// The largest number of a type.
pub fn most(kind: Kind) -> f64 {
    format(kind).2
}

/// The distance between neighbours at a value; at 0, the least number of the type.
pub fn ulp(x: f64, kind: Kind) -> f64 {
    let (digits, least, _) = format(kind);
    let exponent = if x == 0.0 || !x.is_finite() {
        least
    } else {
        let exponent = ((x.abs().to_bits() >> 52) as i32) - 1023;
        exponent.max(least)
    };
    // Not `powi`, which is 0 below the normal numbers.
    let power = |e: i32| f64::from_bits(((e + 1023) as u64) << 52);
    match exponent - digits {
        e if e >= -1022 => power(e),
        e => power(e + 60) * power(-60),
    }
}

/// Error bars in ulp, of losses and of derivatives.
#[derive(Clone, Copy, Debug)]
pub struct Bars {
    pub loss: f64,
    pub derivative: f64,
}

/// Those of the documentation; a number of 16 bits is one of float32, rounded.
pub fn bars(kind: Kind) -> Bars {
    match kind {
        Kind::F64 => Bars { loss: 3.0, derivative: 8.0 },
        Kind::F32 => Bars { loss: 2.0, derivative: 6.0 },
        _ => Bars { loss: 0.51, derivative: 0.51 },
    }
}

/// Panics unless each answer is near what it should be.
#[track_caller]
pub fn near(what: &str, kind: Kind, got: &[f64], want: &[Want], bar: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let (largest, computed) = (most(kind), most(loss_kind(kind)));
    for (i, (&got, want)) in got.iter().zip(want).enumerate() {
        let Want { value, size, slack } = *want;
        // What a rounding took is not known of the largest numbers where nothing is fused.
        let bar = if kind == Kind::F64 && size > 1e299 { 4.0 * bar } else { bar };
        let may = bar * ulp(size.max(value.abs()), kind) + slack;
        let overflows = value.is_finite() && value.abs() + may > largest;
        let is_right = got == value
            || (got.is_nan() && value.is_nan())
            || (overflows && got.is_infinite() && (got * value > 0.0 || may > largest))
            || (got - value).abs() <= may
            // Where terms overflow, or the reference's did, nothing is promised.
            || slack.is_nan()
            || slack == f64::INFINITY
            || 4.0 * size > computed;
        assert!(
            is_right,
            "{what}[{i}]: got {got:e}, want {value:e} of size {size:e} (by {kind:?}): {} ulp away, \
             {bar} and {slack:e} allowed",
            (got - value).abs() / ulp(size.max(value.abs()), kind)
        );
    }
}
