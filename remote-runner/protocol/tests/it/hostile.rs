//! Hostile bytes do no harm: no panic, and no more memory than a frame may need.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use pow_kernels::{Chunk, Opening};
use proptest::prelude::*;
use runner_protocol::prove::{Image, MAX_IMAGE_BYTES, MAX_OPENINGS, Opened};
use runner_protocol::{
    Backend, FrameDecoder, FromRunner, MAX_FRAME_BYTES, MagicScanner, ProveEvent, ProveReply,
    Reply, RequestId, Round, ToRunner, decode, encode_frame,
};

/// The system's allocator, counting what each thread holds.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // A thread that is ending has no counters any more, and nobody asks for them.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call goes unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(isize::try_from(layout.size()).unwrap_or(isize::MAX));
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-isize::try_from(layout.size()).unwrap_or(isize::MAX));
        // SAFETY: the caller's promise about `pointer` and `layout` is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most memory that `work` held at once, in bytes.
fn peak_of(work: impl FnOnce()) -> isize {
    let before = HELD.get();
    PEAK.set(before);
    work();
    PEAK.get() - before
}

/// `{key: value}` with a text key of less than 24 bytes.
fn entry(key: &str, value: &[u8]) -> Vec<u8> {
    let mut map = vec![0xa1, 0x60 | u8::try_from(key.len()).unwrap()];
    map.extend_from_slice(key.as_bytes());
    map.extend_from_slice(value);
    map
}

/// A list that announces 2^32 - 1 elements, then holds empty maps up to the frame's limit: one
/// byte each here, hundreds in memory.
fn endless_list() -> Vec<u8> {
    let mut list = vec![0x9a, 0xff, 0xff, 0xff, 0xff];
    list.resize(MAX_FRAME_BYTES - 64, 0xa0);
    list
}

fn facts_with(key: &str, value: &[u8]) -> Vec<u8> {
    let facts = entry("facts", &entry(key, value));
    let mut reply = vec![0xa2, 0x62, b'i', b'd', 0x01, 0x65];
    reply.extend_from_slice(b"reply");
    reply.extend_from_slice(&facts);
    entry("reply", &reply)
}

#[test]
fn a_frame_of_empty_elements_does_not_become_gigabytes() {
    let list = endless_list();
    let gpus = entry("devices", &list);
    for body in [
        facts_with("disks", &list),
        facts_with("problems", &list),
        facts_with("gpus", &gpus),
        facts_with("pci_gpus", &list),
        facts_with("container_runtimes", &list),
        facts_with("disagreements", &list),
    ] {
        assert!(body.len() <= MAX_FRAME_BYTES);
        let peak = peak_of(|| assert!(decode::<FromRunner>(&body).is_err()));
        assert!(peak < 2 * 1024 * 1024, "{peak} bytes held for {:?}", &body[..40]);
    }
}

#[test]
fn more_openings_than_a_reply_may_have_are_refused() {
    let reply = |count| {
        let opening = Opening { chunk: Chunk(Box::new([1; 1024])), path: Vec::new().into() };
        let event = ProveEvent::Openings { of: Opened::Records, openings: vec![opening; count] };
        let reply = Reply::Prove(ProveReply { backend: Backend::Cuda, event });
        encode_frame(&FromRunner::Reply { id: RequestId(1), reply }).unwrap().split_off(4)
    };
    assert!(decode::<FromRunner>(&reply(MAX_OPENINGS)).is_ok());
    assert!(decode::<FromRunner>(&reply(MAX_OPENINGS + 1)).is_err());
}

#[test]
fn an_image_may_be_as_large_as_its_limit_and_a_larger_one_is_not_copied() {
    let load = |bytes| {
        let round = Round::Load { image: Image(vec![7; bytes]) };
        encode_frame(&ToRunner::Continue { id: RequestId(1), round }).unwrap().split_off(4)
    };
    let body = load(MAX_IMAGE_BYTES);
    assert!(body.len() < MAX_IMAGE_BYTES + 100, "one byte each on the wire");
    assert!(decode::<ToRunner>(&body).is_ok());
    let body = load(MAX_IMAGE_BYTES + 1);
    let peak = peak_of(|| assert!(decode::<ToRunner>(&body).is_err()));
    assert!(peak < 64 * 1024, "{peak} bytes held");
}

#[test]
fn an_ignored_field_of_deep_nesting_does_not_overflow_the_stack() {
    let mut nested = vec![0x81; MAX_FRAME_BYTES - 64];
    nested.push(0);
    let body = facts_with("later", &nested);
    let peak = peak_of(|| assert!(decode::<FromRunner>(&body).is_ok()));
    assert!(peak < isize::try_from(16 * MAX_FRAME_BYTES).unwrap(), "{peak} bytes held");
}

#[test]
fn headers_alone_reserve_next_to_nothing() {
    let length = u32::try_from(MAX_FRAME_BYTES).unwrap();
    let peak = peak_of(|| {
        let mut input: &[u8] = &length.to_le_bytes();
        assert!(FrameDecoder::new().push(&mut input).unwrap().is_none());
    });
    assert!(peak <= 64 * 1024, "{peak} bytes held");
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_harm_as_a_stream(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut decoder = FrameDecoder::new();
        let mut input = bytes.as_slice();
        while let Ok(Some(body)) = decoder.push(&mut input) {
            let _ = decode::<ToRunner>(&body);
            let _ = decode::<FromRunner>(&body);
        }
        let _ = decoder.finish();
    }

    #[test]
    fn arbitrary_bytes_are_no_harm_as_a_body(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode::<ToRunner>(&bytes);
        let _ = decode::<FromRunner>(&bytes);
    }

    /// However a stream is cut into reads, the same frames come out of it; and a stream that ends
    /// anywhere but between two frames is told.
    #[test]
    fn frames_cut_anywhere_are_the_same_frames(
        messages in prop::collection::vec(crate::strategies::from_runner(), 1..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        end in any::<prop::sample::Index>(),
    ) {
        let frames: Vec<Vec<u8>> =
            messages.iter().map(|message| encode_frame(message).unwrap()).collect();
        let stream = frames.concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let mut decoder = FrameDecoder::new();
        let mut found = Vec::new();
        for piece in cuts.windows(2) {
            let mut input = &stream[piece[0]..piece[1]];
            while let Some(body) = decoder.push(&mut input).unwrap() {
                found.push(decode::<FromRunner>(&body).unwrap());
            }
            prop_assert!(input.is_empty());
        }
        decoder.finish().unwrap();
        prop_assert_eq!(found, messages);

        let end = end.index(stream.len());
        let mut decoder = FrameDecoder::new();
        let mut input = &stream[..end];
        while decoder.push(&mut input).unwrap().is_some() {}
        let between = frames
            .iter()
            .scan(0, |sum, frame| { *sum += frame.len(); Some(*sum) })
            .any(|boundary| boundary == end);
        prop_assert_eq!(decoder.finish().is_ok(), between || end == 0);
    }

    #[test]
    fn a_message_with_flipped_bits_is_no_harm(
        message in crate::strategies::from_runner(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 1..6),
    ) {
        let mut body = runner_protocol::encode_frame(&message).unwrap().split_off(4);
        for (index, bit) in flips {
            let at = index.index(body.len());
            body[at] ^= 1 << bit;
        }
        let _ = decode::<FromRunner>(&body);
    }

    #[test]
    fn noise_without_magic_is_bounded(bytes in prop::collection::vec(any::<u8>(), 0..2000), times in 1..80_usize) {
        let mut scanner = MagicScanner::new();
        for _ in 0..times {
            let _ = scanner.push(&mut bytes.as_slice());
        }
        prop_assert!(scanner.noise().len() <= 64 * 1024 + runner_protocol::MAGIC.len());
    }
}
