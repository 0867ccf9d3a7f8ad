//! Which module uses which, read from the sources: paths that begin with `crate`, `super` or `self`, in code that is not
//! for tests. Names that a module takes from elsewhere are followed to where they are defined.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A module's place: `["link", "mtu"]`. The crate itself is empty.
pub type Module = Vec<String>;

/// What one module says.
#[derive(Clone, Debug, Default)]
struct Source {
    /// Paths in its code, absolute.
    paths: Vec<Vec<String>>,
    /// What its `use` statements call what: the name here, and the absolute path.
    names: BTreeMap<String, Vec<String>>,
    /// The same where the path begins with a name, which may be that of a module in here or of another crate.
    inner: BTreeMap<String, Vec<String>>,
}

/// All modules of a crate with what they use.
#[derive(Clone, Debug, Default)]
pub struct Imports {
    sources: BTreeMap<Module, Source>,
    /// Modules that only tests have.
    tests: BTreeSet<Module>,
}

impl Imports {
    /// Reads every file below `src`.
    pub fn read(src: &Path) -> Imports {
        let mut imports = Imports::default();
        let mut files = Vec::new();
        collect(src, &mut files);
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let module = module_of(file.strip_prefix(src).unwrap());
            imports.add(module, &text);
        }
        imports
    }

    /// Takes in one module's text.
    pub fn add(&mut self, module: Module, text: &str) {
        let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{module:?}: {error}"));
        self.sources.entry(module.clone()).or_default();
        self.scan(&module, tokens);
    }

    fn scan(&mut self, module: &Module, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            if is_test_attribute(&tokens[at..]) {
                at = self.skip_item(module, &tokens, at);
                continue;
            }
            match word(&tokens, at).as_deref() {
                Some("use") => {
                    let end = (at..tokens.len()).find(|&n| is_punct(&tokens[n], ';')).unwrap_or(tokens.len());
                    self.take_use(module, &[], &tokens[at + 1..end]);
                    at = end;
                }
                Some("mod") if matches!(tokens.get(at + 2), Some(TokenTree::Group(_))) => {
                    let Some(TokenTree::Group(body)) = tokens.get(at + 2) else { unreachable!() };
                    let mut inner = module.clone();
                    inner.extend(word(&tokens, at + 1));
                    self.sources.entry(inner.clone()).or_default();
                    self.scan(&inner, body.stream());
                    at += 3;
                }
                Some("crate" | "super" | "self") if is_path(&tokens, at) => {
                    let (path, next) = read_path(&tokens, at);
                    let path = absolute(module, &path);
                    self.sources.entry(module.clone()).or_default().paths.push(path);
                    at = next;
                }
                // `pub(in crate::replicator)` says who may use it, not what is used.
                Some("pub") if is_visibility(&tokens, at + 1) => at += 2,
                _ => {
                    if let TokenTree::Group(group) = &tokens[at] {
                        self.scan(module, group.stream());
                    }
                    at += 1;
                }
            }
        }
    }

    /// The position behind the item that has `#[cfg(test)]`; a module in a file of its own is noted.
    fn skip_item(&mut self, module: &Module, tokens: &[TokenTree], mut at: usize) -> usize {
        while matches!(tokens.get(at), Some(token) if is_punct(token, '#')) {
            at += 2;
        }
        let begin = at;
        while let Some(token) = tokens.get(at) {
            at += 1;
            let is_body = matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
            if is_body || is_punct(token, ';') {
                break;
            }
        }
        if let Some(name) = (begin..at).find(|&n| word(tokens, n).as_deref() == Some("mod")) {
            let mut inner = module.clone();
            inner.extend(word(tokens, name + 1));
            self.tests.insert(inner);
        }
        at
    }

    /// One `use` tree below `prefix`.
    fn take_use(&mut self, module: &Module, prefix: &[String], tokens: &[TokenTree]) {
        'trees: for tree in tokens.split(|token| is_punct(token, ',')) {
            let mut path = prefix.to_vec();
            let mut name = None;
            let mut at = 0;
            while at < tree.len() {
                match &tree[at] {
                    TokenTree::Ident(ident) if ident == "as" => {
                        name = word(tree, at + 1);
                        at += 1;
                    }
                    TokenTree::Ident(ident) => path.push(ident.to_string()),
                    TokenTree::Group(group) => {
                        let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                        self.take_use(module, &path, &inner);
                        continue 'trees;
                    }
                    _ => {}
                }
                at += 1;
            }
            self.note_use(module, path, name);
        }
    }

    fn note_use(&mut self, module: &Module, path: Vec<String>, name: Option<String>) {
        let is_inner = !matches!(path.first().map(String::as_str), Some("crate" | "super" | "self"));
        let path = absolute(module, &path);
        let source = self.sources.entry(module.clone()).or_default();
        if is_inner {
            if let Some(name) = name.or_else(|| path.last().cloned()) {
                source.inner.insert(name, path);
            }
            return;
        }
        if let Some(name) = name.or_else(|| path.last().cloned()) {
            source.names.insert(name, path.clone());
        }
        source.paths.push(path);
    }

    /// Every pair of modules of which the first uses the second.
    pub fn edges(&self) -> BTreeSet<(Module, Module)> {
        let mut edges = BTreeSet::new();
        for (module, source) in &self.sources {
            if self.tests.iter().any(|test| module.starts_with(test)) {
                continue;
            }
            let inner = source.inner.values().filter(|path| self.is_in(module, path));
            for path in source.paths.iter().chain(inner) {
                edges.insert((module.clone(), self.resolve(path, 0)));
            }
        }
        edges
    }

    /// Whether a path begins with a module that stands in this one.
    fn is_in(&self, module: &Module, path: &[String]) -> bool {
        path.len() > module.len() && self.sources.contains_key(&path[..=module.len()])
    }

    /// The module that defines what an absolute path names.
    fn resolve(&self, path: &[String], depth: usize) -> Module {
        const REEXPORTS_MAX: usize = 16;
        let mut module = Module::new();
        for (n, segment) in path.iter().enumerate() {
            let mut child = module.clone();
            child.push(segment.clone());
            if self.sources.contains_key(&child) {
                module = child;
                continue;
            }
            let named = self.sources.get(&module).and_then(|source| {
                let inner = || source.inner.get(segment).filter(|path| self.is_in(&module, path));
                source.names.get(segment).or_else(inner)
            });
            return match named {
                Some(target) if depth < REEXPORTS_MAX => {
                    let rest = path[n + 1..].iter();
                    self.resolve(&target.iter().chain(rest).cloned().collect::<Vec<_>>(), depth + 1)
                }
                _ => module,
            };
        }
        module
    }
}

/// For each folder the edges between what stands directly in it; a folder's own `mod.rs` is `.`.
pub fn by_folder(edges: &BTreeSet<(Module, Module)>) -> BTreeMap<Module, BTreeSet<(String, String)>> {
    let mut folders: BTreeMap<Module, BTreeSet<(String, String)>> = BTreeMap::new();
    for (from, to) in edges {
        let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
        let part = |module: &Module| module.get(common).cloned().unwrap_or_else(|| ".".to_owned());
        let (from_part, to_part) = (part(from), part(to));
        if from_part != to_part {
            folders.entry(from[..common].to_vec()).or_default().insert((from_part, to_part));
        }
    }
    folders
}

/// The edges that lie on a cycle.
pub fn cyclic(edges: &BTreeSet<(String, String)>) -> BTreeSet<(String, String)> {
    let reaches = |from: &str, to: &str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(node) = open.pop() {
            for (_, next) in edges.iter().filter(|(a, _)| *a == node) {
                if next == to {
                    return true;
                }
                if seen.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        false
    };
    edges.iter().filter(|(from, to)| reaches(to, from)).cloned().collect()
}

/// All sources below a folder.
pub fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

fn module_of(file: &Path) -> Module {
    let mut module: Module =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let last = module.last().map(String::as_str);
    if last == Some("mod") || (module.len() == 1 && last == Some("lib")) {
        module.pop();
    }
    module
}

fn absolute(module: &Module, path: &[String]) -> Vec<String> {
    let mut base = module.clone();
    let mut rest = path;
    while let Some((first, tail)) = rest.split_first() {
        match first.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => {
                base.pop();
            }
            _ => break,
        }
        rest = tail;
    }
    base.extend(rest.iter().cloned());
    base
}

fn word(tokens: &[TokenTree], at: usize) -> Option<String> {
    match tokens.get(at) {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}

fn is_punct(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == sign)
}

/// Whether this is what stands in brackets behind `pub`.
fn is_visibility(tokens: &[TokenTree], at: usize) -> bool {
    let Some(TokenTree::Group(group)) = tokens.get(at) else { return false };
    let first: Vec<TokenTree> = group.stream().into_iter().take(1).collect();
    group.delimiter() == Delimiter::Parenthesis
        && matches!(word(&first, 0).as_deref(), Some("crate" | "self" | "super" | "in"))
}

/// Whether `::` follows.
fn is_path(tokens: &[TokenTree], at: usize) -> bool {
    tokens.get(at + 1).is_some_and(|token| is_punct(token, ':'))
        && tokens.get(at + 2).is_some_and(|token| is_punct(token, ':'))
}

fn read_path(tokens: &[TokenTree], mut at: usize) -> (Vec<String>, usize) {
    let mut path = Vec::new();
    while let Some(part) = word(tokens, at) {
        path.push(part);
        if !is_path(tokens, at) {
            return (path, at + 1);
        }
        at += 3;
    }
    (path, at)
}

/// Whether `#[cfg(test)]` stands here.
fn is_test_attribute(tokens: &[TokenTree]) -> bool {
    match tokens {
        [hash, TokenTree::Group(attribute), ..] if is_punct(hash, '#') => {
            attribute.stream().to_string().replace(' ', "") == "cfg(test)"
                || attribute.stream().to_string().replace(' ', "").starts_with("cfg(any(test,")
        }
        _ => false,
    }
}
