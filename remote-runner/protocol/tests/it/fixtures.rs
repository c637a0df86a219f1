//! The messages of version 1, as bytes, stay parseable and keep their meaning.
//!
//! A fixture is one frame. Once a version is released, its fixtures are never written again: when a
//! field is added, the sample gets it and [`normalised`] says what an old frame reads as. To write
//! the fixtures of a new version, run the tests with `WRITE_FIXTURES=1` and commit the result.

use std::fs;
use std::path::PathBuf;

use runner_protocol::{FrameDecoder, PROTOCOL_VERSION, decode, encode_frame};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::samples;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(PROTOCOL_VERSION.to_string())
}

/// What the frame of `message` of the present code must read as: itself, while nothing was added.
fn normalised<T>(message: T) -> T {
    message
}

fn check<T>(direction: &str, samples: Vec<(&str, T)>) -> usize
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let count = samples.len();
    for (name, message) in samples {
        let path = folder().join(format!("{direction}_{name}.frame"));
        if std::env::var_os("WRITE_FIXTURES").is_some() {
            fs::create_dir_all(folder()).unwrap();
            fs::write(&path, encode_frame(&message).unwrap()).unwrap();
        }
        let frame = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut rest = frame.as_slice();
        let body = FrameDecoder::new().push(&mut rest).unwrap().unwrap();
        assert!(rest.is_empty(), "{name}: more than one frame");
        assert_eq!(decode::<T>(&body).unwrap(), normalised(message), "{name}");
    }
    count
}

#[test]
fn messages_of_version_1_stay_parseable() {
    let known =
        check("to_runner", samples::to_runner()) + check("from_runner", samples::from_runner());
    let files = fs::read_dir(folder()).unwrap().count();
    assert_eq!(files, known, "a fixture without a sample");
}
