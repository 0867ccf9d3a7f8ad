//! The fuzz targets without a fuzzer: every seed, every kept input and mutations of them from fixed seeds must pass.
//! What a run has found (`scripts/fuzz`) is kept in `hw-tests/fuzz/corpus` and replayed here from then on.

#[path = "fuzz/src/lib.rs"]
#[allow(dead_code, missing_docs)]
mod fuzz;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Mutations of each target beside the inputs themselves, unless `FUZZ_MUTATIONS` says otherwise.
const MUTATIONS: usize = 5_000;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn run(target: &fuzz::Target, input: &[u8], from: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        eprintln!("{} fails with {from}: {}", target.name, hex(input));
        std::panic::resume_unwind(panic);
    }
}

/// What a fuzzer does in its simplest form: changes, removes, repeats and splices.
fn mutate(random: &mut fastrand::Rng, inputs: &[Vec<u8>], bytes_max: usize) -> Vec<u8> {
    let mut input = inputs[random.usize(..inputs.len())].clone();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..=input.len());
        match random.u8(..5) {
            0 => input.insert(at, random.u8(..)),
            1 if at < input.len() => input[at] ^= 1 << random.u8(..8),
            2 if at < input.len() => input[at] = random.choice([0, 1, 0x7f, 0x80, 0xff]).unwrap_or(0),
            3 => {
                let other = &inputs[random.usize(..inputs.len())];
                let from = random.usize(..=other.len());
                let to = random.usize(from..=other.len());
                input.splice(at.., other[from..to].iter().copied());
            }
            _ => {
                let end = random.usize(at..=input.len());
                input.drain(at..end);
            }
        }
    }
    input.truncate(bytes_max);
    input
}

fn replay(name: &str) {
    let target = fuzz::target(name);
    let (seeds, kept) = ((target.seeds)(), fuzz::pack::read(name));
    assert!(!seeds.is_empty(), "a target without seeds");
    seeds.iter().for_each(|input| run(target, input, "a seed"));
    kept.iter().for_each(|input| run(target, input, "a kept input"));
    let inputs = [&seeds[..], &kept].concat();
    let mutations = std::env::var("FUZZ_MUTATIONS").map_or(MUTATIONS, |text| text.parse().expect("a number"));
    for seed in 0..mutations {
        let input = mutate(&mut fastrand::Rng::with_seed(seed as u64), &inputs, target.input_bytes_max);
        run(target, &input, &format!("mutation {seed}"));
    }
    println!("{name}: {} seeds, {} kept inputs, {mutations} mutations", seeds.len(), kept.len());
}

/// One test for each target; and all targets have one.
macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { replay(stringify!($name)); })*

        #[test]
        fn every_target_is_replayed() {
            let mut names: Vec<&str> = fuzz::TARGETS.iter().map(|target| target.name).collect();
            names.sort_unstable();
            let mut here = vec![$(stringify!($name)),*];
            here.sort_unstable();
            assert_eq!(here, names);
        }
    };
}

targets!(
    link, handshake, framing, blip, deflate, messages, revs, folded, delta, session, records, blocks, secure,
    pairing, trust, text
);
