//! Criterion benches and comparisons with peers live in `benches/`; what was measured, with machine,
//! commit and command, in `results/`.
