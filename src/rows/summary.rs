//! What a row is, to a loss: its maximum, and how much of the softmax lies elsewhere.
//!
//! The sum of exponentials is never formed with the maximum's own 1 in it: `rest` sums the others,
//! so that `log1p(rest)` keeps a confident row's loss to the last bit.

/// Rows that are held together: the lanes of the widest vector, so that a field of theirs is whole
/// vectors at every level.
pub(crate) const ROWS: usize = 16;

/// A field of [`ROWS`] rows.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Field(pub(crate) [f64; ROWS]);

/// The summary of some classes of a row. Its unit is `exp(center) 2^k`: multiply `rest` by it to
/// get the sum of `exp(x)` over the classes below the maximum.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Summary<T = f64> {
    pub(crate) max: T,
    pub(crate) center: T,
    pub(crate) k: T,
    pub(crate) rest: T,
    /// How many classes equal the maximum; without masses all but one of these may be in `rest`.
    pub(crate) ties: T,
    /// The sum over classes of mass times (max - x).
    pub(crate) dot: T,
    /// The sum of masses over the classes at the maximum.
    pub(crate) mass_top: T,
    /// The sum of masses over the classes below it.
    pub(crate) mass_rest: T,
    /// How many classes are above the target, where that was asked for.
    pub(crate) above: T,
}

impl Summary {
    /// Of no classes at all.
    pub(crate) const EMPTY: Self = Self {
        max: f64::NEG_INFINITY,
        center: f64::NEG_INFINITY,
        k: 0.0,
        rest: 0.0,
        ties: 0.0,
        dot: 0.0,
        mass_top: 0.0,
        mass_rest: 0.0,
        above: 0.0,
    };
    /// Of a row that does not count, at whose numbers nothing looks.
    pub(crate) const IGNORED: Self = Self { max: 0.0, center: 0.0, ties: 1.0, ..Self::EMPTY };

    /// `exp(max)` in units.
    pub(crate) fn top(&self) -> f64 {
        // Where the maximum is the center, the difference is 0, also between infinities.
        let near = if self.center == 0.0 { self.max } else { 0.0 };
        exp_scaled(near, -self.k)
    }

    /// This unit over another.
    pub(crate) fn unit_over(&self, other: &Self) -> f64 {
        let k = self.k - other.k;
        if self.center == other.center {
            if k == 0.0 { 1.0 } else { exp_scaled(0.0, k) }
        } else {
            exp_scaled(self.center - other.center, k)
        }
    }

    /// The summary of both parts' classes together; where `own`, the mass of each class is its
    /// exponential, and `dot` in units, too.
    pub(crate) fn merge(self, other: Self, own: bool) -> Self {
        let (high, low) = if self.max > other.max { (self, other) } else { (other, self) };
        let unit = low.unit_over(&high);
        if low.max == high.max {
            return Self {
                rest: high.rest + low.rest * unit,
                ties: high.ties + low.ties,
                dot: high.dot + if own { low.dot * unit } else { low.dot },
                mass_top: high.mass_top + low.mass_top,
                mass_rest: high.mass_rest + low.mass_rest,
                above: high.above + low.above,
                ..high
            };
        }
        let low_all = if low.ties == 0.0 { low.rest } else { low.rest + low.ties * low.top() };
        let low_mass = if own { low_all } else { low.mass_top + low.mass_rest };
        let shifted = if low_mass == 0.0 { 0.0 } else { low_mass * (high.max - low.max) };
        let dot = match (own, unit) {
            (false, _) => low.dot + shifted,
            // Nothing of an infinite gap is nothing.
            (true, 0.0) => 0.0,
            (true, _) => (low.dot + shifted) * unit,
        };
        Self {
            rest: high.rest + low_all * unit,
            dot: high.dot + dot,
            mass_rest: if own { 0.0 } else { high.mass_rest + low_mass },
            above: high.above + low.above,
            ..high
        }
    }
}

/// `exp(x) 2^k`, where either alone may be out of range.
fn exp_scaled(x: f64, k: f64) -> f64 {
    const LN2_HIGH: f64 = 0.693_147_180_559_208_2;
    const LN2_LOW: f64 = 7.371_002_565_167_798e-13;
    // No unit brings back what is farther from 1, and of larger numbers the reduction has no bits.
    let x = x.clamp(-1e6, 1e6);
    let n = (x * std::f64::consts::LOG2_E).round();
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    // In two steps, each in range where the result is.
    let power = (n + k).clamp(-2200.0, 2200.0);
    let half = (power / 2.0).trunc();
    r.exp() * 2f64.powi(half as i32) * 2f64.powi((power - half) as i32)
}

impl Summary<Field> {
    /// One of the sixteen.
    pub(crate) fn row(&self, i: usize) -> Summary {
        Summary {
            max: self.max.0[i],
            center: self.center.0[i],
            k: self.k.0[i],
            rest: self.rest.0[i],
            ties: self.ties.0[i],
            dot: self.dot.0[i],
            mass_top: self.mass_top.0[i],
            mass_rest: self.mass_rest.0[i],
            above: self.above.0[i],
        }
    }

    /// Replaces one of the sixteen.
    pub(crate) fn set_row(&mut self, i: usize, s: Summary) {
        self.max.0[i] = s.max;
        self.center.0[i] = s.center;
        self.k.0[i] = s.k;
        self.rest.0[i] = s.rest;
        self.ties.0[i] = s.ties;
        self.dot.0[i] = s.dot;
        self.mass_top.0[i] = s.mass_top;
        self.mass_rest.0[i] = s.mass_rest;
        self.above.0[i] = s.above;
    }
}

/// Merges another group's summaries into these, row by row.
pub(crate) fn merge_rows(into: &mut [Summary<Field>], other: &[Summary<Field>], own: bool) {
    for (into, other) in into.iter_mut().zip(other) {
        for i in 0..ROWS {
            into.set_row(i, into.row(i).merge(other.row(i), own));
        }
    }
}
