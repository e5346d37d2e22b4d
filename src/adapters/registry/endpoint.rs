//! Where a registry is that an image's name means, and the addresses of what is asked there. Pure.

use reqwest::Url;

use super::RegistryError;
use crate::model::{Digest, ImageReference};

/// The registry that is meant where a name says none.
const HUB: &str = "docker.io";
/// The host that serves that registry's API.
const HUB_API: &str = "registry-1.docker.io";

/// A repository of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Scheme, host and port.
    base: Url,
    /// The registry as people call it.
    pub(super) host: String,
    /// The repository's name there.
    pub(super) repository: String,
    /// Whether it is on this machine: only there it is asked without TLS, as Docker does.
    pub(super) is_loopback: bool,
}

impl Endpoint {
    /// The repository that an image's name means, by the rules of Docker: the part before the first `/` is a host where it has a
    /// dot or a port or is `localhost`; without one it is Docker Hub, whose own images are below `library`.
    ///
    /// # Errors
    /// The host or its port is none.
    pub(super) fn of(image: &ImageReference) -> Result<Self, RegistryError> {
        let (host, repository) = match image.as_str().split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest.to_owned()),
            Some(_) => (HUB, image.to_string()),
            None => (HUB, format!("library/{image}")),
        };
        let (host, repository) = match host {
            HUB | "index.docker.io" if !repository.contains('/') => (HUB, format!("library/{repository}")),
            HUB | "index.docker.io" => (HUB, repository),
            other => (other, repository),
        };
        let name = host.split_once(':').map_or(host, |(name, _)| name);
        let is_loopback = is_loopback(name);
        let scheme = if is_loopback { "http" } else { "https" };
        let at = if host == HUB { HUB_API } else { host };
        let parsed = Url::parse(&format!("{scheme}://{at}")).ok();
        // What an address may be written as (`0x7f.1`) is for nobody to guess.
        let base = parsed.filter(|base| host == HUB || base.host_str() == Some(name));
        let Some(base) = base else {
            return Err(RegistryError::Absent(format!("`{host}` is no address of a registry")));
        };
        Ok(Self { base, host: host.to_owned(), repository, is_loopback })
    }

    /// A registry on this machine that is asked as one elsewhere is.
    #[cfg(test)]
    pub(super) fn with_tls(port: u16) -> Self {
        let base = Url::parse(&format!("https://localhost:{port}")).unwrap();
        let (host, repository) = (format!("localhost:{port}"), "miner/server".to_owned());
        Self { base, host, repository, is_loopback: false }
    }

    /// The address of a manifest.
    pub(super) fn manifest(&self, digest: &Digest) -> Url {
        self.address("manifests", digest)
    }

    /// The address of a blob.
    pub(super) fn blob(&self, digest: &Digest) -> Url {
        self.address("blobs", digest)
    }

    /// Whether a host of this name is the one that serves it.
    pub(super) fn is_at(&self, name: &str) -> bool {
        self.base.host_str() == Some(name)
    }

    fn address(&self, kind: &str, digest: &Digest) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{}/{kind}/{digest}", self.repository));
        url
    }

    /// Whether an address that the registry names may be asked: with TLS, or on this machine where the registry itself is.
    pub(super) fn may_ask(&self, url: &Url) -> bool {
        let is_plain = url.username().is_empty() && url.password().is_none();
        is_plain
            && match url.scheme() {
                "https" => self.is_loopback || !url.host_str().is_some_and(is_loopback),
                "http" => self.is_loopback && url.host_str().is_some_and(is_loopback),
                _ => false,
            }
    }
}

/// Whether a host is this machine by its very name.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> Digest {
        format!("sha256:{}", "0a".repeat(32)).parse().unwrap()
    }

    #[test]
    fn a_name_means_a_repository_of_a_registry() {
        let check = |image: &str, expected: &str| {
            let found = Endpoint::of(&image.parse().unwrap());
            let found = found.map_or_else(
                |error| error.to_string(),
                |endpoint| endpoint.manifest(&digest()).to_string().replace(digest().as_str(), "D"),
            );
            assert_eq!(found, expected, "{image}");
        };
        check("ubuntu", "https://registry-1.docker.io/v2/library/ubuntu/manifests/D");
        check("docker.io/ubuntu", "https://registry-1.docker.io/v2/library/ubuntu/manifests/D");
        check("index.docker.io/miner/a", "https://registry-1.docker.io/v2/miner/a/manifests/D");
        check("miner/server", "https://registry-1.docker.io/v2/miner/server/manifests/D");
        check("ghcr.io/miner/a/b", "https://ghcr.io/v2/miner/a/b/manifests/D");
        check("r.example:8443/a", "https://r.example:8443/v2/a/manifests/D");
        check("r.example:443/a", "https://r.example/v2/a/manifests/D");
        check("localhost/a", "http://localhost/v2/a/manifests/D");
        check("localhost:5000/a", "http://localhost:5000/v2/a/manifests/D");
        check("127.8.0.1:5000/a", "http://127.8.0.1:5000/v2/a/manifests/D");
        check("r.localhost/a", "https://r.localhost/v2/a/manifests/D");
        check("10.0.0.1:5000/a", "https://10.0.0.1:5000/v2/a/manifests/D");
        // No other way to write an address of this machine.
        check("127.1/a", "`127.1` is no address of a registry");
        check("0x7f.1/a", "`0x7f.1` is no address of a registry");
        check("r.example:99999/a", "`r.example:99999` is no address of a registry");
    }

    #[test]
    fn a_registry_leads_nobody_to_this_machine() {
        let check = |image: &str, url: &str, expected: bool| {
            let endpoint = Endpoint::of(&image.parse().unwrap()).unwrap();
            assert_eq!(endpoint.may_ask(&Url::parse(url).unwrap()), expected, "{image} {url}");
        };
        check("r.example/a", "https://cdn.example/x", true);
        check("r.example/a", "http://cdn.example/x", false);
        check("r.example/a", "http://127.0.0.1/x", false);
        check("r.example/a", "https://127.0.0.1/x", false);
        check("r.example/a", "https://user@cdn.example/x", false);
        check("r.example/a", "ftp://cdn.example/x", false);
        check("127.0.0.1:5000/a", "http://127.0.0.1:6000/x", true);
        check("127.0.0.1:5000/a", "https://auth.example/x", true);
        check("127.0.0.1:5000/a", "http://auth.example/x", false);
    }
}
