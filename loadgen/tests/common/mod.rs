//! The binary as a child: runs that end by themselves, and a sink that runs beside them. Not every test uses all of it.

#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::Value;
use tempfile::TempDir;

/// Flags for so many messages, each on a connection of its own, one after the other; and more flags.
pub fn one_each<'a>(messages: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let each = ["--messages", messages, "--connections", "1", "--per-connection", "1"];
    [&each, more].concat()
}

/// Runs it to its end.
pub fn loadgen(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(arguments)
        .output()
        .unwrap()
}

/// Runs it to its end with `--json`; its figures.
pub fn figures_of(arguments: &[&str]) -> Value {
    run_with_figures(arguments).1
}

/// Runs it to its end with `--json`; its exit status, and its figures.
pub fn run_with_figures(arguments: &[&str]) -> (Option<i32>, Value) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("figures.json");
    let output = loadgen(&[arguments, &["--json", file.to_str().unwrap()]].concat());
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|_| panic!("no figures: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), serde_json::from_str(&text).unwrap())
}

/// A sink that runs until it is told to end, and writes its figures into a folder of its own.
pub struct Sink {
    child: Child,
    output: BufReader<ChildStdout>,
    /// Where to send to; none when it listens on a path only.
    pub target: Option<SocketAddr>,
    folder: TempDir,
    runs: usize,
}

impl Sink {
    /// Starts it; `lmtp+unix` stands for a path in its folder.
    pub fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = format!("lmtp+unix://{}", folder.path().join("socket").display());
        let arguments = arguments
            .iter()
            .map(|a| if *a == "lmtp+unix" { path.as_str() } else { a });
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
        command
            .arg("sink")
            .args(arguments)
            .arg("--json")
            .arg(folder.path().join("sink.json"));
        if !command
            .get_args()
            .any(|argument| argument == "--expect-messages" || argument == "--blind")
        {
            command.arg("--expect").arg(folder.path().join("expect.json"));
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert!(line.starts_with("sink ready on "), "{line}");
        let target = line.trim().rsplit_once("//").unwrap().1.parse().ok();
        std::fs::write(
            folder.path().join("expect.json"),
            r#"{"run":"0","messages":0,"recipients":[],"accepted":[]}"#,
        )
        .unwrap();
        Self {
            child,
            output,
            target,
            folder,
            runs: 0,
        }
    }

    /// A file of this sink.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Sends to it; whether the generator exited with 0, and its figures.
    pub fn load(&mut self, flags: &[&str]) -> (bool, Value) {
        self.runs += 1;
        let json = self.file(&format!("run{}.json", self.runs));
        let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .arg(self.target.unwrap().to_string())
            .args(flags)
            .arg("--json")
            .arg(&json)
            .arg("--expect")
            .arg(self.file("expect.json"))
            .output()
            .unwrap();
        let text = std::fs::read_to_string(&json);
        let text = text.unwrap_or_else(|_| panic!("no figures: {}", String::from_utf8_lossy(&output.stderr)));
        (output.status.success(), serde_json::from_str(&text).unwrap())
    }

    /// Ends it with SIGTERM; its figures. `good` is whether it is to find all well.
    pub fn finish(mut self, good: bool) -> Value {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.wait_for(good)
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self, good: bool) -> Value {
        self.wait_for(good)
    }

    fn wait_for(&mut self, good: bool) -> Value {
        let mut text = String::new();
        while self.output.read_line(&mut text).unwrap() > 0 {}
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(i32::from(!good)), "{text}");
        serde_json::from_str(&std::fs::read_to_string(self.file("sink.json")).unwrap()).unwrap()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // A test that failed leaves it running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// TLS of a client that takes any certificate.
pub fn trusting_anybody() -> Arc<ClientConfig> {
    let config = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    Arc::new(config)
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ED25519,
            SignatureScheme::RSA_PSS_SHA256,
        ]
    }
}
