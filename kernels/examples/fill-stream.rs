//! Writes the memory that a fill would hold to standard output, block after block, until the reader
//! goes: for statistical tests of the fill.
//!
//! ```sh
//! cargo run --release -p pow-kernels --example fill-stream -- 1 | dieharder -a -g 200
//! ```
//!
//! The argument is the number of leaf iterations; 1, the default, is the weakest fill there is.

use std::io::{self, Write};

/// The key of the specification's block vectors. It has no meaning.
const KEY: [u32; 4] = [0x0123_4567, 0x89ab_cdef, 0xdead_beef, 0x0bad_f00d];

fn main() -> io::Result<()> {
    let iterations = std::env::args().nth(1).map_or(Ok(1), |text| text.parse());
    let iterations =
        iterations.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut out = io::stdout().lock();
    for index in 0.. {
        let words = pow_kernels::reference::block(KEY, iterations, index);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        match out.write_all(&bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            written => written?,
        }
    }
    Ok(())
}
