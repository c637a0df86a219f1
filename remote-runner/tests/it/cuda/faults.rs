//! Each fault of the driver or the device has its code, and is told once.

use pow_kernels::KernelVariant;
use pow_kernels::artifacts::PTX;

use super::session::{FIRST, Host, SECOND, SMALL, artifact, challenge, fill, load, probe};

/// How far a request comes before it fails.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
enum Until {
    Prepare,
    Load,
    Fill,
    Probe,
}

/// The failure of a host with a fault: code and message. The session goes on.
fn failure(host: &Host, until: Until) -> (String, String) {
    let challenge = challenge(FIRST, KernelVariant::Wgmma, SMALL);
    let mut session = host.start();
    session.prove(1, FIRST);
    if until > Until::Prepare {
        session.step(1);
        session.round(1, load(artifact(9, 0).bytes));
    }
    if until > Until::Load {
        session.step(1);
        session.round(1, fill(&challenge));
    }
    if until > Until::Fill {
        session.step(1);
        session.round(1, probe(&challenge));
    }
    let failure = session.failure(1);
    session.runner.facts();
    assert_eq!(session.runner.children(), [], "{failure:?}");
    session.runner.end();
    failure
}

#[test]
fn every_fault_of_the_driver_has_its_code_and_names_the_result() {
    for (fault, until, code, words) in [
        ("init=999", Until::Prepare, "no_driver", "cuInit gave CUDA_ERROR_UNKNOWN"),
        ("init=34", Until::Prepare, "no_driver", "CUDA_ERROR_STUB_LIBRARY"),
        ("init=802", Until::Prepare, "no_driver", "is the fabric manager running?"),
        ("init=100", Until::Prepare, "gpu_not_found", "CUDA_ERROR_NO_DEVICE"),
        ("version=10020", Until::Prepare, "driver_too_old", "CUDA 10.2, and CUDA 11.0 (R450)"),
        ("version=11040", Until::Load, "driver_too_old", "CUDA 11.4, and CUDA 12.0 (R525)"),
        ("load=209", Until::Load, "no_kernels", "CUDA_ERROR_NO_BINARY_FOR_GPU"),
        ("load=218", Until::Load, "no_kernels", "CUDA kernels required"),
        ("load=222", Until::Load, "no_kernels", "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"),
        ("selftest", Until::Load, "selftest_failed", "29 of 30 words"),
        ("wrong@1", Until::Load, "selftest_failed", "computes wrong"),
        ("alloc=2", Until::Load, "out_of_memory", "CUDA_ERROR_OUT_OF_MEMORY"),
        ("launch=214@2", Until::Fill, "ecc_error", "CUDA_ERROR_ECC_UNCORRECTABLE"),
        ("launch=700@2", Until::Fill, "gpu_lost", "CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("launch=719@3", Until::Probe, "gpu_lost", "the probe"),
        ("launch=714@4", Until::Probe, "gpu_lost", "CUDA_ERROR_HARDWARE_STACK_ERROR"),
        ("launch=801@2", Until::Fill, "cuda", "CUDA_ERROR_NOT_SUPPORTED"),
        // One of a driver that is later than this runner.
        ("launch=4321@2", Until::Fill, "cuda", "the fill: cuStreamSynchronize gave error 4321"),
        ("crash@2", Until::Fill, "crashed", "signal: 6"),
    ] {
        let host = Host::new(&[(FIRST, "9.0"), (SECOND, "9.0")]).with("FAKE_CUDA_FAULT", fault);
        let (found, message) = failure(&host, until);
        assert_eq!(found, code, "{fault}: {message}");
        assert!(message.contains(words), "{fault}: {message}");
        assert!(!host.calls().iter().any(|call| call.contains(SECOND)), "{fault}");
    }
}

#[test]
fn a_driver_before_r525_still_loads_the_fallback_ptx() {
    let host = Host::new(&[(FIRST, "7.5")]).with("FAKE_CUDA_FAULT", "version=11040");
    let mut session = host.start();
    session.prepared(1, FIRST);
    session.load(1, PTX.bytes);
    session.release(1);
    session.runner.end();
}

#[test]
fn memory_that_others_hold_is_named() {
    // A desktop, which may stay: it draws and does not compute.
    let desktop = format!("{FIRST}:77:60000000:graphics:/usr/lib/xorg/Xorg");
    let host = Host::new(&[(FIRST, "9.0")]).with("FAKE_GPU_PROCESSES", &desktop);
    let (code, message) = failure(&host, Until::Fill);
    assert_eq!(code, "out_of_memory");
    let free = (64 << 20) - 60_000_000;
    assert!(message.contains(&format!("{free} are free")), "{message}");
    let holder = "process 77 (/usr/lib/xorg/Xorg) holds 60000000 bytes";
    assert!(message.contains(holder), "{message}");
    assert!(!host.calls().iter().any(|call| call.contains("gpow_fill")));
}

#[test]
fn a_gpu_that_computes_for_somebody_gets_no_context() {
    let tenant = format!("{FIRST}:4321:1048576:compute:/usr/bin/python3");
    let host = Host::new(&[(FIRST, "9.0"), (SECOND, "9.0")]).with("FAKE_GPU_PROCESSES", &tenant);
    let (code, message) = failure(&host, Until::Prepare);
    assert_eq!(code, "gpu_busy");
    assert!(message.contains("process 4321 (/usr/bin/python3) holds 1048576 bytes"), "{message}");
    assert_eq!(host.calls(), Vec::<String>::new(), "CUDA was not even started");
    // Its neighbour is free.
    let mut session = host.start();
    session.prepared(1, SECOND);
    session.release(1);
    session.runner.end();
}

#[test]
fn a_divided_gpu_is_refused() {
    let host = Host::new(&[(FIRST, "9.0")]).with("FAKE_GPU_MIG", FIRST);
    assert_eq!(failure(&host, Until::Prepare).0, "mig_enabled");
    assert_eq!(host.calls(), Vec::<String>::new());
}
