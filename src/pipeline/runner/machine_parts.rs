//! Parts of a machine that servers get: processors and GPUs, by name.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The highest number of a processor that a list may name; Linux is built for at most 8,192.
const MAX_CPU: u32 = 8191;
/// Longest name of a GPU.
const MAX_GPU_NAME: usize = 128;

/// Processors of a machine, as the kernel lists them: `0-3,8` (cpuset(7), "List format").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuList(BTreeSet<u32>);

impl CpuList {
    /// Those that are in both.
    #[must_use]
    pub fn shared(&self, other: &Self) -> Self {
        Self(&self.0 & &other.0)
    }

    /// Those that are not in the other one.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self(&self.0 - &other.0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| {
            let found = text.trim().parse::<u32>().ok().filter(|found| *found <= MAX_CPU);
            found.ok_or_else(|| format!("`{text}` is no processor's number, want 0 to {MAX_CPU}"))
        };
        let mut listed = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("`{part}` ends before it begins"));
            }
            listed.extend(first..=last);
        }
        Ok(Self(listed))
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut comma = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(next) = rest.next_if_eq(&(last + 1)) {
                last = next;
            }
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

impl serde::Serialize for CpuList {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The GPUs that a server gets; at least one.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gpus {
    /// NVIDIA's, by number or UUID, given by the engine's own runtime hook.
    Nvidia(Vec<String>),
    /// Of whatever maker, by the names of the Container Device Interface: `nvidia.com/gpu=0`.
    Cdi(Vec<String>),
}

impl Gpus {
    /// The GPUs of these names.
    ///
    /// # Errors
    /// What is wrong with the names, as text: none, two of one, an impossible one, or some of each kind.
    pub fn new(names: Vec<String>) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._:/=".contains(c);
        if let Some(name) = names.iter().find(|name| {
            name.is_empty() || name.len() > MAX_GPU_NAME || name.as_str() == "all" || !name.chars().all(fits)
        }) {
            return Err(format!(
                "`{name}` is no name of one GPU: want its number, its UUID, or its CDI name"
            ));
        }
        if names.iter().collect::<BTreeSet<_>>().len() < names.len() {
            return Err("a GPU is named twice".to_owned());
        }
        // vendor/class=device (Container Device Interface 0.5, "kind" and "name").
        let is_cdi = |name: &String| name.split_once('/').is_some_and(|(_, rest)| rest.contains('='));
        match names.iter().filter(|name| is_cdi(name)).count() {
            _ if names.is_empty() => Err("no GPU is named".to_owned()),
            0 => Ok(Self::Nvidia(names)),
            cdi if cdi == names.len() => Ok(Self::Cdi(names)),
            _ => Err("some are named for CDI and some are not".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_listed_as_the_kernel_does() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let found = text.parse::<CpuList>().map(|list| list.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{text}");
        };
        check("0", Ok("0"));
        check("8-10, 3,2,1", Ok("1-3,8-10"));
        check("0-1,2", Ok("0-2"));
        check("", Err("`` is no processor's number, want 0 to 8191"));
        check("0-99999", Err("`99999` is no processor's number, want 0 to 8191"));
        check("5-3", Err("`5-3` ends before it begins"));
        let (own, servers): (CpuList, CpuList) = ("0-7".parse().unwrap(), "4-15".parse().unwrap());
        assert_eq!(own.shared(&servers).to_string(), "4-7");
        assert_eq!(own.without(&servers).to_string(), "0-3");
    }

    #[test]
    fn gpus_have_names_of_one_kind() {
        let check = |names: &[&str], expected: Result<bool, &str>| {
            let found = Gpus::new(names.iter().map(ToString::to_string).collect());
            let is_cdi = found.map(|gpus| matches!(gpus, Gpus::Cdi(_)));
            assert_eq!(
                is_cdi.as_ref().map_err(String::as_str),
                expected.as_ref().map_err(|why| *why),
                "{names:?}"
            );
        };
        check(&["0", "1"], Ok(false));
        check(&["GPU-8f6d2f0e-0d8c-4a57-9a0c-0b7a4d1b2c3d"], Ok(false));
        check(&["nvidia.com/gpu=0", "nvidia.com/gpu=1"], Ok(true));
        check(&["0", "nvidia.com/gpu=1"], Err("some are named for CDI and some are not"));
        check(&["0", "0"], Err("a GPU is named twice"));
        check(&[], Err("no GPU is named"));
        check(&["all"], Err("`all` is no name of one GPU: want its number, its UUID, or its CDI name"));
        check(&["0,1"], Err("`0,1` is no name of one GPU: want its number, its UUID, or its CDI name"));
    }
}
