//! Standard input that is not of the protocol, and a standard output that nobody reads.

use std::process::Stdio;

use runner_protocol::{
    ExitCode, FactsQuery, MAX_FRAME_BYTES, RequestId, ToRunner, Unit, encode_frame,
};

use crate::harness::{self, Runner, command};

fn ends_with(bytes: &[u8]) -> (ExitCode, String) {
    let mut runner = Runner::start(&mut command(&[]));
    runner.write(bytes);
    runner.end_with_stdin_open()
}

#[test]
fn garbage_is_a_protocol_error() {
    let (code, log) = ends_with(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(code, ExitCode::ProtocolError);
    assert!(log.contains("standard input is not of this protocol"), "{log}");
}

#[test]
fn an_oversized_length_is_a_protocol_error_before_any_body() {
    let length = u32::try_from(MAX_FRAME_BYTES + 1).unwrap().to_le_bytes();
    let (code, log) = ends_with(&length);
    assert_eq!(code, ExitCode::ProtocolError);
    assert!(log.contains("larger than the limit"), "{log}");
}

#[test]
fn a_frame_that_is_no_map_is_a_protocol_error() {
    assert_eq!(ends_with(&[1, 0, 0, 0, 0xf6]).0, ExitCode::ProtocolError);
}

#[test]
fn an_unknown_message_is_a_protocol_error() {
    assert_eq!(ends_with(&[3, 0, 0, 0, 0xa1, 0x60, 0xa0]).0, ExitCode::ProtocolError);
}

#[test]
fn a_second_request_of_a_running_one_s_name_is_a_protocol_error() {
    let mut runner = Runner::start(&mut harness::with_nvml("honest", &[]));
    runner.request(1, Unit::Watch { interval_ms: 60_000 });
    runner.request(1, Unit::Facts(FactsQuery::default()));
    assert_eq!(runner.end_with_stdin_open().0, ExitCode::ProtocolError);
}

#[test]
fn a_stream_cut_inside_a_frame_is_an_end() {
    let frame = encode_frame(&ToRunner::Cancel { id: RequestId(1) }).unwrap();
    let mut runner = Runner::start(&mut command(&[]));
    runner.write(&frame[..frame.len() - 1]);
    assert_eq!(runner.end().0, ExitCode::StdinClosed);
}

#[test]
fn a_closed_standard_output_ends_the_session() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = command(&[]).stdout(writer).spawn().unwrap();
    let _open = child.stdin.take();
    assert_eq!(child.wait().unwrap().code(), Some(15));
}

#[test]
fn a_standard_output_that_nobody_reads_does_not_outlive_the_lease() {
    let (reader, writer) = std::io::pipe().unwrap();
    // One page: the hello and a few samples fill it, and the writer blocks.
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    let mut child = harness::with_nvml("honest", &["--lease-ms", "1500"])
        .stdout(Stdio::from(writer))
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let watch = ToRunner::Request { id: RequestId(1), unit: Unit::Watch { interval_ms: 10 } };
    std::io::Write::write_all(&mut stdin, &encode_frame(&watch).unwrap()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(11));
    drop(reader);
}
