//! TLS from files.

mod common;

use std::path::Path;
use std::process::Command;

use common::{Running, demo, options};
use palmtop_serve::listen;

#[path = "../../tests/common/skip.rs"]
mod skip;

/// A certificate for localhost that signs itself, made by openssl.
fn certificate(folder: &Path) -> bool {
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(folder)
        .output();
    made.is_ok_and(|output| output.status.success())
}

#[test]
fn answers_are_encrypted_if_there_is_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    if !certificate(folder.path()) {
        return skip::missing("TLS", "no openssl is here");
    }
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let running = Running::start_with(options(), Some(listen::tls(&cert, &key).unwrap()));
    let pem = std::fs::read(&cert).unwrap();
    let root = ureq::tls::Certificate::from_pem(&pem).unwrap();
    let tls =
        ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::new_with_certs(&[root])).build();
    let agent = ureq::Agent::config_builder().tls_config(tls).build().new_agent();
    let url = format!("https://localhost:{}/v1/looks?prompt=ocr", running.address.port());
    let got = agent.post(url).send(&demo("scene.png")[..]).unwrap();
    assert_eq!(got.status(), 200);
    // Without TLS, and with nobody's trust, there is nothing.
    assert!(ureq::get(running.url("/health")).call().is_err());
    assert!(ureq::get(format!("https://localhost:{}/health", running.address.port())).call().is_err());
}

#[test]
fn files_that_do_not_fit_say_so() {
    let folder = tempfile::tempdir().unwrap();
    if !certificate(folder.path()) {
        return skip::missing("TLS", "no openssl is here");
    }
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let error = |cert: &Path, key: &Path| listen::tls(cert, key).err().unwrap().to_string();
    assert!(error(&folder.path().join("none"), &key).contains("none"));
    assert!(error(&key, &key).contains("has no certificate"));
    assert!(error(&cert, &cert).contains("private key"));
    let other = tempfile::tempdir().unwrap();
    assert!(certificate(other.path()));
    let error = error(&cert, &other.path().join("key.pem"));
    assert!(error.contains("cannot be used"), "{error}");
}
