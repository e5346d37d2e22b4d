//! The HTTP client of one repository: anonymous, bounded in time and bytes, and told nothing that it follows blindly.
//!
//! What a status means is decided here: that the registry has no such thing or shows it to nobody is the submission's affair,
//! that it cannot answer now is nobody's.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode, Url, redirect};
use serde::Deserialize;

use super::challenge::Challenge;
use super::endpoint::Endpoint;
use super::{Patience, RegistryError};
use crate::artifact::digest::sha256;
use crate::model::Digest;
use crate::report::text::{error_chain, excerpt};

/// Longest document that is read: manifests and configurations are KiB, and registries take no larger manifest.
pub(super) const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// Longest answer that may hold a token.
const MAX_TOKEN_BYTES: u64 = 64 << 10;
/// How many times a request may be sent elsewhere.
const MAX_REDIRECTS: usize = 5;
/// A name that is there, where any is.
const CONTROL: (&str, u16) = ("docker.io", 443);
/// Longest text of an error that is passed on.
const MAX_WORDS: usize = 300;

/// Asks one repository.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    pub(super) endpoint: Endpoint,
    pub(super) patience: Patience,
    /// What an anonymous reader was given, once it was asked for.
    authorization: Mutex<Option<HeaderValue>>,
}

#[derive(Deserialize)]
struct TokenFile {
    token: Option<String>,
    access_token: Option<String>,
}

impl Client {
    /// A client that connects when it is first asked.
    ///
    /// # Errors
    /// This machine has no certificates to check a registry by.
    pub(super) fn new(endpoint: Endpoint, patience: Patience) -> Result<Self, RegistryError> {
        let mut roots = rustls::RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() && !endpoint.is_loopback {
            let why = "this machine has no root certificates to know a registry by".to_owned();
            return Err(RegistryError::Machine(why));
        }
        Self::trusting(roots, endpoint, patience)
    }

    /// One that trusts who has a certificate by these.
    fn trusting(
        roots: rustls::RootCertStore,
        endpoint: Endpoint,
        patience: Patience,
    ) -> Result<Self, RegistryError> {
        let own = endpoint.clone();
        let follow = redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > MAX_REDIRECTS {
                attempt.error("it is redirected too often")
            } else if own.may_ask(attempt.url()) {
                attempt.follow()
            } else {
                attempt.error("it is redirected to an address without TLS")
            }
        });
        let mut http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(roots)?)
            .user_agent(concat!("cacheon/", env!("CARGO_PKG_VERSION")))
            .redirect(follow)
            .retry(reqwest::retry::never())
            .dns_resolver(Names)
            .connect_timeout(patience.answer)
            .read_timeout(patience.answer)
            .referer(false);
        if endpoint.is_loopback {
            http = http.no_proxy();
        }
        let http = http.build().map_err(|error| RegistryError::Machine(error_chain(&error)))?;
        Ok(Self { http, endpoint, patience, authorization: Mutex::default() })
    }

    /// A document of which the digest is known, and its size where somebody names it. It is asked for again where the registry
    /// cannot answer, and once where the bytes are others.
    ///
    /// # Errors
    /// The registry has none, shows it to nobody, or gives other bytes; or cannot answer now.
    pub(super) async fn document(
        &self,
        url: &Url,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<Vec<u8>, RegistryError> {
        let limit = size.unwrap_or(MAX_DOCUMENT_BYTES);
        if limit > MAX_DOCUMENT_BYTES {
            return Err(RegistryError::Invalid(format!(
                "its configuration has {limit} bytes, at most {MAX_DOCUMENT_BYTES} are read"
            )));
        }
        let pauses = self.patience.pauses.clone();
        let mut pauses = pauses.into_iter();
        let mut is_again = false;
        loop {
            let within = self.patience.document;
            let asked = tokio::time::timeout(within, self.bytes(url, limit)).await;
            let error = match asked.unwrap_or_else(|_| Err(self.late(within))) {
                Ok(bytes) => match sha256(&bytes) {
                    found if found == *digest => return Ok(bytes),
                    found => RegistryError::Mismatch { wanted: digest.clone(), found },
                },
                Err(error) => error,
            };
            match &error {
                // What stands between may have damaged it, and does not do so twice.
                RegistryError::Mismatch { .. } if !is_again => is_again = true,
                RegistryError::Unavailable { after, .. } => match pauses.next() {
                    Some(pause) => tokio::time::sleep(self.patience.pause(pause, *after)).await,
                    None => return Err(error),
                },
                _ => return Err(error),
            }
        }
    }

    fn late(&self, within: Duration) -> RegistryError {
        self.unavailable(format!("it did not answer whole within {} s", within.as_secs_f64()))
    }

    pub(super) fn unavailable(&self, why: String) -> RegistryError {
        RegistryError::Unavailable { host: self.endpoint.host.clone(), why, after: None }
    }

    async fn bytes(&self, url: &Url, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let mut accepted = HeaderMap::new();
        for kind in super::manifest::ACCEPTED {
            accepted.append(ACCEPT, HeaderValue::from_static(kind));
        }
        accepted.append(ACCEPT, HeaderValue::from_static("*/*;q=0.1"));
        let response = self.get(url, &accepted).await?;
        self.read(response, limit).await
    }

    /// The answer to a request that was taken well; a token is got where one is wanted.
    pub(super) async fn get(&self, url: &Url, headers: &HeaderMap) -> Result<Response, RegistryError> {
        let response = self.ask(url, headers).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.taken(response);
        }
        let mut challenges = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenge = challenges.find_map(|value| Challenge::read(value.to_str().ok()?));
        let Some(challenge) = challenge else { return self.taken(response) };
        // One that was given before may have run out.
        let token = self.token(&challenge).await?;
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        let response = self.ask(url, headers).await?;
        self.taken(response)
    }

    async fn ask(&self, url: &Url, headers: &HeaderMap) -> Result<Response, RegistryError> {
        let mut request = self.http.get(url.clone()).headers(headers.clone());
        let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.send().await.map_err(|error| self.failed(error))
    }

    async fn token(&self, challenge: &Challenge) -> Result<HeaderValue, RegistryError> {
        let url = challenge.token_address(&self.endpoint)?;
        let response = self.http.get(url).send().await.map_err(|error| self.failed(error))?;
        // Wherever tokens are given: who gives none to a reader without an account lets none in.
        if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&response.status()) {
            return Err(self.private(response.status()));
        }
        let bytes = self.read(self.taken(response)?, MAX_TOKEN_BYTES).await?;
        let none = || self.unavailable("it gave no token that can be used".to_owned());
        let file: TokenFile = serde_json::from_slice(&bytes).map_err(|_| none())?;
        let token = file.token.or(file.access_token).filter(|token| !token.is_empty()).ok_or_else(none)?;
        let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| none())?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// The body of an answer, where it is no longer than it may be.
    async fn read(&self, mut response: Response, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(error))? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(RegistryError::Invalid(format!(
                    "registry {} answers with more than {limit} bytes",
                    self.endpoint.host
                )));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn private(&self, status: StatusCode) -> RegistryError {
        RegistryError::Private(format!(
            "registry {} answers {status} to a reader without an account: make its repository public",
            self.endpoint.host
        ))
    }

    /// The answer, where its status is that of one who gives what was asked for.
    fn taken(&self, response: Response) -> Result<Response, RegistryError> {
        let (status, host) = (response.status(), &self.endpoint.host);
        match status.as_u16() {
            200 | 206 => Ok(response),
            // Who keeps the parts for a registry, and lets nobody in, is not who says whether the image is public.
            401 | 403 if !response.url().host_str().is_some_and(|name| self.endpoint.is_at(name)) => {
                Err(self.unavailable(format!("the host that it sends to answers {status}")))
            }
            401 | 403 => Err(self.private(status)),
            404 | 410 | 451 => Err(RegistryError::Absent(format!("registry {host} answers {status}"))),
            _ => {
                let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
                let after = after.and_then(|value| value.trim().parse().ok()).map(Duration::from_secs);
                Err(RegistryError::Unavailable {
                    host: host.clone(),
                    why: format!("it answers {status}"),
                    after,
                })
            }
        }
    }

    /// Why no answer came, or not the whole of it.
    pub(super) fn failed(&self, error: reqwest::Error) -> RegistryError {
        let error = error.without_url();
        let words = excerpt(&error_chain(&error), MAX_WORDS);
        if error.is_redirect() {
            return RegistryError::Absent(format!("registry {}: {words}", self.endpoint.host));
        }
        let mut causes =
            std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        match causes.find_map(|cause| cause.downcast_ref::<NoSuchHost>()) {
            Some(none) if self.endpoint.is_at(&none.0) => {
                RegistryError::Absent(format!("there is no registry {}", self.endpoint.host))
            }
            _ => self.unavailable(words),
        }
    }
}

/// A name that nobody has.
#[derive(Debug, thiserror::Error)]
#[error("no host is named `{0}`")]
struct NoSuchHost(String);

/// Names by the system's resolver, which is asked for a name that there is before it is believed that another is not.
struct Names;

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map(Vec::from_iter);
            match found {
                Ok(found) => Ok(Box::new(found.into_iter()) as Addrs),
                Err(error) if says_no_such_host(&error) && tokio::net::lookup_host(CONTROL).await.is_ok() => {
                    Err(NoSuchHost(name).into())
                }
                Err(error) => Err(error.into()),
            }
        })
    }
}

/// Whether the system's resolver was told that there is no such name; what it could not find out is another thing. It has words for
/// that and no number, always the same ones: this program sets no locale.
fn says_no_such_host(error: &io::Error) -> bool {
    let text = error.to_string();
    ["Name or service not known", "No address associated with hostname", "Name does not resolve"]
        .iter()
        .any(|words| text.ends_with(words))
}

/// TLS as these are trusted.
fn tls(roots: rustls::RootCertStore) -> Result<rustls::ClientConfig, RegistryError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| RegistryError::Machine(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::JoinSet;

    use super::*;
    use crate::adapters::registry::scripted::impatient;

    /// A registry with a certificate of this name, which answers `{}` to everything: the certificate and the port.
    async fn with_tls(serving: &mut JoinSet<()>, name: &str) -> (CertificateDer<'static>, u16) {
        let own = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let certificate = own.cert.der().clone();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.clone()], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        serving.spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                // Who does not trust it goes away.
                let Ok(mut connection) = acceptor.accept(connection).await else { continue };
                let _ = connection.read(&mut [0; 4096]).await;
                let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
                let _ = connection.shutdown().await;
            }
        });
        (certificate, port)
    }

    #[tokio::test]
    async fn a_registry_is_known_by_its_certificate() {
        let mut serving = JoinSet::new();
        let (own, port) = with_tls(&mut serving, "localhost").await;
        let (other, other_port) = with_tls(&mut serving, "registry.example").await;
        let ask = async |trusted: &CertificateDer<'static>, port: u16| {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(trusted.clone()).unwrap();
            let client = Client::trusting(roots, Endpoint::with_tls(port), impatient()).unwrap();
            let digest = sha256(b"{}");
            let found = client.document(&client.endpoint.manifest(&digest), &digest, None).await;
            found.map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(ask(&own, port).await, Ok(()));
        for (trusted, port) in [(&other, port), (&other, other_port)] {
            let error = ask(trusted, port).await.unwrap_err();
            assert!(error.contains("invalid peer certificate"), "{error}");
        }
    }

    #[test]
    fn a_name_that_is_not_there_is_told_from_one_that_nobody_could_look_up() {
        let says = |text: &str| {
            says_no_such_host(&io::Error::other(format!("failed to lookup address information: {text}")))
        };
        assert!(says("Name or service not known") && says("No address associated with hostname"));
        assert!(!says("Temporary failure in name resolution") && !says("System error"));
    }
}
