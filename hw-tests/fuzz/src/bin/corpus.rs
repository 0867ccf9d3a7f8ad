//! Keeps the corpora: unpacks what is committed and adds the seeds, packs what a run has found.
//!
//! `corpus list`; `corpus unpack TARGET FOLDER`; `corpus pack TARGET FOLDER BYTES_MAX`.

use std::collections::BTreeSet;
use std::path::Path;
use std::{env, fs, process};

use gattway_fuzz::{TARGETS, pack, target};
// Compiled with the flags of the targets, so it needs what those link to.
use libfuzzer_sys as _;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["list"] => TARGETS.iter().for_each(|target| println!("{} {}", target.name, target.input_bytes_max)),
        ["unpack", name, folder] => unpack(name, Path::new(folder)),
        ["pack", name, folder, bytes_max] => {
            repack(name, Path::new(folder), bytes_max.parse().expect("a number of bytes"));
        }
        _ => {
            eprintln!("usage: corpus list | unpack TARGET FOLDER | pack TARGET FOLDER BYTES_MAX");
            process::exit(2);
        }
    }
}

fn unpack(name: &str, folder: &Path) {
    let target = target(name);
    fs::create_dir_all(folder).expect("a folder for the inputs");
    let inputs: BTreeSet<Vec<u8>> = (target.seeds)().into_iter().chain(pack::read(name)).collect();
    for input in &inputs {
        let input = &input[..input.len().min(target.input_bytes_max)];
        fs::write(folder.join(format!("{:016x}", hash(input))), input).expect("the folder can be written");
    }
    println!("{}", inputs.len());
}

/// Packs the inputs of a folder that are no seeds, short ones first, until `bytes_max` are full.
fn repack(name: &str, folder: &Path, bytes_max: usize) {
    let seeds: BTreeSet<Vec<u8>> = (target(name).seeds)().into_iter().collect();
    let mut inputs: Vec<Vec<u8>> = fs::read_dir(folder)
        .expect("the folder of the inputs")
        .map(|entry| fs::read(entry.expect("an entry").path()).expect("an input"))
        .filter(|input| !seeds.contains(input))
        .collect();
    inputs.sort_by_key(|input| (input.len(), input.clone()));
    inputs.dedup();
    let mut bytes = 0;
    inputs.retain(|input| {
        bytes += input.len() + 4;
        bytes <= bytes_max
    });
    let packed = pack::write(name, &inputs).expect("the pack can be written");
    println!("{} inputs, {packed} bytes", inputs.len());
}

/// FNV-1a, for names.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
