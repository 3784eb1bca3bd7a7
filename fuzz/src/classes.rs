//! Calls of the softmax family.

use crate::check::{Bars, Factor, TINY, Want, bars, loss_kind, most, near, ulp};
use crate::draw::{Random, chance, masses, numbers, one_of, shape};
use crate::memory::{Array, Lies};
use crate::reference::{Softmax, Warp, Warped, divergence_of_logits, exact_sum, softmax, times};
use arbitrary::{Result, Unstructured};
use crossent::error::Error;
use crossent::float::Kind;
use crossent::losses::token_log_prob::{Answers, Gradient, Tokens, token_log_prob};
use crossent::losses::{self, Elements, Inputs, Outputs};
use crossent::reduce::{Reduce, Reduction};
use crossent::warp;

const FLOATS: [Kind; 4] = [Kind::F32, Kind::F64, Kind::F16, Kind::Bf16];
const INTEGERS: [Kind; 8] =
    [Kind::I64, Kind::U8, Kind::I8, Kind::I16, Kind::U16, Kind::I32, Kind::U32, Kind::U64];

/// Of which small calls take one.
pub const THREADS: usize = 3;

/// One call. `Err` where the bytes did not make one.
pub fn run(bytes: &[u8]) -> Result<()> {
    let u = &mut Unstructured::new(bytes);
    crossent::pool::set_num_threads(THREADS);
    let which = u.int_in_range(0..=8)?;
    let (shape, axis) = shape(u)?;
    let kind = one_of(u, &FLOATS)?;
    let n = shape.iter().product();
    let drawn = numbers(u, n)?;
    let input = Array::of(u, kind, &shape, &drawn, Lies::Written)?;
    let rows = Rows { axis, shape };
    match which {
        0..=2 => cross_entropy(u, rows, input),
        3 => nll_loss(u, rows, input),
        4 => distribution(u, rows, input),
        5 => entropy(u, rows, input),
        6 => tokens(u, rows, input),
        _ => divergences(u, rows, input, which == 8),
    }
}

/// A shape seen as rows of classes, both in the order of C.
struct Rows {
    axis: usize,
    shape: Vec<usize>,
}

impl Rows {
    fn classes(&self) -> usize {
        self.shape[self.axis]
    }

    /// The shape of what there is one of a row.
    fn outer(&self) -> Vec<usize> {
        let mut outer = self.shape.clone();
        outer.remove(self.axis);
        outer
    }

    fn count(&self) -> usize {
        self.outer().iter().product()
    }

    /// Where a class of a row is among all elements.
    fn at(&self, row: usize, class: usize) -> usize {
        let inner: usize = self.shape[self.axis + 1..].iter().product();
        (row / inner * self.classes() + class) * inner + row % inner
    }

    fn of<T: Copy>(&self, all: &[T], row: usize) -> Vec<T> {
        (0..self.classes()).map(|class| all[self.at(row, class)]).collect()
    }
}

/// Wants for every element, filled row by row.
fn spread(rows: &Rows, by_row: impl Fn(usize) -> Vec<Want>) -> Vec<Want> {
    let mut all = vec![Want::exactly(0.0); rows.shape.iter().product()];
    for row in 0..rows.count() {
        for (class, want) in by_row(row).into_iter().enumerate() {
            all[rows.at(row, class)] = want;
        }
    }
    all
}

fn warping(u: &mut Unstructured<'_>, rows: &Rows) -> Result<(Warp, Option<Array>)> {
    let plain = Warp { temperature: 1.0, softcap: None, mask: None };
    if !chance(u, 1, 3)? {
        return Ok((plain, None));
    }
    let temperature = one_of(u, &[1.0, 0.5, 1.3, 1e-3, 100.0])?;
    let softcap = one_of(u, &[None, Some(30.0), Some(0.5)])?;
    let n = rows.shape.iter().product();
    if chance(u, 1, 2)? {
        return Ok((Warp { temperature, softcap, ..plain }, None));
    }
    let mut random = Random::new(u)?;
    let drawn: Vec<f64> = (0..n).map(|_| f64::from(u8::from(random.below(4) > 0))).collect();
    let mask = Array::of(u, Kind::U8, &rows.shape, &drawn, Lies::Read)?;
    let exists = mask.numbers().into_iter().map(|x| x != 0.0).collect();
    Ok((Warp { temperature, softcap, mask: Some(exists) }, Some(mask)))
}

fn view_of<'a>(warp: &Warp, mask: &'a Option<Array>) -> warp::Warp<'a> {
    warp::Warp {
        temperature: warp.temperature,
        softcap: warp.softcap,
        class_mask: mask.as_ref().map(Array::view),
    }
}

/// A row of logits.
struct Row {
    /// Warped.
    of: Vec<Warped>,
    soft: Softmax,
    /// By how much the warping may be wrong in any.
    slip: f64,
    /// The largest difference of finite logits, as a share of the largest number.
    spread: f64,
    /// Whether the warping overflowed.
    overflowed: bool,
}

impl Row {
    /// Whether so many times a difference of logits overflows, of which nothing is promised.
    fn is_beyond(&self, times: f64) -> bool {
        self.overflowed || self.spread * times > 0.25
    }
}

fn warped(rows: &Rows, warp: &Warp, x: &[f64], kind: Kind, row: usize) -> Row {
    let of: Vec<Warped> = (0..rows.classes())
        .map(|class| {
            let at = rows.at(row, class);
            warp.of(x[at], at)
        })
        .collect();
    let z: Vec<f64> = of.iter().map(|w| w.z).collect();
    let most = most(loss_kind(kind));
    let (least, largest) = z
        .iter()
        .filter(|z| z.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), z| (z.min(l), z.max(h)));
    let any = largest >= least;
    let slip = if warp.is_exact() || !any {
        0.0
    } else {
        16.0 * f64::EPSILON * largest.abs().max(least.abs())
    };
    let spread = if any { largest / most - least / most } else { 0.0 };
    let overflowed = (0..rows.classes())
        .any(|c| x[rows.at(row, c)].is_finite() && z[c].abs() > most && z[c] != f64::NEG_INFINITY);
    Row { soft: softmax(&z), of, slip, spread, overflowed }
}

/// A gradient with respect to a logit before the warping, from the derivatives after it.
fn gradient_before(w: &Warped, first: Want) -> Want {
    first.along(w.slope).or(bent(w.slope, first.size))
}

/// The second derivative likewise.
fn hessian_before(w: &Warped, first: Want, second: Want) -> Want {
    let (straight, bend) = (second.along(w.slope * w.slope), first.along(w.curvature));
    Want {
        value: straight.value + bend.value,
        size: straight.size + bend.size,
        slack: straight.slack + bend.slack,
    }
    .or(bent(w.slope, first.size + second.size) + bent(w.slope, 0.0).max(bend.size * 1e-13))
}

/// What a warping's slope may be wrong by, times a derivative of a size.
fn bent(slope: f64, size: f64) -> f64 {
    // It is known to roundings of what it is the complement of, and coarse below the normal range.
    if slope == 1.0 { 0.0 } else { size * (slope * 1e-13 + 1e5 * f64::MIN_POSITIVE) + 4.0 * TINY }
}

/// What products below the normal range may be wrong by, where a slope comes last.
fn lowest(row: &[Warped]) -> f64 {
    let steepest = row.iter().fold(1.0, |most: f64, w| most.max(w.slope));
    1e3 * TINY * steepest * steepest
}

/// What becomes of losses: the options, and their reference.
pub struct Weighing {
    /// The type of the losses.
    kind: Kind,
    pub reduction: Reduction,
    pub sample: Option<Array>,
    pub denominator: Option<f64>,
    pub empty: f64,
    pub grad_output: f64,
    pub grad_outputs: Option<Array>,
}

impl Weighing {
    pub fn new(
        u: &mut Unstructured<'_>,
        kind: Kind,
        losses: &[usize],
        reduces: bool,
    ) -> Result<Self> {
        let n: usize = losses.iter().product();
        let reduction = if reduces {
            one_of(u, &[Reduction::Mean, Reduction::None, Reduction::Sum])?
        } else {
            Reduction::None
        };
        let float = one_of(u, &FLOATS)?;
        let sample = if reduces && chance(u, 1, 4)? {
            let weights = masses(u, n, 4.0)?;
            Some(Array::of(u, float, losses, &without_nan(weights), Lies::Read)?)
        } else {
            None
        };
        let is_mean = reduction == Reduction::Mean;
        let denominator = if is_mean && chance(u, 1, 5)? {
            Some(one_of(u, &[7.0, 0.5, 0.0, 1e6])?)
        } else {
            None
        };
        let empty = if is_mean { one_of(u, &[f64::NAN, 0.0, 5.0])? } else { f64::NAN };
        let mut grad_outputs = None;
        if reduction == Reduction::None && chance(u, 1, 3)? {
            let drawn = masses(u, n, 4.0)?;
            let signed = without_nan(drawn)
                .into_iter()
                .enumerate()
                .map(|(i, g)| if i % 3 == 1 { -g } else { g });
            let float = one_of(u, &[Kind::F64, Kind::F32])?;
            grad_outputs =
                Some(Array::of(u, float, losses, &signed.collect::<Vec<_>>(), Lies::Read)?);
        }
        let grad_output =
            one_of(u, &[1.0, -1.0, 0.3, 1e-3, 0.0, 1e6, 2f64.powi(-60), 2f64.powi(40)])?;
        Ok(Self { kind, reduction, sample, denominator, empty, grad_output, grad_outputs })
    }

    pub fn view(&self) -> Reduce<'_> {
        Reduce {
            reduction: self.reduction,
            sample_weight: self.sample.as_ref().map(Array::view),
            denominator: self.denominator,
            empty: self.empty,
            grad_output: self.grad_output,
            grad_outputs: self.grad_outputs.as_ref().map(Array::view),
        }
    }

    /// The weight of each loss, 0 where it does not count.
    fn weights(&self, live: &[bool]) -> Vec<f64> {
        let sample = self.sample.as_ref().map(Array::numbers);
        let weight = |(i, live): (usize, &bool)| {
            if *live { sample.as_ref().map_or(1.0, |s| s[i]) } else { 0.0 }
        };
        live.iter().enumerate().map(weight).collect()
    }

    /// The weighted losses, the answer, and what the derivative of each loss is multiplied by.
    pub fn reduce(
        &self,
        losses: &[Want],
        live: &[bool],
        counted: &[f64],
    ) -> (Vec<Want>, Want, Vec<Factor>) {
        let n = losses.len() as f64;
        let weights = self.weights(live);
        let each: Vec<Want> = losses
            .iter()
            .zip(&weights)
            .map(|(l, w)| Want { slack: l.slack + l.size * f64::EPSILON, ..*l }.times(*w))
            .enumerate()
            .map(|(i, l)| match counted.get(i) {
                // Weights are multiplied first.
                Some(c) if *c > 0.0 && *c < 1.0 => l.or(TINY * (losses[i].size / c).min(1e300)),
                _ => l,
            })
            .collect();
        let sum = |of: fn(&Want) -> f64| each.iter().map(of).sum::<f64>();
        let total = Want::new(sum(|l| l.value), sum(|l| l.size), 4.0 + n).or(sum(|l| l.slack));
        let upstream: Vec<f64> = match &self.grad_outputs {
            Some(g) => g.numbers(),
            None => vec![self.grad_output; losses.len()],
        };
        let factor = |by: f64, (w, g): (&f64, &f64)| match (*w, by) {
            (0.0, _) => Factor::Dead,
            (_, 0.0) => Factor::By(0.0, 0.0),
            _ => {
                let factor = w * (g / by);
                let is_low = self.kind == Kind::F32 && factor.abs() < f64::from(f32::MIN_POSITIVE);
                Factor::By(factor, if is_low { ulp(0.0, self.kind) } else { 0.0 })
            }
        };
        let factors =
            |by: f64| weights.iter().zip(&upstream).map(|pair| factor(by, pair)).collect();
        let by = match self.reduction {
            Reduction::Mean => self.denominator.unwrap_or_else(|| {
                exact_sum(weights.iter().zip(counted).map(|(w, c)| times(*w, *c)))
            }),
            _ => 1.0,
        };
        let answer = if by == 0.0 {
            Want::exactly(self.empty)
        } else {
            Want::new(total.value / by, total.size / by, n).or(total.slack / by)
        };
        (each, answer, factors(by))
    }
}

pub fn without_nan(numbers: Vec<f64>) -> Vec<f64> {
    numbers.into_iter().map(|x| if x.is_finite() { x } else { 1.0 }).collect()
}

/// Which outputs a call has, and where.
pub struct Wanted {
    pub losses: Option<Array>,
    pub grad: Option<Array>,
    pub hess: Option<Array>,
    pub in_place: bool,
}

impl Wanted {
    pub fn new(
        u: &mut Unstructured<'_>,
        input: &Array,
        losses: Option<&[usize]>,
        has_hess: bool,
    ) -> Result<Self> {
        let in_place = chance(u, 1, 4)?;
        let float = loss_kind(input.kind());
        let losses = losses.map(|shape| Array::new(u, float, shape, Lies::Written)).transpose()?;
        let grad = if !in_place && chance(u, 2, 3)? {
            Some(Array::new(u, input.kind(), &input.shape, Lies::Written)?)
        } else {
            None
        };
        let hess = if has_hess && chance(u, 1, 3)? {
            Some(Array::new(u, input.kind(), &input.shape, Lies::Written)?)
        } else {
            None
        };
        Ok(Self { losses, grad, hess, in_place })
    }

    pub fn assert_gaps(&self) {
        for array in [&self.losses, &self.grad, &self.hess].into_iter().flatten() {
            array.assert_gaps();
        }
    }

    /// Panics where anything was written.
    pub fn assert_untouched(&self) {
        [&self.losses, &self.grad, &self.hess].into_iter().flatten().for_each(assert_untouched);
    }
}

/// Asserts that an output is as it was made.
pub fn assert_untouched(output: &Array) {
    assert!(output.bytes().iter().all(|b| *b == 0xff), "a refused call wrote");
}

/// Calls with the input and the outputs; the gradient may be the input.
pub fn call<T>(
    input: &mut Array,
    wanted: &mut Wanted,
    f: impl FnOnce(crossent::view::View<'_>, Outputs<'_>) -> T,
) -> T {
    let Wanted { losses, grad, hess, in_place } = wanted;
    let (view, own) = input.both();
    let grad = if *in_place { Some(own) } else { grad.as_mut().map(Array::view_mut) };
    let outputs = Outputs {
        losses: losses.as_mut().map(Array::view_mut),
        grad,
        hess: hess.as_mut().map(Array::view_mut),
        target_grad: None,
    };
    f(view, outputs)
}

fn never() -> bool {
    false
}

/// Losses of rows, what they are reduced to, gradients and Hessians.
type Wants<'a> = (&'a [Want], Option<(f64, Want)>, &'a [Want], &'a [Want]);

/// Holds everything that a call gave against what it should be.
pub fn compare(
    what: &str,
    input: &Array,
    wanted: &Wanted,
    (each, answer, grad, hess): Wants<'_>,
    by: Bars,
) {
    let float = loss_kind(input.kind());
    if let Some(losses) = &wanted.losses {
        near(&format!("{what} losses"), float, &losses.numbers(), each, by.loss);
    }
    if let Some((got, want)) = answer {
        let rounded = if float == Kind::F64 { got } else { f64::from(got as f32) };
        near(what, float, &[rounded], &[want], by.loss);
    }
    let derivative = bars(input.kind()).derivative.max(
        if input.kind() == Kind::F32 || input.kind() == Kind::F64 { by.derivative } else { 0.0 },
    );
    if wanted.in_place {
        near(
            &format!("{what} gradient in place"),
            input.kind(),
            &input.numbers(),
            grad,
            derivative,
        );
    } else if let Some(g) = &wanted.grad {
        near(&format!("{what} gradient"), input.kind(), &g.numbers(), grad, derivative);
    }
    if let Some(h) = &wanted.hess {
        near(&format!("{what} Hessian"), input.kind(), &h.numbers(), hess, derivative);
    }
    wanted.assert_gaps();
    input.assert_gaps();
}

/// Class indices, some ignored, rarely one that is no class.
fn indices(
    u: &mut Unstructured<'_>,
    rows: &Rows,
    x: &[f64],
    ignored: Option<i64>,
) -> Result<Array> {
    let classes = rows.classes();
    let style = u.int_in_range(0..=3)?;
    let wrong = chance(u, 1, 40)?;
    let mut random = Random::new(u)?;
    let kind = one_of(u, &INTEGERS)?;
    let most = match kind {
        Kind::I8 => 127,
        Kind::U8 => 255,
        Kind::I16 => 32767,
        Kind::U16 => 65535,
        _ => usize::MAX,
    };
    let signed = matches!(kind, Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64);
    let fits = |i: &i64| *i <= 255 && (*i >= 0 || signed);
    let largest = |row: usize| {
        let z = rows.of(x, row);
        (0..classes).max_by(|a, b| z[*a].total_cmp(&z[*b])).unwrap_or(0)
    };
    let mut drawn: Vec<f64> = (0..rows.count())
        .map(|row| {
            if let Some(ignored) = ignored.filter(fits)
                && random.below(5) == 0
            {
                return ignored as f64;
            }
            let class = match style {
                0 => largest(row),
                1 => 0,
                2 => classes.saturating_sub(1),
                _ => random.below(classes),
            };
            class.min(most) as f64
        })
        .collect();
    if wrong && !drawn.is_empty() {
        let at = random.below(drawn.len());
        drawn[at] = if random.below(2) == 0 && signed { -1.0 } else { classes.min(most) as f64 };
    }
    Array::of(u, kind, &rows.outer(), &drawn, Lies::Read)
}

fn class_weights(u: &mut Unstructured<'_>, classes: usize) -> Result<Option<Vec<f64>>> {
    if chance(u, 3, 5)? {
        return Ok(None);
    }
    let weights = without_nan(masses(u, classes, 1e6)?);
    let single = chance(u, 1, 2)?;
    Ok(Some(weights.into_iter().map(|w| if single { f64::from(w as f32) } else { w }).collect()))
}

fn is_wrong(target: &[f64], classes: usize, ignored: Option<i64>, sample: Option<&Array>) -> bool {
    let sample = sample.map(Array::numbers);
    let counts = |(row, t): &(usize, &f64)| {
        // Without weight a row is not looked at.
        ignored.is_none_or(|i| **t != i as f64) && sample.as_ref().is_none_or(|s| s[*row] != 0.0)
    };
    target.iter().enumerate().filter(counts).any(|(_, t)| *t < 0.0 || *t >= classes as f64)
}

/// The class of a row that counts: without weight it may be any at all.
fn class_of(target: f64, classes: usize) -> usize {
    (target as usize).min(classes - 1)
}

/// The loss of a row, and derivatives but for the upstream gradient.
struct Terms {
    loss: Want,
    grad: Vec<Want>,
    /// The Hessian's diagonal; of a divergence, the gradient with respect to the second argument.
    second: Vec<Want>,
    /// Whether a logit is infinite: 0 times a derivative is then anyone's guess.
    is_infinite: bool,
    /// What every derivative has of the penalty on the log-sum-exp, which may overflow.
    penalty: f64,
    /// What products below the normal range, which round more than once, may be wrong by.
    low: f64,
}

impl Terms {
    fn anything(classes: usize) -> Self {
        let all = vec![Want::anything(); classes];
        Self {
            loss: Want::anything(),
            grad: all.clone(),
            second: all,
            is_infinite: false,
            penalty: 0.0,
            low: 0.0,
        }
    }

    fn derived(&self, wants: &[Want], by: Factor) -> Vec<Want> {
        let is_guess = match by {
            Factor::By(0.0, _) => self.is_infinite,
            Factor::By(by, _) => (self.penalty * by).abs() > 1e37 && !self.is_infinite,
            Factor::Dead => false,
        };
        let of = |want: &Want| match by {
            _ if is_guess => Want::anything(),
            Factor::By(..) => want.derived(by).or(self.low),
            Factor::Dead => want.derived(by),
        };
        wants.iter().map(of).collect()
    }
}

fn of_masses(q: &[f64], cancels: bool, z_loss: f64, kind: Kind, row: &Row) -> Terms {
    let Row { of: w, soft: s, slip, .. } = row;
    let n = q.len() as f64;
    let heaviest = q.iter().fold(1.0, |most: f64, q| most.max(q.abs()));
    if row.is_beyond(if cancels { n * n * heaviest } else { heaviest }) {
        return Terms::anything(q.len());
    }
    let roundings = 32.0 + n;
    let all: f64 = q.iter().sum();
    let sum = |f: &dyn Fn(usize) -> f64| (0..q.len()).map(f).sum::<f64>();
    let lse = s.log_sum_exp;
    let lse_size = if s.max.is_finite() { s.max.abs() + s.log } else { lse.abs() };
    let value = sum(&|i| times(q[i], s.neglog[i]));
    let size = sum(&|i| times(q[i].abs(), s.neglog[i]));
    let square = if z_loss == 0.0 { 0.0 } else { z_loss * lse * lse };
    let lost = 8.0 * f64::EPSILON * lse_size;
    let loose = if z_loss == 0.0 { 0.0 } else { (z_loss * lse).abs() * 4.0 * (lost + slip) };
    let nan = s.undefined;
    let value = if nan { f64::NAN } else { value };
    // A mass of float32 below the normal range is coarse.
    let step = |q: f64| {
        let is_low = q != 0.0 && q.abs() < f64::from(f32::MIN_POSITIVE);
        if is_low && kind == Kind::F32 { ulp(0.0, kind) } else { 0.0 }
    };
    let coarse = sum(&|i| times(step(q[i]), s.neglog[i]));
    let any_step = q.iter().copied().map(step).fold(0.0, f64::max);
    // What the room of an exponential ends at.
    let nothing = if kind == Kind::F64 { TINY } else { 2f64.powi(-205) };
    // Targets of next to no mass at all are nothing in the kernel's unit.
    let is_lost = (cancels || z_loss != 0.0) && all.abs() < 1e-140;
    let lost_mass = if is_lost { all.abs() } else { 0.0 };
    let loss = Want::new(value + square, size + square.abs(), roundings)
        .or(loose + slip * 2.0 * all.abs() + coarse);
    let more = if z_loss == 0.0 { 0.0 } else { 2.0 * z_loss * lse };
    let more_slip = if z_loss == 0.0 {
        0.0
    } else if more.abs() < 1e-140 {
        // Nothing, in the kernel's unit.
        more.abs()
    } else {
        2.0 * z_loss.abs() * (lost + slip)
    };
    let mut grad = Vec::with_capacity(q.len());
    let mut hess = Vec::with_capacity(q.len());
    for i in 0..q.len() {
        let (p, rest) = (s.p[i], s.rest[i]);
        let others = sum_but(q, i, all);
        let by_z = times(p, others) - times(rest, q[i]) + times(more, p);
        let mut size = if cancels { times(p, all.abs()).max(q[i].abs()) } else { 0.0 };
        size += times(more.abs(), p);
        // Of an exponential below the normal range.
        let low = 4.0 * nothing * (1.0 + all.abs() + more.abs().min(f64::MAX)) + lost_mass;
        let by_z = Want::new(by_z, size, roundings)
            .or(more_slip * p + slip * (size + by_z.abs()) + low + step(q[i]));
        let curve = times(times(all + more, p), rest) + 2.0 * z_loss * p * p;
        let size = times(times(all.abs() + more.abs(), p), rest) + 2.0 * (z_loss * p * p).abs();
        // The penalty's part of a slope is known to 2^-60 of what it bends by.
        let bend = (2.0 * z_loss).abs() * 2f64.powi(-59) * p;
        let by_z2 =
            Want::new(curve, size, roundings).or(more_slip * p + slip * size * 4.0 + low + bend);
        if w[i].slope == 0.0 && s.undefined {
            grad.push(Want::anything());
            hess.push(Want::anything());
        } else {
            grad.push(gradient_before(&w[i], by_z));
            hess.push(hessian_before(&w[i], by_z, by_z2));
        }
    }
    // With a penalty on it, an infinite log-sum-exp is in every class.
    let is_infinite = lse.is_infinite() || !all.is_finite();
    Terms { loss, grad, second: hess, is_infinite, penalty: more, low: lowest(w) + 16.0 * any_step }
}

/// All masses but one.
fn sum_but(q: &[f64], skip: usize, all: f64) -> f64 {
    if q[skip] == 0.0 || q[skip] < 0.25 * all {
        all - q[skip]
    } else {
        q.iter().enumerate().filter(|(i, _)| *i != skip).map(|(_, q)| q).sum()
    }
}

fn cross_entropy(u: &mut Unstructured<'_>, rows: Rows, mut input: Array) -> Result<()> {
    let x = input.numbers();
    let classes = rows.classes();
    let soft = chance(u, 1, 3)?;
    let ignored = one_of(u, &[Some(-100), None, Some(1), Some(255)])?.filter(|i| *i < 0 || !soft);
    let target = if soft {
        let drawn = masses(u, x.len(), 1e6)?;
        let float = one_of(u, &FLOATS)?;
        Array::of(u, float, &rows.shape, &without_nan(drawn), Lies::Read)?
    } else {
        indices(u, &rows, &x, ignored)?
    };
    let t = target.numbers();
    let weight = class_weights(u, classes)?;
    let smoothing = one_of(u, &[0.0, 0.0, 0.1, 1.0, 0.7])?;
    let z_loss = one_of(u, &[0.0, 0.0, 0.0, 1e-3, 2.0])?;
    let (warp, mask) = warping(u, &rows)?;
    let weighing = Weighing::new(u, loss_kind(input.kind()), &rows.outer(), true)?;
    let outer = rows.outer();
    let losses = (weighing.reduction == Reduction::None).then_some(&outer[..]);
    let mut wanted = Wanted::new(u, &input, losses, true)?;

    let before = input.bytes().to_vec();
    let got = call(&mut input, &mut wanted, |view, outputs| {
        let inputs = Inputs {
            input: view,
            target: target.view(),
            axis: rows.axis,
            weight: weight.clone(),
            ignore_index: ignored,
            reduce: weighing.view(),
        };
        let options = losses::cross_entropy::Options {
            label_smoothing: smoothing,
            z_loss,
            warp: view_of(&warp, &mask),
        };
        losses::cross_entropy::cross_entropy(&inputs, &options, outputs, &never)
    });
    if !soft && is_wrong(&t, classes, ignored, weighing.sample.as_ref()) {
        assert!(matches!(got, Err(Error::Index(_))), "{got:?}");
        if wanted.in_place || wanted.grad.is_some() || wanted.hess.is_some() {
            wanted.assert_untouched();
            assert!(input.bytes() == before, "a refused call wrote");
        }
        return Ok(());
    }
    if classes == 0 {
        // Refused, or nothing.
        return Ok(());
    }
    let got = got.unwrap_or_else(|error| panic!("refused: {error}"));

    let w = weight.unwrap_or_else(|| vec![1.0; classes]);
    let live: Vec<bool> =
        (0..rows.count()).map(|row| soft || ignored.is_none_or(|i| t[row] != i as f64)).collect();
    let counted: Vec<f64> = (0..rows.count())
        .map(|row| if soft || !live[row] { 1.0 } else { w[class_of(t[row], classes)] })
        .collect();
    let terms: Vec<Terms> = (0..rows.count())
        .map(|row| {
            let share = if soft {
                rows.of(&t, row)
            } else {
                (0..classes).map(|c| f64::from(u8::from(live[row] && c as f64 == t[row]))).collect()
            };
            let mix = |(c, share): (usize, f64)| {
                w[c] * ((1.0 - smoothing) * share + smoothing / classes as f64)
            };
            let q: Vec<f64> = share.into_iter().enumerate().map(mix).collect();
            of_masses(
                &q,
                soft || smoothing > 0.0,
                z_loss,
                loss_kind(input.kind()),
                &warped(&rows, &warp, &x, input.kind(), row),
            )
        })
        .collect();
    let losses: Vec<Want> = terms.iter().map(|t| t.loss).collect();
    let (each, answer, factors) = weighing.reduce(&losses, &live, &counted);
    let grad = spread(&rows, |row| terms[row].derived(&terms[row].grad, factors[row]));
    let hess = spread(&rows, |row| terms[row].derived(&terms[row].second, factors[row]));
    let answer = wanted.losses.is_none().then_some((got, answer));
    let by = bars(loss_kind(input.kind()));
    compare("cross_entropy", &input, &wanted, (&each, answer, &grad, &hess), by);
    Ok(())
}

fn nll_loss(u: &mut Unstructured<'_>, rows: Rows, mut input: Array) -> Result<()> {
    let x = input.numbers();
    let classes = rows.classes();
    let ignored = one_of(u, &[Some(-100), None, Some(1)])?;
    let target = indices(u, &rows, &x, ignored)?;
    let t = target.numbers();
    let weight = class_weights(u, classes)?;
    let weighing = Weighing::new(u, loss_kind(input.kind()), &rows.outer(), true)?;
    let outer = rows.outer();
    let losses = (weighing.reduction == Reduction::None).then_some(&outer[..]);
    let mut wanted = Wanted::new(u, &input, losses, false)?;
    let before = input.bytes().to_vec();
    let got = call(&mut input, &mut wanted, |view, outputs| {
        let inputs = Inputs {
            input: view,
            target: target.view(),
            axis: rows.axis,
            weight: weight.clone(),
            ignore_index: ignored,
            reduce: weighing.view(),
        };
        losses::nll_loss::nll_loss(&inputs, outputs, &never)
    });
    if is_wrong(&t, classes, ignored, weighing.sample.as_ref()) {
        assert!(matches!(got, Err(Error::Index(_))), "{got:?}");
        wanted.assert_untouched();
        assert!(input.bytes() == before, "a refused call wrote");
        return Ok(());
    }
    if classes == 0 {
        return Ok(());
    }
    let got = got.unwrap_or_else(|error| panic!("refused: {error}"));
    let w = weight.unwrap_or_else(|| vec![1.0; classes]);
    let live: Vec<bool> = t.iter().map(|t| ignored.is_none_or(|i| *t != i as f64)).collect();
    let class = |row: usize| if live[row] { class_of(t[row], classes) } else { 0 };
    let counted: Vec<f64> = (0..rows.count()).map(|row| w[class(row)]).collect();
    let losses: Vec<Want> = (0..rows.count())
        .map(|row| {
            // Whatever is in a row that does not count.
            let v = if live[row] { times(-counted[row], x[rows.at(row, class(row))]) } else { 0.0 };
            Want::new(v, v, 4.0)
        })
        .collect();
    let (each, answer, factors) = weighing.reduce(&losses, &live, &counted);
    let grad = spread(&rows, |row| {
        let at = |c: usize| match factors[row] {
            Factor::By(by, _) if live[row] && c == class(row) => times(by, -counted[row]),
            _ => 0.0,
        };
        (0..classes).map(|c| Want::new(at(c), at(c), 8.0)).collect()
    });
    let answer = wanted.losses.is_none().then_some((got, answer));
    let by = bars(loss_kind(input.kind()));
    compare("nll_loss", &input, &wanted, (&each, answer, &grad, &[]), by);
    Ok(())
}

fn distribution(u: &mut Unstructured<'_>, rows: Rows, mut input: Array) -> Result<()> {
    let x = input.numbers();
    let which = u.int_in_range(0..=2)?;
    let (warp, mask) = warping(u, &rows)?;
    let mut out = if which == 2 {
        Array::new(u, loss_kind(input.kind()), &rows.outer(), Lies::Written)?
    } else {
        Array::new(u, input.kind(), &rows.shape, Lies::Written)?
    };
    let in_place = which != 2 && chance(u, 1, 3)?;
    let warp_view = view_of(&warp, &mask);
    let (view, own) = input.both();
    let to = if in_place { own } else { out.view_mut() };
    let done = match which {
        0 => losses::softmax::softmax(view, rows.axis, &warp_view, to, &never),
        1 => losses::softmax::log_softmax(view, rows.axis, &warp_view, to, &never),
        _ => losses::softmax::logsumexp(view, rows.axis, &warp_view, to, &never),
    };
    if rows.classes() == 0 {
        return Ok(());
    }
    done.unwrap_or_else(|error| panic!("refused: {error}"));
    let roundings = 32.0 + rows.classes() as f64;
    let kind = input.kind();
    let of_row = |row: usize| {
        let row = warped(&rows, &warp, &x, kind, row);
        let slip = if row.is_beyond(1.0) { f64::INFINITY } else { 2.0 * row.slip };
        (row.soft, slip)
    };
    let want = match which {
        0 => spread(&rows, |row| {
            let (s, slip) = of_row(row);
            // Exponentials have an error below the normal range.
            let low = 4.0 * TINY * roundings;
            s.p.iter().map(|p| Want::new(*p, *p, roundings).or(times(slip, *p) + low)).collect()
        }),
        1 => spread(&rows, |row| {
            let (s, slip) = of_row(row);
            s.neglog.iter().map(|l| Want::new(-l, *l, roundings).or(slip)).collect()
        }),
        _ => (0..rows.count())
            .map(|row| {
                let (s, slip) = of_row(row);
                let size = if s.max.is_finite() { s.max.abs() + s.log } else { 0.0 };
                Want::new(s.log_sum_exp, size, roundings).or(slip)
            })
            .collect(),
    };
    let got = if in_place { &input } else { &out };
    let bar = if matches!(got.kind(), Kind::F32 | Kind::F64) { 4.0 } else { 0.51 };
    near(["softmax", "log_softmax", "logsumexp"][which], got.kind(), &got.numbers(), &want, bar);
    out.assert_gaps();
    input.assert_gaps();
    Ok(())
}

fn entropy(u: &mut Unstructured<'_>, rows: Rows, mut input: Array) -> Result<()> {
    let x = input.numbers();
    let base = one_of(u, &[None, Some(2.0), Some(0.5)])?;
    let unit = base.map_or(1.0, f64::ln);
    let (warp, mask) = warping(u, &rows)?;
    let weighing = Weighing::new(u, loss_kind(input.kind()), &rows.outer(), false)?;
    let outer = rows.outer();
    let mut wanted = Wanted::new(u, &input, Some(&outer), true)?;
    let got = call(&mut input, &mut wanted, |view, outputs| {
        let reduce = weighing.view();
        let inputs = Elements { axis: Some(rows.axis), reduce, ..Elements::of(view) };
        let warp = view_of(&warp, &mask);
        losses::entropy_with_logits::entropy_with_logits(&inputs, base, &warp, outputs, &never)
    });
    if rows.classes() == 0 {
        return Ok(());
    }
    got.unwrap_or_else(|error| panic!("refused: {error}"));
    let roundings = 64.0 + rows.classes() as f64;
    let live = vec![true; rows.count()];
    let mean_step = ulp(0.0, loss_kind(input.kind()));
    let terms: Vec<Terms> = (0..rows.count())
        .map(|row| {
            let row = warped(&rows, &warp, &x, input.kind(), row);
            if row.is_beyond(1.0) {
                return Terms::anything(rows.classes());
            }
            let Row { of: w, soft: s, slip, .. } = row;
            let mean_gap: f64 = s.p.iter().zip(&s.gap).map(|(p, gap)| times(*p, *gap)).sum();
            let value = if s.undefined { f64::NAN } else { s.log + mean_gap };
            let gaps: f64 =
                s.p.iter().zip(&s.gap).map(|(p, gap)| times(times(*p, *gap), *gap)).sum();
            let low = 800.0 * TINY * roundings;
            let loss = Want::new(value, value, roundings).or(slip * 4.0 * (mean_gap + gaps) + low);
            let derive = |i: usize| {
                let (p, rest) = (s.p[i], s.rest[i]);
                // Where it is 0 the exponential may be the least number.
                let gap = if p == 0.0 { s.gap[i].min(800.0) } else { s.gap[i] };
                let first = times(p, gap - mean_gap);
                let size = times(p, gap + mean_gap);
                let moves = (slip * p + roundings * TINY) * 4.0 * (800.0 + gap + mean_gap + gaps)
                    + p * mean_step;
                let first = Want::new(first, size, roundings).or(moves);
                let second = p * ((1.0 - 2.0 * p) * (gap - mean_gap) - rest);
                let size = p * ((gap + mean_gap) + rest);
                let second = Want::new(second, size, roundings).or(2.0 * moves);
                (gradient_before(&w[i], first), hessian_before(&w[i], first, second))
            };
            let (grad, hess) = (0..w.len()).map(derive).unzip();
            let is_infinite = s.max.is_infinite();
            Terms {
                loss: loss.times(1.0 / unit),
                grad,
                second: hess,
                is_infinite,
                penalty: 0.0,
                low: lowest(&w),
            }
        })
        .collect();
    let losses: Vec<Want> = terms.iter().map(|t| t.loss).collect();
    let (each, _, factors) = weighing.reduce(&losses, &live, &[]);
    let grad = spread(&rows, |row| terms[row].derived(&terms[row].grad, factors[row].over(unit)));
    let hess = spread(&rows, |row| terms[row].derived(&terms[row].second, factors[row].over(unit)));
    let by = bars(loss_kind(input.kind()));
    compare("entropy_with_logits", &input, &wanted, (&each, None, &grad, &hess), by);
    Ok(())
}

fn tokens(u: &mut Unstructured<'_>, rows: Rows, mut input: Array) -> Result<()> {
    let x = input.numbers();
    let target = indices(u, &rows, &x, None)?;
    let t = target.numbers();
    let (warp, mask) = warping(u, &rows)?;
    let outer = rows.outer();
    let float = loss_kind(input.kind());
    let mut of_rows = |kind| Array::new(u, kind, &outer, Lies::Written);
    let (mut log_prob, mut entropy, mut lse) = (of_rows(float)?, of_rows(float)?, of_rows(float)?);
    let mut top = of_rows(float)?;
    let (mut rank, mut ties) = (of_rows(Kind::I64)?, of_rows(Kind::I64)?);
    let has_top = chance(u, 1, 2)?;
    let [g, h] = [one_of(u, &[1.0, 0.0, -2.0])?, one_of(u, &[0.0, 1.0, 0.3])?];
    let mut wanted = Wanted::new(u, &input, None, false)?;
    let before = input.bytes().to_vec();
    let got = call(&mut input, &mut wanted, |view, outputs| {
        let tokens = Tokens {
            input: view,
            target: target.view(),
            axis: rows.axis,
            warp: view_of(&warp, &mask),
            grad_output: [Gradient::Same(g), Gradient::Same(h)],
        };
        let answers = Answers {
            log_prob: log_prob.view_mut(),
            entropy: entropy.view_mut(),
            logsumexp: lse.view_mut(),
            rank: rank.view_mut(),
            top: has_top.then(|| [top.view_mut(), ties.view_mut()]),
            grad: outputs.grad,
        };
        token_log_prob(&tokens, answers, &never)
    });
    if is_wrong(&t, rows.classes(), None, None) {
        assert!(matches!(got, Err(Error::Index(_))), "{got:?}");
        wanted.assert_untouched();
        assert!(input.bytes() == before, "a refused call wrote");
        return Ok(());
    }
    if rows.classes() == 0 {
        return Ok(());
    }
    got.unwrap_or_else(|error| panic!("refused: {error}"));
    let roundings = 64.0 + rows.classes() as f64;
    let (mut logs, mut entropies, mut sums) = (Vec::new(), Vec::new(), Vec::new());
    let (mut grads, mut tops) = (Vec::new(), Vec::new());
    let (ranks, tied) = (rank.numbers(), ties.numbers());
    for row in 0..rows.count() {
        let row_of = warped(&rows, &warp, &x, input.kind(), row);
        if row_of.is_beyond(1.0) {
            let any = Want::anything();
            for wants in [&mut logs, &mut tops, &mut entropies, &mut sums] {
                wants.push(any);
            }
            grads.push(vec![any; rows.classes()]);
            continue;
        }
        let Row { of: w, soft: s, slip, .. } = row_of;
        let y = t[row] as usize;
        let mean_gap: f64 = s.p.iter().zip(&s.gap).map(|(p, gap)| times(*p, *gap)).sum();
        let gaps: f64 = s.p.iter().zip(&s.gap).map(|(p, gap)| times(times(*p, *gap), *gap)).sum();
        logs.push(Want::new(-s.neglog[y], s.neglog[y], roundings).or(2.0 * slip));
        let least = s.neglog.iter().copied().fold(f64::INFINITY, f64::min);
        let least = if s.undefined { f64::NAN } else { least };
        tops.push(Want::new(-least, least, roundings).or(2.0 * slip));
        let value = if s.undefined { f64::NAN } else { s.log + mean_gap };
        let low = 800.0 * TINY * roundings;
        entropies.push(Want::new(value, value, roundings).or(slip * 4.0 * (mean_gap + gaps) + low));
        let size = if s.max.is_finite() { s.max.abs() + s.log } else { 0.0 };
        sums.push(Want::new(s.log_sum_exp, size, roundings).or(2.0 * slip));
        if !w.iter().any(|w| w.z.is_nan()) {
            let above = w.iter().filter(|c| c.z > w[y].z).count() as f64;
            // Logits that a warp made equal, or nearly so, may come out in either order.
            let close = |c: &&Warped| slip > 0.0 && (c.z - w[y].z).abs() <= 2.0 * slip;
            let unsure = w.iter().filter(close).count() as f64;
            let got = ranks[row];
            assert!((got - above).abs() <= unsure, "rank {got}, not {above}");
            if has_top && !s.undefined {
                let at_max = w.iter().filter(|c| c.z == s.max).count() as f64;
                let near = |c: &&Warped| slip > 0.0 && s.max - c.z <= 2.0 * slip;
                let unsure = w.iter().filter(near).count() as f64;
                let got = tied[row];
                assert!((got - at_max).abs() <= unsure, "{got} classes at the top, not {at_max}");
            }
        }
        grads.push(
            (0..w.len())
                .map(|i| {
                    let (p, rest) = (s.p[i], s.rest[i]);
                    let gap = if p == 0.0 { s.gap[i].min(800.0) } else { s.gap[i] };
                    let of_log = if i == y { times(g, rest) } else { times(g, -p) };
                    let of_entropy = times(h, times(p, gap - mean_gap));
                    let size = of_log.abs() + times(h.abs(), times(p, gap + mean_gap));
                    let moves = (slip * p + roundings * TINY)
                        * 4.0
                        * (800.0 + gap + mean_gap + gaps)
                        * (g.abs() + h.abs())
                        + p * h.abs() * ulp(0.0, float);
                    gradient_before(
                        &w[i],
                        Want::new(of_log + of_entropy, size, roundings).or(moves),
                    )
                })
                .collect::<Vec<_>>(),
        );
    }
    let bar = bars(float).loss + if warp.is_exact() { 0.0 } else { 1.0 };
    near("token log_prob", float, &log_prob.numbers(), &logs, bar);
    if has_top {
        near("token top log_prob", float, &top.numbers(), &tops, bar);
    }
    near("token entropy", float, &entropy.numbers(), &entropies, bar);
    near("token logsumexp", float, &lse.numbers(), &sums, 4.0);
    let grad = spread(&rows, |row| grads[row].clone());
    compare("token_log_prob", &input, &wanted, (&[], None, &grad, &[]), bars(float));
    for array in [&log_prob, &entropy, &lse, &rank, &top, &ties] {
        array.assert_gaps();
    }
    Ok(())
}

fn divergences(u: &mut Unstructured<'_>, rows: Rows, mut input: Array, is_js: bool) -> Result<()> {
    let x = input.numbers();
    let close = chance(u, 1, 2)?;
    let float = one_of(u, &FLOATS)?;
    let drawn = if close {
        let mut random = Random::new(u)?;
        let tilt = one_of(u, &[0.0, 1e-6, 1e-3, 0.3])?;
        x.iter().map(|x| x * (1.0 + random.within(tilt))).collect()
    } else {
        numbers(u, x.len())?
    };
    let other = Array::of(u, float, &rows.shape, &drawn, Lies::Read)?;
    let y = other.numbers();
    let base = one_of(u, &[None, Some(2.0)])?;
    let unit = base.map_or(1.0, f64::ln);
    let (warp, mask) = warping(u, &rows)?;
    let weighing = Weighing::new(u, loss_kind(input.kind()), &rows.outer(), false)?;
    let outer = rows.outer();
    let mut wanted = Wanted::new(u, &input, Some(&outer), false)?;
    let mut second = if chance(u, 1, 2)? {
        Some(Array::new(u, float, &rows.shape, Lies::Written)?)
    } else {
        None
    };
    let got = call(&mut input, &mut wanted, |view, outputs| {
        let inputs = Elements {
            names: ["p_logits", "q_logits"],
            target: Some(other.view()),
            axis: Some(rows.axis),
            reduce: weighing.view(),
            ..Elements::of(view)
        };
        let outputs = Outputs { target_grad: second.as_mut().map(Array::view_mut), ..outputs };
        let warp = view_of(&warp, &mask);
        if is_js {
            losses::js_divergence_with_logits::js_divergence_with_logits(
                &inputs, base, &warp, outputs, &never,
            )
        } else {
            losses::kl_divergence_with_logits::kl_divergence_with_logits(
                &inputs, base, &warp, outputs, &never,
            )
        }
    });
    if rows.classes() == 0 {
        return Ok(());
    }
    got.unwrap_or_else(|error| panic!("refused: {error}"));
    let live = vec![true; rows.count()];
    let wider = if float == Kind::F64 { float } else { input.kind() };
    let terms: Vec<Terms> = (0..rows.count())
        .map(|row| {
            let p = warped(&rows, &warp, &x, wider, row);
            let q = warped(&rows, &warp, &y, wider, row);
            let lone = (p.soft.max == f64::INFINITY) != (q.soft.max == f64::INFINITY);
            // Against a lone infinity it is a matter of exponentials that are 0 or nearly so.
            if p.is_beyond(2.0) || q.is_beyond(2.0) || lone {
                return Terms::anything(rows.classes());
            }
            let is_infinite = p.soft.max.is_infinite() || q.soft.max.is_infinite();
            let apart = p.spread.max(q.spread) * most(loss_kind(wider));
            let (a, b, slip) = (p.of, q.of, p.slip + q.slip);
            let z = |w: &[Warped]| w.iter().map(|w| w.z).collect::<Vec<_>>();
            let mut found = divergence_of_logits(&z(&a), &z(&b), is_js);
            found.loss = found.loss.or(if slip > 0.0 {
                4.0 * slip
                    * (slip + found.loss.value.abs().sqrt().min(2.0) + found.loss.value.abs())
            } else {
                0.0
            });
            let turn = |wants: Vec<Want>, by: &[Warped]| -> Vec<Want> {
                let moves = slip * (2.0 + found.loss.value.abs());
                // Exponentials of float64 are 0 below the normal range, and have a logarithm to them.
                let low = 4.0 * f64::MIN_POSITIVE * (1e3 + apart);
                wants
                    .into_iter()
                    .zip(by)
                    .map(|(w, by)| gradient_before(by, w.or(moves + low)))
                    .collect()
            };
            let (grad, second) = (turn(found.first, &a), turn(found.second, &b));
            Terms {
                loss: found.loss.times(1.0 / unit),
                grad,
                second,
                is_infinite,
                penalty: 0.0,
                low: lowest(&a).max(lowest(&b)),
            }
        })
        .collect();
    let losses: Vec<Want> = terms.iter().map(|t| t.loss).collect();
    let (each, _, factors) = weighing.reduce(&losses, &live, &[]);
    let name = if is_js { "js_divergence_with_logits" } else { "kl_divergence_with_logits" };
    let grad = spread(&rows, |row| terms[row].derived(&terms[row].grad, factors[row].over(unit)));
    // The loss has the wider of both types only in the kernel.
    let by = bars(loss_kind(input.kind()));
    compare(name, &input, &wanted, (&each, None, &grad, &[]), by);
    if let Some(second) = &second {
        let want =
            spread(&rows, |row| terms[row].derived(&terms[row].second, factors[row].over(unit)));
        near(
            &format!("{name} second gradient"),
            float,
            &second.numbers(),
            &want,
            bars(float).derivative,
        );
        second.assert_gaps();
    }
    Ok(())
}
