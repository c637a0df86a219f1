//! What is refused before the device is asked to do it.

use pow_kernels::{Backend, KernelVariant, Sizes};
use runner_protocol::{ByteArray, Round, Unit};

use super::session::{FIRST, Host, SECOND, SMALL, artifact, challenge, fill, load, open, probe};
use crate::harness::fake_gpu;

#[test]
fn a_device_is_named_by_a_uuid_that_the_host_has() {
    let host = Host::new(&[(FIRST, "9.0")]);
    let mut session = host.start();
    session.runner.request(1, Unit::Prove { backend: Backend::Cuda, gpu: None });
    assert_eq!(session.failure(1).0, "gpu_required");
    for other in [SECOND, "0", "", "all", &format!("{FIRST},{SECOND}")] {
        session.prove(1, other);
        let (code, message) = session.failure(1);
        assert_eq!(code, "gpu_not_found", "{other}: {message}");
    }
    session.prove(1, SECOND);
    assert!(session.failure(1).1.ends_with(FIRST), "the message names what there is");
    assert_eq!(host.calls(), Vec::<String>::new());
    session.runner.end();
}

#[test]
fn an_nvml_without_cuda_beside_it_is_no_driver() {
    let folder = tempfile::tempdir().unwrap();
    let library = "libnvidia-ml.so.1";
    std::fs::copy(fake_gpu().join(library), folder.path().join(library)).unwrap();
    let folder = folder.path().to_str().unwrap().to_owned();
    let host = Host::new(&[(FIRST, "9.0")]).with("LD_LIBRARY_PATH", &folder);
    let mut session = host.start();
    session.prove(1, FIRST);
    let (code, message) = session.failure(1);
    // Where a real driver is installed, it does not know this device.
    assert!(code == "no_driver" || code == "gpu_not_found", "{code}: {message}");
    session.runner.end();
}

#[test]
fn rounds_out_of_order_end_the_request() {
    let challenge = challenge(FIRST, KernelVariant::Wgmma, SMALL);
    let image = artifact(9, 0).bytes;
    let host = Host::new(&[(FIRST, "9.0")]);
    for (before, round) in [
        (&[][..], fill(&challenge)),
        (&[], probe(&challenge)),
        (&[], open(&challenge)),
        (&[load(image)], probe(&challenge)),
        (&[load(image)], load(image)),
        (&[load(image), fill(&challenge)], open(&challenge)),
        (&[load(image), fill(&challenge)], fill(&challenge)),
    ] {
        let mut session = host.start();
        session.prepared(1, FIRST);
        for round in before {
            session.round(1, round.clone());
            session.step(1);
        }
        session.round(1, round.clone());
        let (code, message) = session.failure(1);
        assert_eq!(code, "unexpected");
        assert!(message.contains(round.name()), "{message}");
        session.runner.end();
    }
}

#[test]
fn an_image_that_is_none_or_not_for_the_device_is_no_kernel() {
    let host = Host::new(&[(FIRST, "9.0")]);
    let cubin = artifact(9, 0).bytes;
    for image in [
        &b"garbage"[..],
        &[],
        &[0xff; 4096],
        b".version 7.0 .target sm_75 and nothing that compiles",
        &cubin[..cubin.len() / 2],
        // Ampere's, on Hopper.
        artifact(8, 6).bytes,
    ] {
        let mut session = host.start();
        session.prepared(1, FIRST);
        session.round(1, load(image));
        let (code, message) = session.failure(1);
        assert_eq!(code, "no_kernels", "{} bytes: {message}", image.len());
        assert!(message.starts_with("CUDA kernels required"), "{message}");
        session.runner.end();
    }
}

#[test]
fn a_context_that_is_not_for_this_device_is_refused() {
    let host = Host::new(&[(FIRST, "7.0")]);
    let with = |variant, sizes| fill(&challenge(FIRST, variant, sizes));
    let dp4a = KernelVariant::Dp4a;
    for (round, code, words) in [
        (fill(&challenge(SECOND, dp4a, SMALL)), "context", FIRST),
        (with(KernelVariant::Reference, SMALL), "context", "the CPU reference"),
        (Round::Fill { context: Box::new(ByteArray([0xff; 256])) }, "context", "cannot be used"),
        // More than the device has.
        (with(dp4a, Sizes { blocks: 4096, ..SMALL }), "too_large", "the device has 67108864"),
        (with(dp4a, Sizes { blocks: 1 << 40, ..SMALL }), "too_large", "bytes of device memory"),
        // Volta has no such instructions, and its image no such kernel.
        (with(KernelVariant::Wgmma, SMALL), "no_kernels", "CUDA kernels required"),
    ] {
        let mut session = host.start();
        session.prepared(1, FIRST);
        session.load(1, artifact(7, 0).bytes);
        session.round(1, round);
        let (found, message) = session.failure(1);
        assert_eq!(found, code, "{message}");
        assert!(message.contains(words), "{message}");
        session.runner.end();
    }
    assert!(!host.calls().iter().any(|call| call.contains("gpow_fill")));
}

#[test]
fn more_queries_than_there_may_be_are_refused() {
    let host = Host::new(&[(FIRST, "7.0")]);
    let mut asked = challenge(FIRST, KernelVariant::Dp4a, Sizes { gemms: 1, ..SMALL });
    asked.counts.gemm = 4097;
    let mut session = host.start();
    session.prepared(1, FIRST);
    session.load(1, artifact(7, 0).bytes);
    session.fill(1, &asked);
    session.round(1, probe(&asked));
    session.roots(1, &asked);
    session.round(1, open(&asked));
    assert_eq!(session.failure(1).0, "too_large");
    session.runner.end();
}
