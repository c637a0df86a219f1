//! Every message survives the wire, wherever it is cut.

use proptest::prelude::*;
use runner_protocol::{FrameDecoder, FromRunner, ToRunner, decode, encode_frame};

use crate::strategies;

/// Reads a stream that arrives in chunks of `sizes`, repeated.
fn bodies(stream: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
    let mut decoder = FrameDecoder::new();
    let mut rest = stream;
    let mut found = Vec::new();
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (mut chunk, after) = rest.split_at((*size).min(rest.len()));
        rest = after;
        while let Some(body) = decoder.push(&mut chunk).unwrap() {
            found.push(body);
        }
    }
    decoder.finish().unwrap();
    found
}

proptest! {
    #[test]
    fn what_the_orchestrator_says_arrives(
        messages in prop::collection::vec(strategies::to_runner(), 1..8),
        sizes in prop::collection::vec(1..40_usize, 1..8),
    ) {
        let stream: Vec<u8> =
            messages.iter().flat_map(|message| encode_frame(message).unwrap()).collect();
        let read: Vec<ToRunner> =
            bodies(&stream, &sizes).iter().map(|body| decode(body).unwrap()).collect();
        prop_assert_eq!(read, messages);
    }

    #[test]
    fn what_the_runner_says_arrives(
        messages in prop::collection::vec(strategies::from_runner(), 1..4),
        sizes in prop::collection::vec(1..900_usize, 1..8),
    ) {
        let stream: Vec<u8> =
            messages.iter().flat_map(|message| encode_frame(message).unwrap()).collect();
        let read: Vec<FromRunner> =
            bodies(&stream, &sizes).iter().map(|body| decode(body).unwrap()).collect();
        prop_assert_eq!(read, messages);
    }

    #[test]
    fn a_stream_cut_anywhere_is_truncated_and_no_message(
        message in strategies::from_runner(),
        at in any::<prop::sample::Index>(),
    ) {
        let frame = encode_frame(&message).unwrap();
        let at = at.index(frame.len());
        let mut decoder = FrameDecoder::new();
        let mut chunk = &frame[..at];
        prop_assert!(decoder.push(&mut chunk).unwrap().is_none());
        prop_assert_eq!(decoder.finish().is_ok(), at == 0);
        prop_assert!(decode::<FromRunner>(&frame[4..at.max(4)]).is_err());
    }

    #[test]
    fn json_carries_everything(message in strategies::from_runner()) {
        let text = serde_json::to_string(&message).unwrap();
        prop_assert_eq!(serde_json::from_str::<FromRunner>(&text).unwrap(), message);
    }
}
