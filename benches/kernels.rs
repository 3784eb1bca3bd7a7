//! The kernels without Python: time, and bytes that have to be moved.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossent::losses::cross_entropy::{Options, cross_entropy};
use crossent::losses::{Inputs, Outputs, softmax};
use crossent::reduce::Reduction;
use crossent::view::{View, ViewMut};
use std::time::Duration;

const SHAPES: [&[usize]; 6] = [
    &[512, 50257],
    &[1024, 32000],
    &[8192, 1000],
    &[65536, 10],
    &[1_048_576, 3],
    &[4, 19, 512, 512],
];

/// Logits between -9 and 9 and target classes, class axis 1.
struct Problem {
    shape: Vec<usize>,
    rows: Vec<usize>,
    x: Vec<f32>,
    y: Vec<i64>,
}

impl Problem {
    fn new(shape: &[usize]) -> Self {
        let mut state = 1_u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        let mut rows = shape.to_vec();
        let classes = rows.remove(1);
        let x =
            (0..shape.iter().product()).map(|_| (next() + next() + next() - 1.5) * 6.0).collect();
        let y = (0..rows.iter().product()).map(|_| (next() * classes as f32) as i64).collect();
        Self { shape: shape.to_vec(), rows, x, y }
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            input: View::of(&self.x, &self.shape),
            target: View::of_indices(&self.y, &self.rows),
            axis: 1,
            weight: None,
            ignore_index: -100,
            reduction: Reduction::Mean,
            grad_output: 1.0,
            grad_outputs: None,
        }
    }

    fn loss(&self, grad: Option<&mut [f32]>) -> f64 {
        let grad = grad.map(|grad| ViewMut::of(grad, &self.shape));
        let outputs = Outputs { grad, ..Outputs::default() };
        cross_entropy(&self.inputs(), Options::default(), outputs, &|| false).expect("valid inputs")
    }

    /// The mean loss by the textbook's formula, in `f64`.
    fn reference(&self) -> f64 {
        let classes = self.shape[1];
        let pixels: usize = self.shape[2..].iter().product();
        let loss = |row: usize| {
            let (image, pixel) = (row / pixels, row % pixels);
            let logit =
                |class: usize| f64::from(self.x[(image * classes + class) * pixels + pixel]);
            let sum: f64 = (0..classes).map(|class| logit(class).exp()).sum();
            sum.ln() - logit(self.y[row] as usize)
        };
        (0..self.y.len()).map(loss).sum::<f64>() / self.y.len() as f64
    }
}

fn kernels(criterion: &mut Criterion) {
    for shape in SHAPES {
        let problem = Problem::new(shape);
        let mut grad = vec![0.0; problem.x.len()];
        let truth = problem.reference();
        assert!((problem.loss(None) / truth - 1.0).abs() < 1e-5, "{shape:?}");
        assert!((problem.loss(Some(&mut grad)) / truth - 1.0).abs() < 1e-5, "{shape:?}");
        let total: f64 = grad.iter().map(|g| f64::from(*g)).sum();
        assert!(total.abs() < 1e-4, "{shape:?}: a gradient sums to 0");

        let bytes = 4 * problem.x.len() as u64;
        let mut group = criterion.benchmark_group(format!("cross_entropy {shape:?}"));
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function("loss", |b| b.iter(|| problem.loss(None)));
        group.throughput(Throughput::Bytes(2 * bytes));
        group.bench_function("loss and gradient", |b| b.iter(|| problem.loss(Some(&mut grad))));
        group.finish();
    }

    let problem = Problem::new(&[2048, 8192]);
    let mut out = vec![0.0; problem.x.len()];
    let mut run = |log: bool| {
        let (x, out) =
            (View::of(&problem.x, &problem.shape), ViewMut::of(&mut out, &problem.shape));
        let function = if log { softmax::log_softmax } else { softmax::softmax };
        function(x, 1, out, &|| false).expect("valid inputs");
    };
    let mut group = criterion.benchmark_group("softmax [2048, 8192]");
    group.throughput(Throughput::Bytes(8 * problem.x.len() as u64));
    group.bench_function("softmax", |b| b.iter(|| run(false)));
    group.bench_function("log_softmax", |b| b.iter(|| run(true)));
    group.finish();
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
