//! From bytes to choices, and to numbers of many kinds.

use arbitrary::{Result, Unstructured};

/// Numbers at random from a seed (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014): where bytes would not go round.
pub struct Random(u64);

impl Random {
    pub fn new(u: &mut Unstructured<'_>) -> Result<Self> {
        Ok(Self(u.arbitrary()?))
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n.max(1) as u64) as usize
    }

    /// Of [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn within(&mut self, limit: f64) -> f64 {
        (2.0 * self.unit() - 1.0) * limit
    }
}

/// One of a few.
pub fn one_of<T: Copy>(u: &mut Unstructured<'_>, of: &[T]) -> Result<T> {
    u.choose(of).copied()
}

/// Whether something happens that does so many times of so many; not where the bytes are used up, so
/// that short inputs are small and plain calls.
pub fn chance(u: &mut Unstructured<'_>, times: u32, of: u32) -> Result<bool> {
    Ok(u.int_in_range(0..=of - 1)? >= of - times)
}

/// So many numbers: ordinary, tied, nearly tied, huge, tiny, any bits at all, or mixed with
/// infinities, zeros and NaN. The storage type rounds them.
pub fn numbers(u: &mut Unstructured<'_>, n: usize) -> Result<Vec<f64>> {
    let style = u.int_in_range(0..=9)?;
    let spice = chance(u, 1, 4)?;
    let mut random = Random::new(u)?;
    let scale = one_of(u, &[1.0, 0.01, 10.0, 100.0, 1000.0])?;
    let offset = one_of(u, &[0.0, 0.0, 0.0, 300.0, -5000.0, 1e8])?;
    let base = random.within(4.0 * scale);
    const SPECIAL: [f64; 9] = [
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        0.0,
        -0.0,
        f32::MAX as f64,
        -65504.0,
        1e-310,
        1e-40,
    ];
    let mut drawn: Vec<f64> = (0..n)
        .map(|i| match style {
            0 | 1 => random.within(4.0 * scale) + offset,
            // Few values, so that many are tied.
            2 => (random.below(3) as f64 - 1.0) * scale + offset,
            3 => base * (1.0 + random.below(4) as f64 * f64::from(f32::EPSILON)),
            4 => random.within(1.0).signum() * 10f64.powf(random.within(38.0)),
            5 => random.within(1.0) * 10f64.powf(-38.0 - 7.0 * random.unit()),
            6 => f64::from(f32::from_bits(random.bits() as u32)),
            7 => f64::from_bits(random.bits()),
            // Most of a row masked.
            8 if random.below(8) > 0 => f64::NEG_INFINITY,
            // One far above the others.
            9 if i == n / 2 => 40.0 * scale,
            _ => random.within(scale),
        })
        .collect();
    if spice && n > 0 {
        for _ in 0..1 + random.below(3) {
            let at = random.below(n);
            drawn[at] = SPECIAL[random.below(SPECIAL.len())];
        }
    }
    // Some that the fuzzer holds in its hands.
    let few = u.int_in_range(0..=8)?.min(n);
    for x in &mut drawn[..few] {
        *x = if chance(u, 1, 2)? {
            f64::from(f32::from_bits(u.arbitrary()?))
        } else {
            f64::from_bits(u.arbitrary()?)
        };
    }
    Ok(drawn)
}

/// Numbers that are not negative: shares, probabilities, weights.
pub fn masses(u: &mut Unstructured<'_>, n: usize, limit: f64) -> Result<Vec<f64>> {
    if chance(u, 1, 4)? {
        return Ok(numbers(u, n)?.into_iter().map(|x| x.abs().min(limit)).collect());
    }
    let style = u.int_in_range(0..=4)?;
    let mut random = Random::new(u)?;
    Ok((0..n)
        .map(|i| match style {
            0 => random.unit() * limit.min(1.0),
            1 => random.below(2) as f64,
            2 => f64::from(u8::from(i == n / 2)),
            3 => 1.0 / n as f64,
            _ => 10f64.powf(-40.0 * random.unit()),
        })
        .collect())
}

/// A shape of one to four axes, the axis of the classes, and lengths at which kernels change ways.
pub fn shape(u: &mut Unstructured<'_>) -> Result<(Vec<usize>, usize)> {
    const CLASSES: [usize; 43] = [
        3, 1, 2, 4, 5, 7, 8, 9, 10, 15, 16, 17, 31, 32, 33, 59, 60, 61, 64, 65, 79, 80, 81, 100,
        111, 112, 113, 127, 128, 129, 255, 256, 257, 300, 1000, 4095, 4096, 4097, 5000, 8193,
        16_384, 16_385, 0,
    ];
    let most = if chance(u, 1, 250)? { 300_000 } else { 3_000 };
    let mut classes = one_of(u, &CLASSES)?;
    if chance(u, 1, 4)? {
        classes = u.int_in_range(1..=140)?;
    }
    if most > 3_000 && chance(u, 1, 2)? {
        classes = one_of(u, &[131_072, 131_073, 262_144, 262_145, 300_000])?;
    }
    let axes = u.int_in_range(0..=3)?;
    let mut room = (most / classes.max(1)).max(1);
    let mut shape = Vec::new();
    for _ in 0..axes {
        let n = match u.int_in_range(0..=19)? {
            0 => 0,
            1..=11 => u.int_in_range(1..=9)?,
            12..=16 => u.int_in_range(1..=40)?,
            _ => room,
        }
        .min(room);
        room = (room / n.max(1)).max(1);
        shape.push(n);
    }
    let axis = u.int_in_range(0..=shape.len())?;
    shape.insert(axis, classes);
    Ok((shape, axis))
}
