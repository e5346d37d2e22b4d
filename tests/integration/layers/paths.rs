//! Source text -> the paths it names: `use` trees opened, `super` and `self` resolved, what is only compiled for
//! tests left out. Enough of Rust for the import rule: no macros are expanded, no types are known.

use std::collections::{BTreeMap, BTreeSet};

/// A path of modules and names, without `crate`.
pub(super) type Path = Vec<String>;

/// The paths that one file names.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Each path as it is written, with the module it is written in.
    written: Vec<(Path, Path)>,
    /// What a `use` brings in: the name here, the path as written, the module it is written in.
    uses: Vec<(String, Path, Path)>,
    /// Modules that are compiled for tests only.
    pub(super) test_modules: Vec<Path>,
}

/// The module a file is: `a/b.rs` and `a/b/mod.rs` are `a::b`, the crate's roots are the empty path.
pub(super) fn module_of(file: &str) -> Path {
    let parts: Path = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    match parts.last().map(String::as_str) {
        Some("mod") => parts[..parts.len() - 1].to_vec(),
        Some("lib" | "main") if parts.len() == 1 => Path::new(),
        _ => parts,
    }
}

/// A path as it is written, and what it means.
pub(super) struct Named {
    /// The path as it is written.
    pub(super) written: Path,
    /// The path written out: from the root of the crate, or from another crate's name.
    pub(super) full: Full,
}

/// Where a path begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Full {
    /// It begins at this crate's root.
    Here(Path),
    /// It begins at another crate, or at a name of the language's.
    Elsewhere(Path),
}

impl Names {
    /// Reads a file that is this module.
    pub(super) fn read(text: &str, module: &[String]) -> Self {
        let tokens = tokens(text);
        let word = |at: usize| tokens.get(at).map_or("", String::as_str);
        let mut names = Self::default();
        // Modules written out in the file, each with the depth of its braces.
        let mut inner: Vec<(String, usize)> = Vec::new();
        let (mut at, mut depth) = (0, 0);
        while at < tokens.len() {
            let here = || module.iter().chain(inner.iter().map(|(name, _)| name)).cloned().collect::<Path>();
            if tokens[at..].starts_with(&["#", "[", "cfg", "(", "test", ")", "]"].map(str::to_owned)) {
                at += 7;
                let item = after_attributes(&tokens, at);
                if word(item) == "mod" {
                    let mut path = here();
                    path.push(word(item + 1).to_owned());
                    names.test_modules.push(path);
                    at = if word(item + 2) == "{" { after_group(&tokens, item + 2) } else { item + 3 };
                }
                continue;
            }
            match word(at) {
                "mod" if word(at + 2) == "{" => inner.push((word(at + 1).to_owned(), depth + 1)),
                "{" => depth += 1,
                "}" => {
                    inner.retain(|(_, at)| *at != depth);
                    depth = usize::saturating_sub(depth, 1);
                }
                "use" => {
                    let mut leaves = Vec::new();
                    at = leaves_of(&tokens, at + 1, &Path::new(), &mut leaves);
                    for (path, name) in leaves {
                        names.uses.push((name, path.clone(), here()));
                        names.written.push((path, here()));
                    }
                    continue;
                }
                first if is_word(first) && word(at + 1) == "::" => {
                    let mut leaves = Vec::new();
                    at = leaves_of(&tokens, at, &Path::new(), &mut leaves);
                    names.written.extend(leaves.into_iter().map(|(path, _)| (path, here())));
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        names
    }

    /// Every path of the file, resolved by its own `use` and by the modules that exist.
    pub(super) fn paths(&self, modules: &BTreeSet<Path>) -> Vec<Named> {
        let uses = self.brought_in(modules);
        let full = |path: &Path, module: &Path| match (uses.get(&path[0]), resolve(path, module, modules)) {
            (Some(Full::Here(start)), Full::Elsewhere(_)) if path.len() > 1 => {
                Full::Here([start, &path[1..]].concat())
            }
            (Some(Full::Elsewhere(start)), Full::Elsewhere(_)) if path.len() > 1 => {
                Full::Elsewhere([start, &path[1..]].concat())
            }
            (_, full) => full,
        };
        let named = |(path, module): &(Path, Path)| Named { written: path.clone(), full: full(path, module) };
        self.written.iter().map(named).collect()
    }

    /// The names that the file's `use` bring in.
    pub(super) fn brought_in(&self, modules: &BTreeSet<Path>) -> BTreeMap<String, Full> {
        let one =
            |(name, path, module): &(String, Path, Path)| (name.clone(), resolve(path, module, modules));
        self.uses.iter().map(one).collect()
    }
}

fn resolve(path: &[String], module: &[String], modules: &BTreeSet<Path>) -> Full {
    let mut start = module.to_vec();
    let mut rest = path;
    match rest.first().map(String::as_str) {
        Some("crate" | "cacheon") => (start, rest) = (Path::new(), &rest[1..]),
        Some("self") => rest = &rest[1..],
        Some("super") => {}
        Some(child) if modules.contains(&[module, &[child.to_owned()]].concat()) => {}
        _ => return Full::Elsewhere(path.to_vec()),
    }
    while rest.first().is_some_and(|word| word == "super") {
        start.pop();
        rest = &rest[1..];
    }
    Full::Here([&start, rest].concat())
}

/// Opens a tree of paths that begins at a token: each leaf, and its name here. Returns the token after it.
fn leaves_of(tokens: &[String], mut at: usize, prefix: &[String], leaves: &mut Vec<(Path, String)>) -> usize {
    let word = |at: usize| tokens.get(at).map_or("", String::as_str);
    let mut path = prefix.to_vec();
    loop {
        match word(at) {
            "::" => at += 1,
            "{" => {
                at += 1;
                while !matches!(word(at), "}" | "") {
                    at = leaves_of(tokens, at, &path, leaves);
                    while !matches!(word(at), "," | "}" | "") {
                        at += 1;
                    }
                    at += usize::from(word(at) == ",");
                }
                return at + 1;
            }
            next if next == "*" || is_word(next) => {
                at += 1;
                if next != "self" || path.is_empty() {
                    path.push(next.to_owned());
                }
                if word(at) != "::" {
                    break;
                }
            }
            _ => break,
        }
    }
    let name =
        if word(at) == "as" { word(at + 1).to_owned() } else { path.last().cloned().unwrap_or_default() };
    if !path.is_empty() {
        leaves.push((path, name));
    }
    at
}

fn after_attributes(tokens: &[String], mut at: usize) -> usize {
    let word = |at: usize| tokens.get(at).map_or("", String::as_str);
    loop {
        match (word(at), word(at + 1)) {
            ("#", _) | ("pub", "(") => at = after_group(tokens, at + 1),
            ("pub", _) => at += 1,
            _ => return at,
        }
    }
}

/// The token after the group of brackets that begins at a token.
fn after_group(tokens: &[String], mut at: usize) -> usize {
    let mut depth = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Words, `::`, and single characters; comments, strings, characters and lifetimes are left out.
fn tokens(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let hashes = rest[word..].len() - rest[word..].trim_start_matches('#').len();
        let is_raw = matches!(&rest[..word], "r" | "br") && rest[word + hashes..].starts_with('"');
        let until = |open: usize, close: &str| {
            rest[open..].find(close).map_or(rest.len(), |at| open + at + close.len())
        };
        let used = if rest.starts_with("//") {
            until(2, "\n")
        } else if rest.starts_with("/*") {
            until(2, "*/")
        } else if is_raw {
            until(word + hashes + 1, &format!("\"{}", "#".repeat(hashes)))
        } else if first == '"' {
            string(rest)
        } else if rest.starts_with("'\\") {
            until(3, "'")
        } else if first == '\'' {
            let character = rest[1..].chars().next().map_or(0, char::len_utf8);
            if rest[1 + character..].starts_with('\'') { character + 2 } else { 1 }
        } else {
            let len = if rest.starts_with("::") { 2 } else { word.max(first.len_utf8()) };
            if !first.is_whitespace() {
                found.push(rest[..len].to_owned());
            }
            len
        };
        rest = &rest[used..];
    }
    found
}

/// Length of the string that the text begins with.
fn string(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}
