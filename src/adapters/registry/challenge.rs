//! How a registry asks who one is, and where an anonymous reader gets its token. Pure.

use reqwest::Url;

use super::RegistryError;
use super::endpoint::Endpoint;

/// Longest header that is read.
const MAX_CHALLENGE_BYTES: usize = 4096;

/// What a registry wants: a token of this service (RFC 6750, and the token specification of the distribution project).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Challenge {
    realm: String,
    service: Option<String>,
    scope: Option<String>,
}

impl Challenge {
    /// The challenge for a bearer token in a `WWW-Authenticate` header; none where it has none.
    pub(super) fn read(header: &str) -> Option<Self> {
        if header.len() > MAX_CHALLENGE_BYTES {
            return None;
        }
        let mut found: Option<Self> = None;
        let mut rest = header;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            if word.is_empty() {
                break;
            }
            let Some(value) = after.strip_prefix('=') else {
                // A word without a value is the name of a scheme; that of the first bearer token is taken.
                if found.is_some() {
                    break;
                }
                found = word.eq_ignore_ascii_case("bearer").then(Self::default);
                rest = after;
                continue;
            };
            let (value, after) = value_of(value)?;
            rest = after;
            let Some(challenge) = &mut found else { continue };
            match word.to_ascii_lowercase().as_str() {
                "realm" => challenge.realm = value,
                "service" => challenge.service = Some(value),
                "scope" => challenge.scope = Some(value),
                _ => {}
            }
        }
        found.filter(|challenge| !challenge.realm.is_empty())
    }

    /// The address at which the token is asked for. What it names is a stranger's word: it may lead to no other place than a
    /// registry may.
    ///
    /// # Errors
    /// It is no address that may be asked.
    pub(super) fn token_address(&self, endpoint: &Endpoint) -> Result<Url, RegistryError> {
        let mut url = Url::parse(&self.realm).ok().filter(|url| endpoint.may_ask(url)).ok_or_else(|| {
            RegistryError::Absent(format!(
                "registry {} wants a token from `{}`, which is no address with TLS",
                endpoint.host,
                crate::report::text::excerpt(&self.realm, 120)
            ))
        })?;
        let scope = self.scope.clone();
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", endpoint.repository));
        let mut query = url.query_pairs_mut();
        query.extend_pairs(self.service.iter().map(|service| ("service", service)));
        query.append_pair("scope", &scope);
        drop(query);
        Ok(url)
    }
}

/// A value, in quotes or without, and what follows it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[place + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_challenge_is_found_among_others() {
        let hub = "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:a/b:pull\"";
        let check = |header: &str, expected: Option<&str>| {
            let endpoint = Endpoint::of(&"r.example/a/b".parse().unwrap()).unwrap();
            let found = Challenge::read(header).map(|found| match found.token_address(&endpoint) {
                Ok(url) => url.to_string(),
                Err(error) => error.to_string(),
            });
            assert_eq!(found.as_deref(), expected, "{header}");
        };
        check(
            hub,
            Some("https://auth.docker.io/token?service=registry.docker.io&scope=repository%3Aa%2Fb%3Apull"),
        );
        check("Basic realm=\"x\"", None);
        check("Basic", None);
        check("", None);
        check("Bearer service=\"x\"", None);
        check("Bearer realm=\"https://a", None);
        check("Bearer realm=\"https://a\\", None);
        let own = Some("https://a.example/t?scope=repository%3Aa%2Fb%3Apull");
        check("bearer Realm=https://a.example/t", own);
        check("Basic realm=\"x\", Bearer realm=\"https://a.example/t\"", own);
        check("Bearer realm=\"https://a.example/t\", Basic realm=\"x\"", own);
        check("Bearer realm=\"https://a.exam\\ple/t\" , error=\"invalid_token\"", own);
        let refused =
            |realm| format!("registry r.example wants a token from `{realm}`, which is no address with TLS");
        for realm in ["http://a.example/t", "http://127.0.0.1:2375/x", "file:///etc/passwd", "nonsense"] {
            check(&format!("Bearer realm=\"{realm}\""), Some(&refused(realm)));
        }
        check(&format!("Bearer realm=\"https://a.example/{}\"", "x".repeat(5000)), None);
    }
}
