//! What a row is, to a loss: its maximum, and how much of the softmax lies elsewhere.
//!
//! The sum of exponentials is never formed with the maximum's own 1 in it: `rest` sums the others,
//! so that `log1p(rest)` keeps a confident row's loss to the last bit.

use std::ops::Range;

/// The summary of some classes of a row. Its unit is `exp(center) 2^k`: multiply `rest` by it to
/// get the sum of `exp(x)` over the classes below the maximum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Summary {
    pub(crate) max: f64,
    pub(crate) center: f64,
    pub(crate) k: f64,
    pub(crate) rest: f64,
    /// How many classes equal the maximum.
    pub(crate) ties: f64,
    /// The sum over classes of mass times (max - x).
    pub(crate) dot: f64,
    /// The sum of masses.
    pub(crate) mass: f64,
    /// The sum of masses over the classes below the maximum.
    pub(crate) mass_rest: f64,
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
        mass: 0.0,
        mass_rest: 0.0,
    };

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
            exp_scaled(0.0, k)
        } else {
            exp_scaled(self.center - other.center, k)
        }
    }

    /// The summary of both parts' classes together.
    pub(crate) fn merge(self, other: Self) -> Self {
        let (high, low) = if self.max > other.max { (self, other) } else { (other, self) };
        let unit = low.unit_over(&high);
        if low.max == high.max {
            return Self {
                rest: high.rest + low.rest * unit,
                ties: high.ties + low.ties,
                dot: high.dot + low.dot,
                mass: high.mass + low.mass,
                mass_rest: high.mass_rest + low.mass_rest,
                ..high
            };
        }
        let low_all = if low.ties == 0.0 { low.rest } else { low.rest + low.ties * low.top() };
        let shifted = if low.mass == 0.0 { 0.0 } else { low.mass * (high.max - low.max) };
        Self {
            rest: high.rest + low_all * unit,
            dot: high.dot + low.dot + shifted,
            mass: high.mass + low.mass,
            mass_rest: high.mass_rest + low.mass,
            ..high
        }
    }
}

/// `exp(x) 2^k`, where either alone may be out of range; 0 at x = -inf.
fn exp_scaled(x: f64, k: f64) -> f64 {
    const LN2_HIGH: f64 = 0.693_147_180_559_208_2;
    const LN2_LOW: f64 = 7.371_002_565_167_798e-13;
    if x == f64::NEG_INFINITY {
        return 0.0;
    }
    let n = (x * std::f64::consts::LOG2_E).round();
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    // In two steps, each in range where the result is.
    let power = (n + k).clamp(-2200.0, 2200.0);
    let half = (power / 2.0).trunc();
    r.exp() * 2f64.powi(half as i32) * 2f64.powi((power - half) as i32)
}

/// Summaries of a group of rows, a field an array: lanes of `settle` are rows.
#[derive(Debug, Default)]
pub(crate) struct Summaries {
    pub(crate) max: Vec<f64>,
    pub(crate) center: Vec<f64>,
    pub(crate) k: Vec<f64>,
    pub(crate) rest: Vec<f64>,
    pub(crate) ties: Vec<f64>,
    pub(crate) dot: Vec<f64>,
    pub(crate) mass: Vec<f64>,
    pub(crate) mass_rest: Vec<f64>,
}

impl Summaries {
    fn fields(&mut self) -> [&mut Vec<f64>; 8] {
        let Self { max, center, k, rest, ties, dot, mass, mass_rest } = self;
        [max, center, k, rest, ties, dot, mass, mass_rest]
    }

    /// Makes room for so many rows.
    pub(crate) fn resize(&mut self, rows: usize) {
        for field in self.fields() {
            field.resize(rows, 0.0);
        }
    }

    pub(crate) fn get(&self, row: usize) -> Summary {
        Summary {
            max: self.max[row],
            center: self.center[row],
            k: self.k[row],
            rest: self.rest[row],
            ties: self.ties[row],
            dot: self.dot[row],
            mass: self.mass[row],
            mass_rest: self.mass_rest[row],
        }
    }

    pub(crate) fn set(&mut self, row: usize, s: Summary) {
        self.max[row] = s.max;
        self.center[row] = s.center;
        self.k[row] = s.k;
        self.rest[row] = s.rest;
        self.ties[row] = s.ties;
        self.dot[row] = s.dot;
        self.mass[row] = s.mass;
        self.mass_rest[row] = s.mass_rest;
    }

    /// Merges another group's summaries into these, row by row.
    pub(crate) fn merge(&mut self, other: &Self, rows: Range<usize>) {
        for row in rows {
            self.set(row, self.get(row).merge(other.get(row)));
        }
    }
}
