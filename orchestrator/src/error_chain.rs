//! An error's causes as texts.

use std::error::Error;

/// The messages of the causes of an error, outermost first, without the error's own.
#[must_use]
pub fn causes(error: &(dyn Error + 'static)) -> Vec<String> {
    std::iter::successors(error.source(), |cause| cause.source()).map(ToString::to_string).collect()
}
