//! Names that arrive from outside and are believed only after a check.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not the identity it claims to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// The text is not `sha256:` followed by 64 lower-case hexadecimal digits.
    #[error("`{0}` is not a digest: want `sha256:` and 64 lower-case hexadecimal digits")]
    Digest(String),
    /// The text is not a base58 address of 40 to 60 characters.
    #[error("`{0}` is not a hotkey: want an SS58 address of 40 to 60 base58 characters")]
    Hotkey(String),
    /// The text is not an image name in the grammar of OCI references, without tag or digest.
    #[error(
        "`{0}` is not an image reference: want `[host[:port]/]name[/name...]` in lower case, without tag or digest"
    )]
    Image(String),
    /// The text is not the id of a round.
    #[error("`{0}` is not a round id: want lower-case letters, digits and `-`, 1 to 64 characters")]
    Round(String),
}

/// Shortens text of a stranger for an error message: at most 80 characters, control characters escaped.
pub(super) fn excerpt(text: &str) -> String {
    let mut out: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        out.push('…');
    }
    out
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident, $error:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The checked text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidIdentity;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.to_owned())) } else { Err(InvalidIdentity::$error(excerpt(text))) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidIdentity;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

identity!(
    /// A content digest as OCI writes it: `sha256:` and 64 lower-case hexadecimal digits.
    Digest,
    Digest,
    |text| {
        text.strip_prefix("sha256:").is_some_and(|hex| {
            hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        })
    }
);

identity!(
    /// A miner's hotkey: an SS58 address. The check is of form only; the checksum is the chain's business.
    Hotkey,
    Hotkey,
    |text| {
        (40..=60).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() && !matches!(b, b'0' | b'O' | b'I' | b'l'))
    }
);

identity!(
    /// An image name without tag or digest, in the grammar of OCI references.
    ImageReference,
    Image,
    |text| {
        let path_component = |part: &str| {
            !part.is_empty()
                && part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && part.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
                && !part.contains("..")
        };
        let mut parts = text.split('/').peekable();
        let first = parts.next().unwrap_or_default();
        let (host, port) = first.split_once(':').map_or((first, None), |(h, p)| (h, Some(p)));
        let has_more = parts.peek().is_some();
        text.len() <= 255
            && path_component(host)
            && port.is_none_or(|p| has_more && !p.is_empty() && p.len() <= 5 && p.bytes().all(|b| b.is_ascii_digit()))
            && parts.all(path_component)
    }
);

identity!(
    /// The name of one round: part of its path, so its alphabet is narrow.
    RoundId,
    Round,
    |text| {
        (1..=64).contains(&text.len())
            && !text.starts_with('-')
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    }
);

impl RoundId {
    /// The beginning of a round's id by which a person knows its pipeline: at most 32 characters of its name.
    pub fn readable(pipeline: &str) -> String {
        let name: String = pipeline
            .to_ascii_lowercase()
            .chars()
            .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
            .take(32)
            .collect();
        let name = name.trim_matches('-');
        if name.is_empty() { "round".to_owned() } else { name.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert!(good.parse::<Digest>().is_ok());
        for bad in ["", "sha256:", "sha256:0A", &good.to_uppercase(), &good[1..], &format!("{good}0")] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn images() {
        for good in ["a", "embedded/turbo", "ghcr.io/miner/server", "localhost:5000/a/b-c_d.e"] {
            assert!(good.parse::<ImageReference>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "A",
            "a//b",
            "/a",
            "a/",
            "a:latest",
            "a@sha256:0",
            "../a",
            "a/..",
            "a b",
            "a\n",
            "host:port/a",
        ] {
            assert!(bad.parse::<ImageReference>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hotkeys_and_rounds() {
        assert!("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY".parse::<Hotkey>().is_ok());
        assert!("5Grwva".parse::<Hotkey>().is_err());
        assert!("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKut/..".parse::<Hotkey>().is_err());
        assert!("demo-20261121t2127z-1a2b".parse::<RoundId>().is_ok());
        assert!("../x".parse::<RoundId>().is_err());
    }

    #[test]
    fn long_text_is_cut_in_messages() {
        let error = "x".repeat(10_000).parse::<Digest>().expect_err("junk").to_string();
        assert!(error.len() < 300, "{}", error.len());
    }
}
