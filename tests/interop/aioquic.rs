//! aioquic, a QUIC stack of its own (Python): an X.509 client on the UDP port.

use endpoint_tests::machine::{Running, Said, Server};

use crate::{machine, pypi};

/// Dials with `alpns`; prints what the first stream carries, or how the connection ended.
const CLIENT: &str = r#"
import asyncio, ssl, sys
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted

class Client(QuicConnectionProtocol):
    def quic_event_received(self, event):
        if isinstance(event, HandshakeCompleted):
            print("alpn", event.alpn_protocol, flush=True)
        if isinstance(event, ConnectionTerminated):
            print("terminated", event.error_code, flush=True)
        super().quic_event_received(event)

async def main():
    alpns = [name for name in sys.argv[2:] if name]
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=alpns or None, server_name="localhost",
        verify_mode=ssl.CERT_NONE)
    async with connect("127.0.0.1", int(sys.argv[1]), configuration=configuration,
                       create_protocol=Client) as client:
        reader, writer = await client.create_stream()
        writer.write_eof()
        print("answer", (await reader.read()).decode(), flush=True)

try:
    asyncio.run(asyncio.wait_for(main(), 20))
except ConnectionError:
    sys.exit(1)
"#;

fn dial(server: &Server, alpns: &[&str]) -> Said {
    let port = server.port();
    Running::start(pypi::python(pypi::AIOQUIC, CLIENT, &[&[port.as_str()], alpns].concat())).end()
}

#[test]
fn reads_the_answer_of_a_public_handler() {
    let server = machine();
    let served = server.serve();
    let said = dial(&served, &["discover/1"]);
    assert_eq!(said.code(), 0, "{said:?}");
    assert!(said.out.contains("alpn discover/1\n"), "{said:?}");
    let answer = said.out.lines().find_map(|line| line.strip_prefix("answer ")).expect("an answer");
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
    assert_eq!(answer["fingerprint"], served.ready["fingerprint"]);
    assert_eq!(answer["alpns"], serde_json::json!(["discover/1", "h3", "h2", "http/1.1"]));
}

#[test]
fn ends_with_alert_120_without_a_common_protocol() {
    //= https://www.rfc-editor.org/rfc/rfc9001#section-8.1
    //# endpoints MUST immediately close a connection (see Section 10.2 of [QUIC-TRANSPORT]) with a
    //# no_application_protocol TLS alert (QUIC error code 0x0178; see Section 4.8) if an application
    //# protocol is not negotiated.
    let server = machine();
    let served = server.serve();
    for alpns in [&["nothing/9"][..], &["h2"], &[]] {
        let said = dial(&served, alpns);
        assert_eq!(said.code(), 1, "{alpns:?}: {said:?}");
        assert!(said.out.contains(&format!("terminated {}\n", 0x100 + 120)), "{alpns:?}: {said:?}");
        assert!(!said.out.contains("answer"), "{alpns:?}: {said:?}");
    }
}

#[test]
fn is_told_by_the_close_code_that_a_handler_is_for_authorised_peers() {
    let server = machine();
    let served = server.serve();
    let said = dial(&served, &["echo/1"]);
    let code = endpoint_core::CloseCode::NotAuthorized.number();
    assert!(said.out.contains("alpn echo/1\n"), "{said:?}");
    assert!(said.out.contains(&format!("terminated {code}\n")), "{said:?}");
    assert!(said.out.lines().all(|line| line.strip_prefix("answer ").is_none_or(str::is_empty)));
}
