//! TLS to a broker, by rustls with ring.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::super::SinkError;
use super::options::MqttOptions;

/// Whom to trust, and who we are.
pub type Config = Arc<ClientConfig>;

/// Reads the files of the options.
///
/// # Errors
/// If one cannot be read or holds something else, or there is nobody to trust.
pub fn config(options: &MqttOptions) -> Result<Config, SinkError> {
    let mut roots = RootCertStore::empty();
    match &options.ca_file {
        Some(path) => {
            for certificate in certificates("ca_file", path)? {
                roots.add(certificate).map_err(|e| unread("ca_file", path, &e))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(SinkError("the system has no certificates to trust: give `ca_file`".into()));
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| SinkError(format!("TLS: {e}")))?
        .with_root_certificates(roots);
    let config = match (&options.certificate_file, &options.key_file) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let certificates = certificates("certificate_file", certificate)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|e| unread("key_file", key, &e))?;
            let refused = |e| SinkError(format!("certificate_file and key_file: {e}"));
            builder.with_client_auth_cert(certificates, key).map_err(refused)?
        }
        _ => return Err(SinkError("certificate_file and key_file belong together: give both".into())),
    };
    Ok(Arc::new(config))
}

fn unread(field: &str, path: &Path, why: &dyn std::fmt::Display) -> SinkError {
    SinkError(format!("{field} {}: {why}", path.display()))
}

fn certificates(field: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, SinkError> {
    let read = CertificateDer::pem_file_iter(path).map_err(|e| unread(field, path, &e))?;
    let found: Result<Vec<_>, _> = read.collect();
    match found.map_err(|e| unread(field, path, &e))? {
        found if found.is_empty() => Err(unread(field, path, &"there is no certificate in it")),
        found => Ok(found),
    }
}
