use crossent::losses::cross_entropy::{Options, cross_entropy};
use crossent::losses::{Inputs, Outputs};
use crossent::reduce::Reduction;
use crossent::view::{View, ViewMut};
use std::time::Instant;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let seconds: f64 = args[1].parse().unwrap();
    let mode = args[2].as_str();
    for case in &args[3..] {
        let shape: Vec<usize> = case.split('x').map(|n| n.parse().unwrap()).collect();
        let n: usize = shape.iter().product();
        let mut s = 1u64;
        let mut next = || {
            s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (s >> 40) as f32 / (1u64 << 24) as f32
        };
        let x: Vec<f32> = (0..n).map(|_| (next() + next() + next() - 1.5) * 6.0).collect();
        let rows = n / shape[1];
        let y: Vec<i64> = (0..rows).map(|_| (next() * shape[1] as f32) as i64).collect();
        let mut tshape = shape.clone();
        tshape.remove(1);
        let mut out = vec![0f32; n];
        let mut times = vec![];
        let start = Instant::now();
        while start.elapsed().as_secs_f64() < seconds {
            let t = Instant::now();
            let inputs = Inputs {
                input: View::of(&x, &shape),
                target: View::of_indices(&y, &tshape),
                axis: 1,
                weight: None,
                ignore_index: -100,
                reduction: Reduction::Mean,
                grad_output: 1.0,
                grad_outputs: None,
            };
            let mut outputs = Outputs::default();
            if mode == "grad" {
                outputs.grad = Some(ViewMut::of(&mut out, &shape));
            }
            cross_entropy(&inputs, Options::default(), outputs, &|| false).unwrap();
            times.push(t.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let m = times[times.len() / 2];
        println!(
            "{case:16} {mode:5} median {:.4} ms, min {:.4} ms, {:.4} ns/element",
            m * 1e3,
            times[0] * 1e3,
            m * 1e9 / n as f64
        );
    }
}
