//! Calls of the losses of elements, and of what is measured of probabilities.

use crate::check::{Factor, TINY, Want, bars, loss_kind, most, near, ulp};
use crate::classes::{THREADS, Wanted, Weighing, assert_untouched, call, compare, without_nan};
use crate::draw::{chance, masses, numbers, one_of, shape};
use crate::memory::{Array, Lies};
use crate::reference::{apart, divergence_term, log_ratio, sigmoid, softplus, times};
use arbitrary::{Result, Unstructured};
use crossent::error::Error;
use crossent::float::Kind;
use crossent::losses::{self, Elements, Outputs};
use crossent::reduce::Reduction;

const FLOATS: [Kind; 4] = [Kind::F32, Kind::F64, Kind::F16, Kind::Bf16];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    Logits,
    Multilabel,
    SoftMargin,
    Focal { alpha: f64, gamma: f64 },
    Probabilities,
    KlDiv { log_target: bool },
    Entropy,
    BinaryEntropy,
    Kl,
    Js,
}

/// A loss of one element: value, derivatives by the first and by the second argument, second derivative.
struct Term {
    loss: Want,
    first: Want,
    /// Of a divergence, by the second argument; else the second derivative.
    second: Want,
}

/// Roundings of an element's formula.
const FEW: f64 = 64.0;

impl Loss {
    fn takes_logits(self) -> bool {
        matches!(self, Self::Logits | Self::Multilabel | Self::SoftMargin | Self::Focal { .. })
    }

    fn has_hess(self) -> bool {
        self.takes_logits()
    }

    fn is_information(self) -> bool {
        matches!(self, Self::Entropy | Self::BinaryEntropy | Self::Kl | Self::Js)
    }

    /// Whether losses are those of rows.
    fn is_of_rows(self) -> bool {
        matches!(self, Self::Multilabel | Self::Entropy | Self::Kl | Self::Js)
    }

    fn has_target(self) -> bool {
        !matches!(self, Self::Entropy | Self::BinaryEntropy)
    }

    /// Whether an element is outside of where the loss is defined.
    fn refuses(self, x: f64, t: f64) -> bool {
        match self {
            Self::Probabilities | Self::BinaryEntropy => !(0.0..=1.0).contains(&x) && !x.is_nan(),
            Self::Entropy => x < 0.0,
            Self::Kl | Self::Js => x < 0.0 || t < 0.0,
            _ => false,
        }
    }

    /// The loss of an element whose target is multiplied by `v`.
    fn term(self, x: f64, t: f64, v: f64) -> Term {
        let same = |value: f64| Want::new(value, value, FEW);
        if x.is_nan() || (self.has_target() && t.is_nan()) {
            let nan = Want::exactly(f64::NAN);
            let first = match self {
                Self::KlDiv { .. } if !t.is_nan() => self.term(0.0, t, v).first,
                _ => nan,
            };
            return Term { loss: nan, first, second: nan };
        }
        match self {
            Self::Logits | Self::Multilabel => {
                let (a, b) = (v * t, 1.0 - t);
                let parts = [times(a, softplus(-x)), times(b, softplus(x))];
                let size = parts[0].abs() + parts[1].abs();
                let (up, down) = (times(b, sigmoid(x)), times(a, sigmoid(-x)));
                let bend = sigmoid(x) * sigmoid(-x);
                Term {
                    loss: Want::new(parts[0] + parts[1], size, FEW),
                    first: Want::new(up - down, up.abs().max(down.abs()), FEW),
                    second: Want::new(times(a + b, bend), times(a.abs() + b.abs(), bend), FEW),
                }
            }
            Self::SoftMargin => {
                let y = t * x;
                if y.is_nan() {
                    let nan = Want::exactly(f64::NAN);
                    return Term { loss: nan, first: nan, second: nan };
                }
                // The product has a rounding of its own, where it is not exact.
                let slip = 2.0 * f64::EPSILON * y.abs();
                let slip = if slip.is_finite() { slip } else { 0.0 };
                let (p, rest) = (sigmoid(-y), sigmoid(y));
                Term {
                    loss: same(softplus(-y)).or(slip * p),
                    first: same(times(-t, p)).or(slip * times(t.abs(), p)),
                    second: same(times(t * t, p * rest)).or(slip * times(t * t, p * rest)),
                }
            }
            Self::Focal { alpha, gamma } => focal(x, t, alpha, gamma),
            Self::Probabilities => {
                let log = x.ln().max(-100.0);
                let log_rest = (-x).ln_1p().max(-100.0);
                let parts = [times(t, log), times(1.0 - t, log_rest)];
                let first = (x - t) / (x * (1.0 - x)).max(1e-12);
                Term {
                    loss: Want::new(
                        0.0 - (parts[0] + parts[1]),
                        parts[0].abs() + parts[1].abs(),
                        FEW,
                    ),
                    first: same(first),
                    second: same(0.0),
                }
            }
            Self::KlDiv { log_target } => {
                let (mass, log) = if log_target { (t.exp(), t) } else { (t, t.ln()) };
                let value = if mass == 0.0 { 0.0 } else { mass * (log - x) };
                let size = if mass == 0.0 { 0.0 } else { mass * log.abs().max(x.abs()) };
                // An exponential is only as good as its argument.
                let slip = if log_target { FEW * f64::EPSILON } else { 0.0 };
                Term {
                    loss: Want::new(value, size, FEW).or(slip * value),
                    first: same(-mass),
                    second: same(0.0),
                }
            }
            Self::Entropy => Term {
                loss: same(0.0 - times(x, x.ln())),
                first: Want::new(-x.ln() - 1.0, x.ln().abs().max(1.0), FEW),
                second: same(0.0),
            },
            Self::BinaryEntropy => Term {
                loss: same(0.0 - times(x, x.ln()) - times(1.0 - x, (-x).ln_1p())),
                first: Want::new((-x).ln_1p() - x.ln(), x.ln().abs().max((-x).ln_1p().abs()), FEW),
                second: same(0.0),
            },
            Self::Kl => Term {
                loss: same(divergence_term(x, t)),
                first: of_ratio(x, t),
                second: if x == 0.0 {
                    same(1.0)
                } else {
                    let both = x == f64::INFINITY && t == f64::INFINITY;
                    let value = if both {
                        f64::NAN
                    } else if t == f64::INFINITY {
                        1.0
                    } else {
                        (t - x) / t
                    };
                    same(value)
                },
            },
            Self::Js => {
                let value = if x == f64::INFINITY || t == f64::INFINITY {
                    f64::NAN
                } else {
                    // m is half of the sum; no term is lost where that is subnormal.
                    0.25 * (to_mean(x, t) + to_mean(t, x))
                };
                let by = |mine: f64, other: f64| {
                    let sum = mine + other;
                    if sum == 0.0 {
                        return same(0.0);
                    }
                    if sum == f64::INFINITY && mine != other {
                        return Want::anything();
                    }
                    let y = (other - mine) / sum;
                    // log(2 mine / sum) = log(1 - y)
                    let log = if y < 0.5 { (-y).ln_1p() } else { log_ratio(mine, 0.5 * sum) };
                    same(0.5 * log).or(coarse(mine.min(other)))
                };
                Term { loss: same(value), first: by(x, t), second: by(t, x) }
            }
        }
    }
}

/// What a ratio may be wrong by of which a number is near the least ones, where a difference is coarse.
fn coarse(low: f64) -> f64 {
    if low > 0.0 { 8.0 * TINY / low } else { 0.0 }
}

/// The term from `2p` to the sum of both, which rounds.
fn to_mean(p: f64, q: f64) -> f64 {
    let y = (q - p) / (2.0 * p);
    if y.abs() < 0.25 { 2.0 * p * apart(y) } else { divergence_term(2.0 * p, p + q) }
}

/// `log(p / q)`, at its limits.
fn of_ratio(p: f64, q: f64) -> Want {
    let value = if p == f64::INFINITY && q == f64::INFINITY {
        f64::NAN
    } else if p == 0.0 && q == 0.0 {
        0.0
    } else if p == 0.0 || q == f64::INFINITY {
        f64::NEG_INFINITY
    } else if q == 0.0 || p == f64::INFINITY {
        f64::INFINITY
    } else {
        log_ratio(p, q)
    };
    Want::new(value, value, FEW).or(coarse(p.min(q)))
}

fn focal(x: f64, t: f64, alpha: f64, gamma: f64) -> Term {
    if x.is_infinite() && t != 0.0 && t.powf(gamma + 2.0) < 1e-300 {
        // A power of next to nothing, times infinity.
        let any = Want::anything();
        return Term { loss: any, first: any, second: any };
    }
    let balance = if alpha >= 0.0 { alpha * t + (1.0 - alpha) * (1.0 - t) } else { 1.0 };
    let (up, down) = (sigmoid(x), sigmoid(-x));
    let slope = up * down;
    let m = t * down + (1.0 - t) * up;
    let tilt = (1.0 - 2.0 * t) * slope / m;
    let (log_m, r, r_slope) = if t == 1.0 {
        (-softplus(x), -up, -slope)
    } else if t == 0.0 {
        (-softplus(-x), down, -slope)
    } else {
        (m.ln(), tilt, tilt * (down - up) - tilt * tilt)
    };
    let power = balance * times(gamma, log_m).exp();
    let c = times(t, softplus(-x)) + times(1.0 - t, softplus(x));
    let pull = times(gamma * r, c);
    let curve = times(gamma * (r_slope + gamma * r * r), c);
    let straight = times(1.0 - t, up) - times(t, down);
    let first = times(power, straight + pull);
    let second = times(power, slope + 2.0 * gamma * r * straight + curve);
    let parts = times(1.0 - t, up).abs() + times(t, down).abs() + pull.abs() + curve.abs();
    let size = times(power.abs(), parts);
    // A power below the normal range is coarse here, and may be brought back by what it multiplies.
    let coarse = if power.abs() < f64::MIN_POSITIVE { f64::from_bits(1) } else { 0.0 };
    let of_power =
        |want: Want, by: f64| Want { slack: want.slack + times(coarse, by.abs()), ..want };
    // A power is as good as its logarithm, so many times.
    let roundings = FEW + 8.0 * times(gamma, log_m).abs().min(1e6);
    Term {
        loss: of_power(Want::new(times(power, c), times(power.abs(), c.abs()), roundings), c),
        first: of_power(Want::new(first, size, roundings), parts),
        second: of_power(Want::new(second, size, 2.0 * roundings), parts),
    }
}

fn never() -> bool {
    false
}

/// One call. `Err` where the bytes did not make one.
pub fn run(bytes: &[u8]) -> Result<()> {
    let u = &mut Unstructured::new(bytes);
    crossent::pool::set_num_threads(THREADS);
    let loss = match u.int_in_range(0..=11)? {
        0 | 1 => Loss::Logits,
        2 => Loss::Multilabel,
        3 => Loss::SoftMargin,
        4 | 5 => Loss::Focal {
            alpha: one_of(u, &[0.25, -1.0, 0.0, 1.0, 0.9])?,
            gamma: one_of(u, &[2.0, 0.0, 1.0, 3.0, 5.0, 0.5, 2.5])?,
        },
        6 => Loss::Probabilities,
        7 => Loss::KlDiv { log_target: u.arbitrary()? },
        8 => Loss::Entropy,
        9 => Loss::BinaryEntropy,
        10 => Loss::Kl,
        _ => Loss::Js,
    };
    let (shape, axis) = shape(u)?;
    let n: usize = shape.iter().product();
    let kind = one_of(u, &FLOATS)?;
    let limit = if matches!(loss, Loss::Probabilities | Loss::BinaryEntropy) { 1.0 } else { 1e30 };
    let drawn = if loss.takes_logits() || matches!(loss, Loss::KlDiv { .. }) || chance(u, 1, 40)? {
        numbers(u, n)?
    } else {
        masses(u, n, limit)?
    };
    let mut input = Array::of(u, kind, &shape, &drawn, Lies::Written)?;
    let x = input.numbers();
    let other = one_of(u, &FLOATS)?;
    let drawn = match loss {
        // Close to the first, where a difference would cancel.
        Loss::Kl | Loss::Js if chance(u, 1, 3)? => {
            x.iter().enumerate().map(|(i, x)| x * (1.0 + (i % 5) as f64 * 1e-7)).collect()
        }
        Loss::SoftMargin => masses(u, n, 1.0)?.into_iter().map(|t| 2.0 * t - 1.0).collect(),
        Loss::KlDiv { log_target: true } => numbers(u, n)?.into_iter().map(|t| -t.abs()).collect(),
        Loss::KlDiv { .. } | Loss::Kl | Loss::Js => masses(u, n, 1e30)?,
        _ => masses(u, n, 1.0)?,
    };
    let target = Array::of(u, other, &shape, &drawn, Lies::Read)?;
    let t = target.numbers();

    let mut rows = shape.clone();
    if loss.is_of_rows() {
        rows.remove(axis);
    }
    let classes = if loss.is_of_rows() { shape[axis] } else { 1 };
    let inner: usize = if loss.is_of_rows() { shape[axis + 1..].iter().product() } else { 1 };
    let row_of = |at: usize| at / (inner * classes).max(1) * inner + at % inner.max(1);
    let weighted = matches!(loss, Loss::Logits | Loss::Multilabel | Loss::Probabilities);
    let weights = |u: &mut Unstructured<'_>, may: bool| -> Result<Option<Array>> {
        if !may || !chance(u, 1, 3)? {
            return Ok(None);
        }
        let given = match u.int_in_range(0..=2)? {
            0 => Vec::new(),
            1 => shape[shape.len() - 1..].to_vec(),
            _ => shape.clone(),
        };
        let drawn = without_nan(masses(u, given.iter().product(), 1e3)?);
        let float = one_of(u, &FLOATS)?;
        Ok(Some(Array::of(u, float, &given, &drawn, Lies::Read)?))
    };
    let weight = weights(u, weighted)?;
    let pos_weight = weights(u, loss == Loss::Logits)?;
    let repeated = |array: &Option<Array>| -> Vec<f64> {
        match array {
            None => vec![1.0; n],
            Some(array) => {
                let numbers = array.numbers();
                (0..n).map(|at| numbers[at % numbers.len()]).collect()
            }
        }
    };
    let (w, v) = (repeated(&weight), repeated(&pos_weight));
    let measures = loss.is_information() || matches!(loss, Loss::KlDiv { .. });
    let base = if measures { one_of(u, &[None, Some(2.0)])? } else { None };
    let unit = base.map_or(1.0, f64::ln);
    let weighing = Weighing::new(u, loss_kind(kind), &rows, !loss.is_information())?;
    let has_losses = loss.is_information() || weighing.reduction == Reduction::None;
    let mut wanted = Wanted::new(u, &input, has_losses.then_some(&rows[..]), loss.has_hess())?;
    let mut second = if matches!(loss, Loss::Kl | Loss::Js) && chance(u, 1, 2)? {
        Some(Array::new(u, other, &shape, Lies::Written)?)
    } else {
        None
    };

    let before = input.bytes().to_vec();
    let got = call(&mut input, &mut wanted, |view, outputs| {
        let inputs = Elements {
            target: loss.has_target().then(|| target.view()),
            weight: weight.as_ref().map(Array::view),
            pos_weight: pos_weight.as_ref().map(Array::view),
            axis: loss.is_of_rows().then_some(axis),
            averages: loss == Loss::Multilabel,
            reduce: weighing.view(),
            ..Elements::of(view)
        };
        let outputs = Outputs { target_grad: second.as_mut().map(Array::view_mut), ..outputs };
        use losses as l;
        match loss {
            Loss::Logits => l::binary_cross_entropy_with_logits::binary_cross_entropy_with_logits(
                &inputs, outputs, &never,
            ),
            Loss::Multilabel => l::multilabel_soft_margin_loss::multilabel_soft_margin_loss(
                &inputs, outputs, &never,
            ),
            Loss::SoftMargin => l::soft_margin_loss::soft_margin_loss(&inputs, outputs, &never),
            Loss::Focal { alpha, gamma } => {
                let options = l::sigmoid_focal_loss::Options { alpha, gamma };
                l::sigmoid_focal_loss::sigmoid_focal_loss(&inputs, options, outputs, &never)
            }
            Loss::Probabilities => {
                l::binary_cross_entropy::binary_cross_entropy(&inputs, outputs, &never)
            }
            Loss::KlDiv { log_target } => {
                l::kl_div::kl_div(&inputs, log_target, base, outputs, &never)
            }
            Loss::Entropy => l::entropy::entropy(&inputs, base, outputs, &never),
            Loss::BinaryEntropy => {
                l::binary_entropy::binary_entropy(&inputs, base, outputs, &never)
            }
            Loss::Kl => l::kl_divergence::kl_divergence(&inputs, base, outputs, &never),
            Loss::Js => l::js_divergence::js_divergence(&inputs, base, outputs, &never),
        }
    });

    let sample = weighing.sample.as_ref().map(Array::numbers);
    let counts = |at: usize| sample.as_ref().is_none_or(|s| s[row_of(at)] != 0.0);
    if (0..n).any(|at| counts(at) && loss.refuses(x[at], t[at])) {
        assert!(matches!(got, Err(Error::Value(_))), "{loss:?}: {got:?}");
        assert!(input.bytes() == before, "a refused call wrote to its input");
        wanted.assert_untouched();
        second.iter().for_each(assert_untouched);
        return Ok(());
    }
    let got = got.unwrap_or_else(|error| panic!("{loss:?} refused: {error}"));

    let terms: Vec<Term> = (0..n).map(|at| loss.term(x[at], t[at], v[at])).collect();
    // A NaN stays one, whatever its weight.
    let weighed = |want: Want, by: f64| if want.value.is_nan() { want } else { want.times(by) };
    let by_loss = |at: usize| weighed(terms[at].loss, w[at]);
    let count: usize = rows.iter().product();
    let mut sums = vec![Want::exactly(0.0); count];
    for at in 0..n {
        let (sum, term) = (&mut sums[row_of(at)], by_loss(at));
        sum.value += term.value;
        sum.size += term.size;
        sum.slack += term.slack + term.size * classes as f64 * f64::EPSILON;
        if classes > 1 && loss_kind(kind) == Kind::F32 {
            // A row adds numbers of its type, which below the normal range are coarse.
            sum.slack += ulp(0.0, Kind::F32) / 2.0;
        }
    }
    let share = if loss == Loss::Multilabel { classes as f64 } else { 1.0 };
    let most = most(loss_kind(kind));
    for sum in &mut sums {
        let by = share * unit;
        if 4.0 * sum.size > most && sum.value.is_finite() {
            *sum = Want::anything();
            continue;
        }
        *sum = Want { value: sum.value / by, size: sum.size / by, slack: sum.slack / by };
    }
    if classes == 0 {
        return Ok(());
    }
    let live = vec![true; count];
    let (each, answer, factors) = weighing.reduce(&sums, &live, &vec![1.0; count]);
    // Weight and upstream gradient are multiplied first.
    let step = ulp(0.0, loss_kind(kind));
    let normal = if step == TINY { f64::MIN_POSITIVE } else { f64::from(f32::MIN_POSITIVE) };
    let derived = |of: fn(&Term) -> Want| -> Vec<Want> {
        (0..n)
            .map(|at| {
                let (want, factor) = (of(&terms[at]), factors[row_of(at)].over(share * unit));
                // Products below the normal range round more than once.
                let low = match factor {
                    Factor::By(by, _) if step == TINY => {
                        4.0 * TINY * (1.0 + by.abs()) * (1.0 + w[at].abs()) * (1.0 + want.size)
                    }
                    Factor::By(by, _) if (by * w[at]).abs() < normal => want.size * step,
                    Factor::By(by, _) if w[at].abs() < normal => step * by.abs(),
                    _ => 0.0,
                };
                weighed(want, w[at]).derived(factor).or(low)
            })
            .collect()
    };
    let grad = derived(|t| t.first);
    let hess = derived(|t| t.second);
    let mut by = bars(loss_kind(kind));
    // A mean of many losses, of which one outweighs the others, is no better than a multiple of it.
    let terms = if has_losses { classes } else { n };
    if loss.takes_logits() && loss_kind(kind) == Kind::F32 && terms > 64 {
        by.loss = 3.5;
    }
    if let Loss::Focal { .. } = loss {
        (by.loss, by.derivative) = (5.0, 20.0);
    }
    let answer = (!has_losses).then_some((got, answer));
    compare(&format!("{loss:?}"), &input, &wanted, (&each, answer, &grad, &hess), by);
    if let Some(second) = &second {
        // What is computed in float32 is no better for being written as float64.
        let as_good = if kind == Kind::F64 || other != Kind::F64 { other } else { Kind::F32 };
        near(
            &format!("{loss:?} second gradient"),
            as_good,
            &second.numbers(),
            &hess,
            bars(as_good).derivative,
        );
        second.assert_gaps();
    }
    Ok(())
}
