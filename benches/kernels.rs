//! The kernels without Python: time, and bytes that have to be moved.
//!
//! The input counts once, and so does an output of its size; targets and losses do not. Every
//! answer is checked before it is timed.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use crossent::float::Real;
use crossent::losses::cross_entropy::{Options, cross_entropy};
use crossent::losses::nll_loss::nll_loss;
use crossent::losses::{Inputs, Outputs, softmax};
use crossent::reduce::{Reduce, Reduction};
use crossent::view::{View, ViewMut};
use crossent::warp::Warp;
use std::time::Duration;

const SHAPES: [&[usize]; 6] = [
    &[512, 50257],
    &[1024, 32000],
    &[8192, 1000],
    &[65536, 10],
    &[1_048_576, 3],
    &[4, 19, 512, 512],
];

/// Numbers from 0 to 1, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / f64::from(1 << 24)
    }
}

/// Logits between -9 and 9 and target classes, class axis 1.
struct Problem<F> {
    shape: Vec<usize>,
    rows: Vec<usize>,
    x: Vec<F>,
    y: Vec<i64>,
    /// Probabilities of classes, which come before `y` where there are any.
    soft: Vec<F>,
}

impl<F: Real> Problem<F> {
    fn new(shape: &[usize]) -> Self {
        let mut random = Random(1);
        let mut rows = shape.to_vec();
        let classes = rows.remove(1);
        let elements = shape.iter().product();
        let mut logit = || F::of((random.next() + random.next() + random.next() - 1.5) * 6.0);
        let x = (0..elements).map(|_| logit()).collect();
        let y = (0..rows.iter().product()).map(|_| (random.next() * classes as f64) as i64);
        let y = y.collect();
        Self { shape: shape.to_vec(), rows, x, y, soft: Vec::new() }
    }

    /// With probabilities as targets; two axes only.
    fn with_soft_targets(mut self) -> Self {
        let mut random = Random(2);
        for _ in &self.y {
            let mass: Vec<f64> = (0..self.shape[1]).map(|_| random.next()).collect();
            let total: f64 = mass.iter().sum();
            self.soft.extend(mass.iter().map(|m| F::of(m / total)));
        }
        self
    }

    fn inputs(&self) -> Inputs<'_> {
        let target = if self.soft.is_empty() {
            View::of_indices(&self.y, &self.rows)
        } else {
            View::of(&self.soft, &self.shape)
        };
        Inputs {
            input: View::of(&self.x, &self.shape),
            target,
            axis: 1,
            weight: None,
            ignore_index: Some(-100),
            reduce: Reduce { reduction: Reduction::Mean, ..Reduce::default() },
        }
    }

    fn outputs<'a>(&self, grad: Option<&'a mut [F]>) -> Outputs<'a> {
        Outputs { grad: grad.map(|grad| ViewMut::of(grad, &self.shape)), ..Outputs::default() }
    }

    fn cross_entropy(&self, grad: Option<&mut [F]>) -> f64 {
        let (inputs, outputs) = (self.inputs(), self.outputs(grad));
        cross_entropy(&inputs, &Options::default(), outputs, &|| false).expect("valid inputs")
    }

    fn nll_loss(&self, grad: Option<&mut [F]>) -> f64 {
        nll_loss(&self.inputs(), self.outputs(grad), &|| false).expect("valid inputs")
    }

    fn bytes(&self) -> u64 {
        size_of_val(self.x.as_slice()) as u64
    }

    /// Where the elements of a row are.
    fn places(&self, row: usize) -> impl Iterator<Item = usize> + use<F> {
        let classes = self.shape[1];
        let pixels: usize = self.shape[2..].iter().product();
        let (image, pixel) = (row / pixels, row % pixels);
        (0..classes).map(move |class| (image * classes + class) * pixels + pixel)
    }

    /// The logarithm of the sum of a row's exponentials: small enough for the plain formula.
    fn logsumexp(&self, row: usize) -> f64 {
        self.places(row).map(|at| self.x[at].wide().exp()).sum::<f64>().ln()
    }

    /// The target's share of a class in a row.
    fn share(&self, row: usize, class: usize, at: usize) -> f64 {
        match self.soft.get(at) {
            Some(share) => share.wide(),
            None => f64::from(u8::from(self.y[row] as usize == class)),
        }
    }

    /// The mean cross-entropy. Checks every 97th row of a gradient on the way.
    fn reference(&self, grad: &[F]) -> f64 {
        let count = self.y.len() as f64;
        let mut sum = 0.0;
        for row in 0..self.y.len() {
            let lse = self.logsumexp(row);
            for (class, at) in self.places(row).enumerate() {
                let (x, share) = (self.x[at].wide(), self.share(row, class, at));
                sum += share * (lse - x);
                if row % 97 == 0 {
                    close(grad[at].wide() * count, (x - lse).exp() - share, 1e-6);
                }
            }
        }
        sum / count
    }
}

/// Checks an answer, to the given part of the truth or of 1, whichever is larger.
#[track_caller]
fn close(answer: f64, truth: f64, tolerance: f64) {
    let error = (answer - truth).abs();
    assert!(error <= tolerance * truth.abs().max(1.0), "{answer} instead of {truth}");
}

fn time(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, bytes: u64, mut run: impl FnMut()) {
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function(name, |bencher| bencher.iter(&mut run));
}

fn time_cross_entropy<F: Real>(criterion: &mut Criterion, title: &str, problem: &Problem<F>) {
    let mut grad = vec![F::default(); problem.x.len()];
    let (loss, again) = (problem.cross_entropy(None), problem.cross_entropy(Some(&mut grad)));
    let truth = problem.reference(&grad);
    close(loss / truth, 1.0, 1e-5);
    close(again / truth, 1.0, 1e-5);

    // Soft targets are as large as the input, and are read as it is.
    let read = problem.bytes() + size_of_val(problem.soft.as_slice()) as u64;
    let mut group = criterion.benchmark_group(format!("{title} {:?}", problem.shape));
    time(&mut group, "loss", read, || {
        problem.cross_entropy(None);
    });
    time(&mut group, "loss and gradient", read + problem.bytes(), || {
        problem.cross_entropy(Some(&mut grad));
    });
    group.finish();
}

fn time_softmax(criterion: &mut Criterion) {
    let problem = Problem::<f32>::new(&[2048, 8192]);
    let (shape, rows) = (&problem.shape, &problem.rows);
    let mut out = vec![0.0_f32; problem.x.len()];
    let mut sums = vec![0.0_f32; problem.y.len()];
    let x = || View::of(&problem.x, shape);
    let softmax = |out: &mut [f32]| {
        softmax::softmax(x(), 1, &Warp::default(), ViewMut::of(out, shape), &|| false)
            .expect("valid inputs");
    };
    let log_softmax = |out: &mut [f32]| {
        softmax::log_softmax(x(), 1, &Warp::default(), ViewMut::of(out, shape), &|| false)
            .expect("valid inputs");
    };
    let logsumexp = |sums: &mut [f32]| {
        softmax::logsumexp(x(), 1, &Warp::default(), ViewMut::of(sums, rows), &|| false)
            .expect("valid inputs");
    };

    // Elements of some rows.
    let check = |out: &[f32], truth: fn(f64) -> f64| {
        for row in [0, 1, 1000, 2047] {
            let lse = problem.logsumexp(row);
            for at in problem.places(row) {
                let truth = truth(f64::from(problem.x[at]) - lse);
                close(f64::from(out[at]) / truth, 1.0, 1e-5);
            }
        }
    };
    softmax(&mut out);
    check(&out, f64::exp);
    log_softmax(&mut out);
    check(&out, |log| log);
    logsumexp(&mut sums);
    for (row, &sum) in sums.iter().enumerate() {
        close(f64::from(sum) / problem.logsumexp(row), 1.0, 1e-5);
    }

    let bytes = problem.bytes();
    let mut group = criterion.benchmark_group(format!("softmax {shape:?}"));
    time(&mut group, "softmax", 2 * bytes, || softmax(&mut out));
    time(&mut group, "log_softmax", 2 * bytes, || log_softmax(&mut out));
    time(&mut group, "logsumexp", bytes, || logsumexp(&mut sums));
    group.finish();
}

/// Its input is read at the targets only: what has to be moved is the gradient.
fn time_nll_loss(criterion: &mut Criterion) {
    let problem = Problem::<f32>::new(&[8192, 1000]);
    let mut grad = vec![0.0; problem.x.len()];
    let loss = problem.nll_loss(Some(&mut grad));
    let count = problem.y.len() as f64;
    let mut sum = 0.0;
    for row in 0..problem.y.len() {
        for (class, at) in problem.places(row).enumerate() {
            let share = problem.share(row, class, at);
            sum -= share * f64::from(problem.x[at]);
            close(f64::from(grad[at]) * count, -share, 1e-6);
        }
    }
    close(loss, sum / count, 1e-5);

    let mut group = criterion.benchmark_group(format!("nll_loss {:?}", problem.shape));
    time(&mut group, "loss and gradient", problem.bytes(), || {
        problem.nll_loss(Some(&mut grad));
    });
    group.finish();
}

fn kernels(criterion: &mut Criterion) {
    for shape in SHAPES {
        time_cross_entropy(criterion, "cross_entropy", &Problem::<f32>::new(shape));
    }
    time_cross_entropy(criterion, "cross_entropy f64", &Problem::<f64>::new(&[1024, 1000]));
    let soft = Problem::<f32>::new(&[4096, 1000]).with_soft_targets();
    time_cross_entropy(criterion, "cross_entropy soft", &soft);
    time_softmax(criterion);
    time_nll_loss(criterion);
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = kernels
}
criterion_main!(benches);
