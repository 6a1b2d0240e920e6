//! Other people's clients. Those that are programs are asked where they are there.

use std::io::Write;
use std::process::{Command, Stdio};

use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{Message, SmtpTransport, Transport};

use crate::edge::Edge;
use crate::start;

fn is_there(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

/// Runs a program to its end with this input: what it writes.
fn run(program: &str, args: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn parameters(edge: &Edge) -> TlsParameters {
    let pem = std::fs::read(edge.path("cert.pem")).unwrap();
    TlsParameters::builder("mx.example.com".to_owned())
        .add_root_certificate(Certificate::from_pem(&pem).unwrap())
        .build_rustls()
        .unwrap()
}

#[test]
fn lettre_delivers_by_starttls_and_by_implicit_tls_and_verifies_us() {
    let edge = start("", "");
    let message = Message::builder()
        .from("a@client.test".parse().unwrap())
        .to("b@x.test".parse().unwrap())
        .subject("sealed")
        .body("by lettre\r\n".to_owned())
        .unwrap();
    let implicit = edge.addresses("implicit")[0];
    for (server, tls) in [
        (edge.address(), Tls::Required(parameters(&edge))),
        (implicit, Tls::Wrapper(parameters(&edge))),
    ] {
        let transport = SmtpTransport::builder_dangerous("127.0.0.1")
            .port(server.port())
            .tls(tls)
            .build();
        transport.send(&message).unwrap();
    }
    assert_eq!(edge.mail("mail").len(), 2);
}

#[test]
fn openssl_speaks_both_versions_and_may_not_renegotiate() {
    let edge = start("", "");
    if !is_there("openssl") {
        return;
    }
    let server = edge.address().to_string();
    for version in ["-tls1_2", "-tls1_3"] {
        let args = [
            "s_client",
            "-starttls",
            "smtp",
            "-connect",
            &server,
            version,
            "-quiet",
            "-no_ign_eof",
            "-crlf",
        ];
        // It sends what it has read before it looks at what we say, so the pauses are its own.
        let (_, said) = run("openssl", &args, "QUIT\n");
        assert!(said.contains("250 SMTPUTF8"), "{said}");
    }
    edge.wait_for("session..tls=1.2");
    edge.wait_for("session..tls=1.3");
    let old = [
        "s_client",
        "-starttls",
        "smtp",
        "-connect",
        &server,
        "-tls1_1",
        "-cipher",
        "ALL:@SECLEVEL=0",
    ];
    let (_, said) = run("openssl", &old, "");
    assert!(said.contains("Cipher is (NONE)"), "{said}");
    // `R` at the start of a line asks for new keys the old way.
    let args = ["s_client", "-starttls", "smtp", "-connect", &server, "-tls1_2", "-crlf"];
    let (_, said) = run("openssl", &args, "R\nR\n");
    assert!(
        said.contains("no renegotiation") || said.contains("RENEGOTIATING"),
        "{said}"
    );
    edge.wait_for_metric("postern_connections", 0.0);
}

const PYTHON: &str = r#"
import smtplib, socket, ssl, sys
starttls, implicit, pem = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
context = ssl.create_default_context(cafile=pem)
context.check_hostname = False
text = "Subject: sealed\r\n\r\nby python\r\n"
with smtplib.SMTP("127.0.0.1", starttls, "client.test", timeout=20) as client:
    client.starttls(context=context)
    client.sendmail("a@client.test", ["b@x.test"], text)
with smtplib.SMTP_SSL("127.0.0.1", implicit, "client.test", timeout=20, context=context) as client:
    client.sendmail("a@client.test", ["b@x.test"], text)
# By hand: the handshake over memory, its octets sent one by one.
plain = socket.create_connection(("127.0.0.1", starttls), 20)
plain.recv(1000)
plain.sendall(b"STARTTLS\r\n")
assert plain.recv(1000).startswith(b"220 2.0.0"), "no TLS"
come, go = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(come, go, server_hostname="mx.example.com")
while True:
    try:
        tls.do_handshake()
        break
    except ssl.SSLWantReadError:
        for octet in go.read():
            plain.sendall(bytes([octet]))
        come.write(plain.recv(1000))
tls.write(b"QUIT\r\n")
plain.sendall(go.read())
said = b""
while b"221" not in said:
    come.write(plain.recv(1000))
    try:
        said += tls.read(1000)
    except ssl.SSLWantReadError:
        pass
print("done", tls.version())
"#;

#[test]
fn python_delivers_by_both_ways_and_by_hand() {
    let edge = start("", "");
    if !is_there("python3") {
        return;
    }
    let ports = [edge.address(), edge.addresses("implicit")[0]].map(|server| server.port().to_string());
    let pem = edge.path("cert.pem");
    let args = ["-c", PYTHON, &ports[0], &ports[1], pem.to_str().unwrap()];
    let (well, said) = run("python3", &args, "");
    assert!(well && said.contains("done TLSv1.3"), "{said}");
    assert_eq!(edge.mail("mail").len(), 2);
}

#[test]
fn curl_delivers_where_tls_is_required() {
    let edge = start("", "");
    if !is_there("curl") {
        return;
    }
    let url = format!("smtp://{}/client.test", edge.address());
    let args = [
        "-sS",
        "--max-time",
        "20",
        "--crlf",
        "--ssl-reqd",
        "--insecure",
        &url,
        "--mail-from",
        "a@client.test",
        "--mail-rcpt",
        "b@x.test",
        "--upload-file",
        "-",
    ];
    let (well, said) = run("curl", &args, "Subject: sealed\n\nby curl\n");
    assert!(well, "{said}");
    edge.wait_for("session..tls=1.3..messages=1");
}
