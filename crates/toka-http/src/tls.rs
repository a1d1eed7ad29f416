//! TLS to whoever is at the other end of a connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::HttpError;

/// Whose certificate is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Those that this host trusts (its certificates, or `SSL_CERT_FILE`).
    Host,
    /// Everybody's, as in Kubernetes: a probe asks whether an agent answers, not whether it is who it says, and it sends nothing but
    /// what the agent's own file declares.
    Anybody,
}

/// Which versions of HTTP are offered over TLS (RFC 7301). Without TLS it is 1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Versions {
    /// 1.1 alone.
    Http1,
    /// 2, or 1.1 where the server does not speak that.
    Http2Too,
}

/// Talks TLS with `host`.
pub(crate) async fn secure(
    stream: TcpStream,
    host: &str,
    (trust, versions): (Trust, Versions),
) -> Result<TlsStream<TcpStream>, HttpError> {
    let bare = host.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(bare)
        .map_err(|_| HttpError::Unaskable(format!("TLS knows no host called {host:?}")))?;
    let untrusted = |why: String| HttpError::Untrusted { host: host.to_owned(), why };
    let config = config(trust, versions).map_err(untrusted)?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        // Who is not trusted now is not in five seconds either.
        if let Some(rustls::Error::InvalidCertificate(_)) = cause {
            return untrusted(error.to_string());
        }
        HttpError::NoTls { host: host.to_owned(), why: error.to_string() }
    })
}

type Configs = HashMap<(Trust, Versions), Result<Arc<ClientConfig>, String>>;

/// Each is made once: reading the host's certificates takes milliseconds.
fn config(trust: Trust, versions: Versions) -> Result<Arc<ClientConfig>, String> {
    static MADE: OnceLock<Mutex<Configs>> = OnceLock::new();
    let mut made = MADE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    made.entry((trust, versions)).or_insert_with(|| make(trust, versions).map(Arc::new)).clone()
}

fn make(trust: Trust, versions: Versions) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("cannot prepare TLS: {error}"))?;
    let mut config = match trust {
        Trust::Host => {
            let mut roots = RootCertStore::empty();
            let (taken, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if taken == 0 {
                return Err("this host has no certificates that it trusts (SSL_CERT_FILE)".to_owned());
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        Trust::Anybody => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth(),
    };
    if versions == Versions::Http2Too {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    Ok(config)
}

/// Takes every certificate; then what is signed with one proves nothing either.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
