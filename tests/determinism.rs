//! The same plan is the same run: in every variant that one process can try. The command adds a child process.

use streamproof::determinism;

#[test]
fn scenarios_are_deterministic() {
    for entry in scenarios::list().iter().filter(|e| e.generate.is_some()) {
        for seed in 0..2 {
            let plan = scenarios::generate(entry.name, seed).expect("the catalogue names it");
            if let Err(divergence) = determinism::check(&plan) {
                panic!("{} seed {seed}: {divergence}", entry.name);
            }
        }
    }
}
