//! TLS 1.2 for browsers of yesterday, where the configuration lets them in.

use std::{fs, path::PathBuf, process::Command};

use endpoint_tests::machine::{Machine, Running, Said, Server};

use crate::{machine, start};

const PAGE: &str = "<h1>bytes of the page</h1>\n";

/// A server of a page that takes `lowest` and newer; and its certificate.
fn serve(machine: &Machine, lowest: &str) -> (Server, PathBuf) {
    let folder = machine.state().parent().unwrap().to_owned();
    let root = folder.join("www");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("index.html"), PAGE).unwrap();
    let file = folder.join("site.toml");
    let config = format!(
        "loopback_http = \"off\"\n[tls]\nmin_version = \"{lowest}\"\n\
         [[site]]\nnames = [\"localhost\"]\nroot = \"www\"\n"
    );
    fs::write(&file, config).unwrap();
    let server = machine.serve_with(&["--config", file.to_str().unwrap()]);
    let files = fs::read_dir(machine.state()).unwrap().map(|entry| entry.unwrap().path());
    let certificate = files
        .filter(|file| file.extension().is_some_and(|end| end == "pem"))
        .find(|file| file.to_string_lossy().contains("self-signed-localhost"));
    (server, certificate.expect("a certificate that programs can be told to believe"))
}

fn curl(server: &Server, root: &PathBuf, words: &[&str]) -> Said {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--cacert"]).arg(root);
    curl.arg("--resolve").arg(format!("localhost:{}:127.0.0.1", server.port()));
    curl.args(words).arg(format!("https://localhost:{}/", server.port()));
    Running::start(curl).end()
}

/// A request by hand through `openssl s_client`.
fn s_client(server: &Server, version: &str) -> Said {
    let address = server.address();
    let words = ["s_client", "-connect", &address, "-servername", "localhost", version, "-quiet"];
    let mut client = start("openssl", &[&words[..], &["-alpn", "http/1.1"]].concat());
    client.try_write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    client.until_end();
    client.end()
}

#[test]
fn a_client_of_tls_1_2_gets_the_page_where_the_configuration_lets_it() {
    let machine = machine();
    let (server, root) = serve(&machine, "1.2");
    for version in ["-tls1_2", "-tls1_3"] {
        let said = s_client(&server, version);
        assert!(said.out.starts_with("HTTP/1.1 200 OK\r\n"), "{version}: {said:?}");
        assert!(said.out.ends_with(PAGE), "{version}: {said:?}");
    }
    for http in ["--http2", "--http1.1"] {
        for most in ["1.2", "1.3"] {
            let said = curl(&server, &root, &[http, "--tls-max", most]);
            assert_eq!((said.code(), said.out.as_str()), (0, PAGE), "{http} {most}: {said:?}");
        }
    }
    // Older ones are never let in, whatever the client would do for it.
    let cipher = ["--tlsv1.0", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"];
    assert_ne!(curl(&server, &root, &cipher).code(), 0);
    println!("acceptance: TLS 1.2 over TCP: openssl and curl get the page over h2 and http/1.1");
}

#[test]
fn a_client_of_tls_1_2_is_refused_where_the_configuration_wants_1_3() {
    let machine = machine();
    let (server, root) = serve(&machine, "1.3");
    let said = s_client(&server, "-tls1_2");
    assert_eq!(said.out, "", "{said:?}");
    //= https://www.rfc-editor.org/rfc/rfc8446#appendix-D.2
    //# If the "supported_versions" extension is absent and the server only supports versions greater
    //# than ClientHello.legacy_version, the server MUST abort the handshake with a "protocol_version"
    //# alert.
    assert!(said.err.contains("alert protocol version"), "{said:?}");
    for http in ["--http2", "--http1.1"] {
        let said = curl(&server, &root, &[http, "--tls-max", "1.2"]);
        assert_eq!((said.code(), said.out.as_str()), (35, ""), "{http}: {said:?}");
        let said = curl(&server, &root, &[http, "--tlsv1.3"]);
        assert_eq!((said.code(), said.out.as_str()), (0, PAGE), "{http}: {said:?}");
    }
    assert!(s_client(&server, "-tls1_3").out.ends_with(PAGE));
    println!("acceptance: TLS 1.2 refused with alert 70 where the minimum is 1.3");
}
