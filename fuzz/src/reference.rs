//! The losses as the documentation states them, in plain `f64`, one number at a time.
//!
//! Nothing is shared with the library. A term that would cancel is written so that it does not, or its
//! size is handed on ([`Want`]) for the ruler.

use crate::check::Want;

/// The product, where 0 times anything is 0.
pub fn times(a: f64, b: f64) -> f64 {
    if a == 0.0 || b == 0.0 { 0.0 } else { a * b }
}

/// A sum and what its rounding took (Knuth).
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let seen = sum - a;
    (sum, (a - (sum - seen)) + (b - seen))
}

/// What a row of logits is: probabilities, their complements, and minus their logarithms.
#[derive(Clone, Debug)]
pub struct Softmax {
    pub p: Vec<f64>,
    pub rest: Vec<f64>,
    pub neglog: Vec<f64>,
    /// How far each logit is below the largest.
    pub gap: Vec<f64>,
    pub max: f64,
    pub log_sum_exp: f64,
    /// What a shift of all logits by a rounding of the largest does not change.
    pub log: f64,
    /// Whether there is a NaN, more than one infinity, or nothing but minus infinity.
    pub undefined: bool,
}

pub fn softmax(z: &[f64]) -> Softmax {
    let max = z.iter().copied().fold(f64::NEG_INFINITY, |m, x| if x > m { x } else { m });
    let nan = z.iter().any(|x| x.is_nan());
    let infinities = z.iter().filter(|x| **x == f64::INFINITY).count();
    let gap: Vec<f64> = z.iter().map(|x| if *x == f64::INFINITY { 0.0 } else { max - x }).collect();
    // The gap's rounding would be one of the exponential's size times the gap.
    let exp = |(x, gap): (&f64, &f64)| {
        let e = (-gap).exp();
        let lost = two_sum(max, -x).1;
        if e > 0.0 && lost.is_finite() { e - e * lost } else { e }
    };
    let exps: Vec<f64> = z.iter().zip(&gap).map(exp).collect();
    let top = gap.iter().position(|gap| *gap == 0.0).unwrap_or(0);
    let sum_but = |skip: usize| -> f64 {
        exps.iter().enumerate().filter(|(i, _)| *i != skip).map(|(_, e)| e).sum()
    };
    let others = if z.is_empty() { 0.0 } else { sum_but(top) };
    let total = 1.0 + others;
    let log = others.ln_1p();
    // Of ties at the top, and of the few next to it, the complement is summed anew.
    let rest = |(i, e): (usize, &f64)| {
        if i == top {
            others / total
        } else if *e > 0.25 * total {
            sum_but(i) / total
        } else {
            (total - e) / total
        }
    };
    let undefined = nan || infinities > 1 || max == f64::NEG_INFINITY;
    let or_nan = |x: f64| if undefined { f64::NAN } else { x };
    Softmax {
        p: exps.iter().map(|e| or_nan(e / total)).collect(),
        rest: exps.iter().enumerate().map(rest).map(or_nan).collect(),
        neglog: gap.iter().map(|gap| or_nan(gap + log)).collect(),
        max,
        log_sum_exp: if nan { f64::NAN } else { max + if max.is_finite() { log } else { 0.0 } },
        log: or_nan(log),
        gap,
        undefined,
    }
}

/// Logits capped, divided by a temperature, and masked; with their first two derivatives.
#[derive(Clone, Debug)]
pub struct Warp {
    pub temperature: f64,
    pub softcap: Option<f64>,
    pub mask: Option<Vec<bool>>,
}

#[derive(Clone, Copy, Debug)]
pub struct Warped {
    pub z: f64,
    pub slope: f64,
    pub curvature: f64,
}

impl Warp {
    pub fn is_exact(&self) -> bool {
        self.temperature == 1.0 && self.softcap.is_none()
    }

    /// Of the element at a place.
    pub fn of(&self, x: f64, at: usize) -> Warped {
        let mut w = Warped { z: x, slope: 1.0, curvature: 0.0 };
        if let Some(cap) = self.softcap {
            let height = (x / cap).tanh();
            let slope = (x / cap).cosh().powi(-2);
            w = Warped { z: cap * height, slope, curvature: -2.0 * height * slope / cap };
        }
        w.z /= self.temperature;
        w.slope /= self.temperature;
        w.curvature /= self.temperature;
        if self.mask.as_ref().is_some_and(|mask| !mask[at]) {
            w = Warped { z: f64::NEG_INFINITY, slope: 0.0, curvature: 0.0 };
        }
        w
    }
}

/// `y - log(1 + y)`, for `y >= -1`.
pub fn apart(y: f64) -> f64 {
    if y.abs() > 0.02 {
        return y - y.ln_1p();
    }
    // y^2/2 - y^3/3 + y^4/4 - ...
    (2..14).rev().fold(0.0, |sum, k| 1.0 / f64::from(k) - y * sum) * y * y
}

/// `p log(p / q) - p + q`.
pub fn divergence_term(p: f64, q: f64) -> f64 {
    if p.is_nan() || q.is_nan() || (p == f64::INFINITY && q == f64::INFINITY) {
        f64::NAN
    } else if p == 0.0 {
        q
    } else if p == f64::INFINITY || q == 0.0 || q == f64::INFINITY {
        f64::INFINITY
    } else {
        let y = (q - p) / p;
        // Far from each other, the difference of logarithms cancels less than the ratio's has lost.
        if y.abs() < 0.5 { p * apart(y) } else { q - p * (1.0 + log_ratio(q, p)) }
    }
}

/// `log(p / q)`.
pub fn log_ratio(p: f64, q: f64) -> f64 {
    let (y, ratio) = ((p - q) / q, p / q);
    if y.abs() < 0.5 {
        y.ln_1p()
    } else if ratio.is_normal() {
        ratio.ln()
    } else {
        p.ln() - q.ln()
    }
}

/// A sum to the last bit or so (Neumaier, "Rundungsfehleranalyse einiger Verfahren zur Summation endlicher
/// Summen", 1974).
pub fn exact_sum(numbers: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut lost) = (0.0, 0.0);
    for x in numbers {
        let (next, rest) = two_sum(sum, x);
        sum = next;
        lost += rest;
    }
    if lost.is_finite() { sum + lost } else { sum }
}

/// The divergence of rows of logits and its gradients' terms.
pub struct OfLogits {
    pub loss: Want,
    pub first: Vec<Want>,
    pub second: Vec<Want>,
}

/// Kullback and Leibler's, or Jensen and Shannon's.
pub fn divergence_of_logits(a: &[f64], b: &[f64], is_js: bool) -> OfLogits {
    let (p, q) = (softmax(a), softmax(b));
    let n = a.len();
    let nan = Want::exactly(f64::NAN);
    if p.undefined || q.undefined {
        return OfLogits { loss: nan, first: vec![nan; n], second: vec![nan; n] };
    }
    let largest =
        |z: &[f64]| z.iter().filter(|x| x.is_finite()).fold(0.0, |m: f64, x| m.max(x.abs()));
    // What the difference of two logits, and of two log-sum-exps, may be wrong by.
    let slip = 4.0 * f64::EPSILON * (largest(a) + largest(b) + p.log + q.log + n as f64);
    let all_finite = p.max.is_finite() && q.max.is_finite();
    // log(q / p), q - p.
    let pairs: Vec<(f64, f64)> = (0..n)
        .map(|i| {
            if all_finite && a[i].is_finite() && b[i].is_finite() {
                let u = (b[i] - a[i]) - ((q.max - p.max) + (q.log - p.log));
                let d = if u.abs() < 1.0 { p.p[i] * u.exp_m1() } else { q.p[i] - p.p[i] };
                (u, d)
            } else if p.p[i] == 0.0 && q.p[i] == 0.0 {
                (0.0, 0.0)
            } else {
                (p.neglog[i] - q.neglog[i], q.p[i] - p.p[i])
            }
        })
        .collect();
    let moved: f64 = pairs.iter().map(|(_, d)| d.abs()).sum();
    if is_js {
        jensen_shannon(&p, &q, &pairs, slip, moved)
    } else {
        kullback_leibler(&p, &q, &pairs, slip, moved)
    }
}

fn kullback_leibler(
    p: &Softmax,
    q: &Softmax,
    pairs: &[(f64, f64)],
    slip: f64,
    moved: f64,
) -> OfLogits {
    let n = pairs.len() as f64;
    let (mut loss, mut loose) = (0.0, 0.0);
    for (i, (u, d)) in pairs.iter().enumerate() {
        // However little of a class there is, where the model has none it is impossible.
        let is_impossible = q.gap[i] == f64::INFINITY && p.gap[i] < f64::INFINITY;
        let (p, q) = (p.p[i], q.p[i]);
        loss += if is_impossible {
            f64::INFINITY
        } else if p == 0.0 {
            q
        } else if u.abs() < 1.0 {
            p * apart(u.exp_m1())
            // In `y = exp(u) - 1` the term is `y - log(1 + y)`.
        } else {
            d - times(p, *u)
        };
        loose += d.abs() * slip + if u.abs() < 1.0 { 0.0 } else { (q + p) * slip };
    }
    let finite_u = |u: f64, p: f64| if p == 0.0 { 0.0 } else { u };
    let first = pairs.iter().enumerate().map(|(i, (u, _))| {
        let (p, u) = (p.p[i], finite_u(*u, p.p[i]));
        if loss == f64::INFINITY {
            return Want::anything();
        }
        let size = p * (u.abs() + loss);
        Want::new(times(p, -u - loss), size, 32.0 + n).or(p * (slip * (2.0 + u.abs() + loss)))
    });
    let second = pairs.iter().enumerate().map(|(i, (_, d))| {
        let (p, q) = (p.p[i], q.p[i]);
        Want { size: moved, ..Want::new(*d, d.abs(), 32.0 + n) }.or((p + q) * slip)
    });
    OfLogits {
        first: first.collect(),
        second: second.collect(),
        loss: Want::new(loss, loss, 32.0 + n).or(loose + slip * slip * n),
    }
}

fn jensen_shannon(
    p: &Softmax,
    q: &Softmax,
    pairs: &[(f64, f64)],
    slip: f64,
    moved: f64,
) -> OfLogits {
    let n = pairs.len() as f64;
    let term = |mine: f64, d: f64, other: f64| {
        // D(mine, m) with m - mine = d / 2.
        if mine == 0.0 {
            other / 2.0
        } else if d > mine {
            d / 2.0 - mine * log_ratio(mine + d / 2.0, mine)
        } else {
            mine * apart(d / (2.0 * mine))
        }
    };
    let (mut of_p, mut of_q, mut loose) = (0.0, 0.0, 0.0);
    for (i, (_, d)) in pairs.iter().enumerate() {
        let (p, q) = (p.p[i], q.p[i]);
        of_p += term(p, *d, q);
        of_q += term(q, -d, p);
        loose += (d.abs() + d.abs().min(p + q) * 0.5) * slip;
    }
    let grad = |mine: &Softmax, sign: f64, total: f64| -> Vec<Want> {
        let of = |(i, (_, d)): (usize, &(f64, f64))| {
            let p = mine.p[i];
            // log(p / m) = -log(1 + (m - p) / p)
            let log = if p == 0.0 { 0.0 } else { -(sign * d / (2.0 * p)).ln_1p() };
            let size = 0.5 * p * (log.abs() + total);
            Want::new(0.5 * times(p, log - total), size, 64.0 + n)
                .or(p * slip * (2.0 + log.abs()) + 64.0 * f64::EPSILON * moved * p)
        };
        pairs.iter().enumerate().map(of).collect()
    };
    let loss = 0.5 * (of_p + of_q);
    OfLogits {
        first: grad(p, 1.0, of_p),
        second: grad(q, -1.0, of_q),
        loss: Want::new(loss, loss, 64.0 + n).or(loose + slip * slip * n),
    }
}

/// `log(1 + exp(x))`.
pub fn softplus(x: f64) -> f64 {
    let at_0 = if x > 0.0 { x } else { x * 0.0 };
    if x.is_infinite() { x.max(0.0) } else { at_0 + (-x.abs()).exp().ln_1p() }
}

pub fn sigmoid(x: f64) -> f64 {
    let e = (-x.abs()).exp();
    if x > 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}
