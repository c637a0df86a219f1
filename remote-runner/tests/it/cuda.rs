//! The CUDA backend: the real binary, with a fake driver that runs the kernels' own source.
//!
//! What this shows is the runner's own: rounds, launches, layout, errors, and that nothing is left
//! behind. It shows nothing of a GPU; `kernels/README.md` lists what no GPU has run.

mod challenge;
mod endings;
mod faults;
mod refusals;
mod session;
