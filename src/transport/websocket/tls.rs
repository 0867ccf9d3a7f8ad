//! Certificates and keys for TLS, and what they are checked against.

use std::borrow::Cow;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

use super::trust::{Admission, ServerTrust};

/// Certificates or keys that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The text holds no certificate in PEM.
    #[error("it holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    /// The text holds no private key in PEM.
    #[error("it holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)")]
    NoKey,
    /// A certificate or key that TLS cannot use.
    #[error("TLS cannot use it: {0}")]
    Unusable(String),
    /// No identity could be made.
    #[error("no key or certificate could be made: {0}")]
    NotMade(String),
}

#[doc(hidden)]
impl From<Error> for TlsError {
    fn from(error: Error) -> TlsError {
        TlsError::Unusable(error.to_string())
    }
}

/// A certificate with its chain, and the private key to it.
#[derive(Clone)]
pub struct TlsIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
}

impl TlsIdentity {
    /// Reads the chain, leaf first, and the private key (PKCS #8, SEC 1 or PKCS #1), both in PEM; both may stand in one text.
    ///
    /// # Errors
    /// One of them is not there, or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<TlsIdentity, TlsError> {
        let chain = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey)?;
        let identity = TlsIdentity { chain, key: Arc::new(key) };
        // Whether they belong together shows when they are used.
        identity.server(&Admission::Everybody)?;
        Ok(identity)
    }

    /// Makes a key and a certificate for these host names and IP addresses that it signs itself, as PEM: keep it in a file
    /// that only the owner reads, and give the certificate to clients, who pin it.
    ///
    /// # Errors
    /// A name cannot stand in a certificate.
    pub fn generate_pem(names: impl IntoIterator<Item = String>) -> Result<String, TlsError> {
        let names: Vec<String> = names.into_iter().collect();
        let made = rcgen::generate_simple_self_signed(names)
            .map_err(|error| TlsError::NotMade(error.to_string()))?;
        Ok(format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem()))
    }

    /// The leaf certificate in PEM, as clients pin it.
    pub fn certificate_pem(&self) -> String {
        let leaf = pem::Pem::new("CERTIFICATE", self.chain.first().map_or(&[][..], |leaf| leaf));
        pem::encode_config(&leaf, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
    }

    pub(crate) fn server(&self, admission: &Admission) -> Result<Arc<ServerConfig>, TlsError> {
        let builder =
            ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let builder = match admission {
            Admission::Certificates(roots) => {
                let roots = root_store(std::iter::once(roots.as_slice()))?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| TlsError::Unusable(error.to_string()))?,
                )
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(self.chain.clone(), self.key.clone_key())?;
        // A client that shows its certificate shows it each time.
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsIdentity").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

/// As [`client_config`], for HTTP.
pub(super) fn client(
    trust: &ServerTrust,
    identity: Option<&TlsIdentity>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = client_config(trust, identity)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What an active side checks a server with, and shows of itself.
///
/// # Errors
/// A certificate or key cannot be used.
pub(crate) fn client_config(
    trust: &ServerTrust,
    identity: Option<&TlsIdentity>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match trust {
        ServerTrust::Pinned(pem) => {
            let pinned = certificates(pem)?.swap_remove(0);
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Pinned { pinned, provider: provider() }))
        }
        ServerTrust::System { extra_roots } => {
            let mut roots = root_store(extra_roots.iter().map(Vec::as_slice))?;
            // A machine without any is no error as long as one was given.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                let why =
                    "this machine has no root certificates (package ca-certificates), and none was given";
                return Err(TlsError::Unusable(why.into()));
            }
            builder.with_root_certificates(roots)
        }
    };
    Ok(match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?,
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// At least one certificate.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    read.ok().filter(|read| !read.is_empty()).ok_or(TlsError::NoCertificate)
}

fn root_store<'p>(pems: impl Iterator<Item = &'p [u8]>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for pem in pems {
        for certificate in certificates(pem)? {
            roots.add(certificate)?;
        }
    }
    Ok(roots)
}

/// Takes one certificate and no other; names and dates in it do not matter.
#[derive(Debug)]
struct Pinned {
    pinned: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if end_entity.as_ref() == self.pinned.as_ref() {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Why a certificate was not taken, and what to do; `None` for any other error.
pub(super) fn certificate_advice(error: &std::io::Error) -> Option<Cow<'static, str>> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    let advice = match error {
        Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired; renew it there, and check this machine's clock"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; check this machine's clock"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another name; use the name in it, or pin the certificate"
            }
            CertificateError::UnknownIssuer => {
                "its certificate is signed by nobody this machine trusts; give the root certificate, or pin this one"
            }
            CertificateError::ApplicationVerificationFailure => {
                "its certificate is not the pinned one; if it was renewed there, pin the new one"
            }
            // The name of the reason is all that is told of it here.
            CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
                "its certificate is one of an issuer, as `openssl req -x509` makes it: pin it, or make it with basicConstraints=CA:FALSE"
            }
            other => return Some(format!("its certificate is not valid: {other}").into()),
        },
        Error::AlertReceived(_) => {
            "it has refused this side (alert of TLS); perhaps it wants a certificate of this side"
        }
        _ => return None,
    };
    Some(advice.into())
}
