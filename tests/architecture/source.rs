//! Splits Rust files into tokens and finds their imports. Drops comments and code under `#[cfg(test)]`.
//! This is not a full parser; it may differ from the compiler in rare cases.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A module's path from the crate's root: `["cache", "redis"]`.
pub type Module = Vec<String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A name, a keyword or a number.
    Word,
    /// One punctuation character, or `::`.
    Sign,
    /// A string or character literal, with its quotes.
    Text,
}

#[derive(Clone, Debug)]
pub struct Token {
    pub kind: Kind,
    pub text: String,
    /// Counted from 1.
    pub line: usize,
}

/// One source file without its test code.
pub struct Source {
    /// Relative to the package: `src/cache/redis.rs`.
    pub path: String,
    pub module: Module,
    pub first_line: String,
    /// Excludes code under `#[cfg(test)]`.
    pub tokens: Vec<Token>,
    /// Number of lines, excluding code under `#[cfg(test)]`.
    pub lines: usize,
}

/// A path used in a file, resolved from the crate's root.
pub struct Import {
    pub target: Module,
    pub line: usize,
}

/// The source files of a crate, without test modules.
pub struct SourceTree {
    pub sources: Vec<Source>,
}

impl SourceTree {
    /// Reads all Rust files below `root/src`.
    pub fn read(root: &Path) -> Self {
        let src = root.join("src");
        let files: Vec<_> = rust_files(&src)
            .iter()
            .map(|path| {
                let name = path.strip_prefix(&src).expect("a file below src").display().to_string();
                (name, fs::read_to_string(path).expect("a source file in UTF-8"))
            })
            .collect();
        assert!(!files.is_empty(), "no source below {}", src.display());
        Self::of(files.iter().map(|(name, text)| (name.as_str(), text.as_str())))
    }

    /// Builds a source tree from pairs of path (below `src`) and text.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut tests = BTreeSet::new();
        let mut sources = Vec::new();
        for (name, text) in files {
            let (source, test_modules) = Source::read(name, text);
            tests.extend(test_modules);
            sources.push(source);
        }
        sources.retain(|source| !tests.iter().any(|test| source.module.starts_with(test)));
        Self { sources }
    }

    /// Returns the longest prefix of `path` that is a module.
    pub fn module_of<'a>(&self, path: &'a [String]) -> &'a [String] {
        let is_module = |part: &&[String]| self.sources.iter().any(|source| source.module == **part);
        (0..=path.len()).rev().map(|length| &path[..length]).find(is_module).unwrap_or_default()
    }
}

impl Source {
    /// Reads one file; also returns the modules that it declares under `#[cfg(test)]`.
    fn read(name: &str, text: &str) -> (Self, Vec<Module>) {
        let module = module_of_file(name);
        let (tokens, test_lines, test_modules) = without_tests(tokens(text), &module);
        let source = Self {
            path: format!("src/{name}"),
            module,
            first_line: text.lines().next().unwrap_or_default().to_owned(),
            tokens,
            lines: text.lines().count() - test_lines,
        };
        (source, test_modules)
    }

    /// Returns the top-level module of the file; `None` for the crate's root.
    pub fn top_module(&self) -> Option<&str> {
        self.module.first().map(String::as_str)
    }

    /// Returns whether the tokens from `at` on are `words`.
    pub fn reads(&self, at: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(offset, word)| self.is(at + offset, word))
    }

    /// Returns whether the token at `at` is `word` and not a literal.
    pub fn is(&self, at: usize, word: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind != Kind::Text && token.text == word)
    }

    /// Returns the lines on which the token sequence `words` starts.
    pub fn lines_with<'a>(&'a self, words: &'a [&'a str]) -> impl Iterator<Item = usize> + 'a {
        (0..self.tokens.len()).filter(|at| self.reads(*at, words)).map(|at| self.tokens[at].line)
    }

    /// Returns every path that starts with `crate`, `self` or `super`.
    pub fn imports(&self) -> Vec<Import> {
        let mut found = Vec::new();
        // Names and brace depths of the inline modules around the token.
        let mut inside: Vec<(String, usize)> = Vec::new();
        let mut depth = 0;
        for at in 0..self.tokens.len() {
            if self.is(at, "{") {
                depth += 1;
                if at >= 2 && self.is(at - 2, "mod") {
                    inside.push((self.tokens[at - 1].text.clone(), depth));
                }
            } else if self.is(at, "}") {
                if inside.last().is_some_and(|(_, opened)| *opened == depth) {
                    inside.pop();
                }
                depth = depth.saturating_sub(1);
            }
            let here = || self.module.iter().cloned().chain(inside.iter().map(|(name, _)| name.clone())).collect();
            if let Some((start, base)) = self.path_start(at, here) {
                self.collect(start, base, &mut found);
            }
        }
        found
    }

    /// Returns the index after a path's leading keyword, and the module that the path is relative to.
    fn path_start(&self, at: usize, here: impl Fn() -> Module) -> Option<(usize, Module)> {
        // `pub(in crate::queue)` is not an import; `a::self` continues an earlier path.
        if !self.is(at + 1, "::") || at > 0 && (self.is(at - 1, "in") || self.is(at - 1, "::")) {
            return None;
        }
        let mut base = if self.is(at, "crate") { Module::new() } else { here() };
        if self.is(at, "super") {
            base.pop();
        } else if !self.is(at, "crate") && !self.is(at, "self") {
            return None;
        }
        let mut next = at + 2;
        while self.reads(next, &["super", "::"]) {
            base.pop();
            next += 2;
        }
        Some((next, base))
    }

    /// Collects one path or one use tree in braces; returns the index after it.
    fn collect(&self, mut at: usize, mut path: Module, found: &mut Vec<Import>) -> usize {
        let line = self.tokens.get(at).map_or(0, |token| token.line);
        while let Some(token) = self.tokens.get(at) {
            if self.is(at, "{") {
                at += 1;
                while at < self.tokens.len() && !self.is(at, "}") {
                    at = self.collect(at, path.clone(), found);
                    while at < self.tokens.len() && !self.is(at, ",") && !self.is(at, "}") {
                        at += 1;
                    }
                    at += usize::from(self.is(at, ","));
                }
                return at + 1;
            }
            if !self.is(at, "self") && (token.kind == Kind::Word || self.is(at, "*")) {
                path.push(token.text.clone());
            }
            if !self.is(at + 1, "::") {
                break;
            }
            at += 2;
        }
        found.push(Import { target: path, line });
        at + 1
    }

    /// Returns the index of the brace that closes the block opened at `open`.
    pub fn closing(&self, open: usize) -> usize {
        closing(&self.tokens, open)
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder that can be read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn module_of_file(name: &str) -> Module {
    let mut module: Module = name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod" || last == "lib" && module.len() == 1) {
        module.pop();
    }
    module
}

/// Removes each item under `#[cfg(test)]`; also returns the number of removed lines and the removed modules.
fn without_tests(tokens: Vec<Token>, module: &[String]) -> (Vec<Token>, usize, Vec<Module>) {
    let (mut kept, mut lines, mut modules) = (Vec::new(), 0, Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        if !is_test_attribute(&tokens, at) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let end = end_of_item(&tokens, at);
        lines += tokens[end].line - tokens[at].line + 1;
        if let Some(name) = (at..end).find(|at| tokens[*at].text == "mod").map(|at| &tokens[at + 1].text) {
            modules.push(module.iter().chain([name]).cloned().collect());
        }
        at = end + 1;
    }
    (kept, lines, modules)
}

fn is_test_attribute(tokens: &[Token], at: usize) -> bool {
    let attributes: [&[&str]; 2] =
        [&["#", "[", "cfg", "(", "test", ")", "]"], &["#", "[", "cfg", "(", "all", "(", "test", ","]];
    let reads = |(at, word): (usize, &&str)| tokens.get(at).is_some_and(|token| token.text == **word);
    attributes.iter().any(|words| (at..).zip(words.iter()).all(reads))
}

/// Returns the last token of the item at `at`: its semicolon, or the brace that closes its body.
fn end_of_item(tokens: &[Token], at: usize) -> usize {
    let mut nested = 0_usize;
    for (offset, token) in tokens[at..].iter().enumerate().filter(|(_, token)| token.kind == Kind::Sign) {
        match token.text.as_str() {
            "(" | "[" => nested += 1,
            ")" | "]" => nested = nested.saturating_sub(1),
            ";" if nested == 0 => return at + offset,
            "{" if nested == 0 => {
                let end = closing(tokens, at + offset);
                // A use tree's braces end before its semicolon.
                let ends_later = tokens.get(end + 1).is_some_and(|token| token.text == ";");
                return end + usize::from(ends_later);
            }
            _ => {}
        }
    }
    tokens.len() - 1
}

fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, token) in tokens[open..].iter().enumerate().filter(|(_, token)| token.kind == Kind::Sign) {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" if depth == 1 => return open + offset,
            "}" => depth -= 1,
            _ => {}
        }
    }
    tokens.len() - 1
}

fn tokens(text: &str) -> Vec<Token> {
    let mut reader = Reader { rest: text, line: 1 };
    let mut found = Vec::new();
    while let Some(token) = reader.next() {
        found.push(token);
    }
    found
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<Token> {
        self.skip_comments();
        let line = self.line;
        let (kind, text) = self.text().or_else(|| self.word()).or_else(|| self.sign())?;
        Some(Token { kind, text, line })
    }

    fn skip_comments(&mut self) {
        loop {
            self.take(self.rest.len() - self.rest.trim_start().len());
            if self.rest.starts_with("//") {
                self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                self.take(comment_length(self.rest));
            } else {
                return;
            }
        }
    }

    /// Reads a string or character literal, but not a lifetime.
    fn text(&mut self) -> Option<(Kind, String)> {
        let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
            let after = self.rest.strip_prefix(prefix).unwrap_or_default();
            let after = if prefix.ends_with('r') { after.trim_start_matches('#') } else { after };
            after.starts_with('"') || (["b", ""].contains(prefix) && after.starts_with('\''))
        })?;
        let body = &self.rest[prefix.len()..];
        let length = if prefix.ends_with('r') {
            let hashes = body.len() - body.trim_start_matches('#').len();
            let end = format!("\"{}", "#".repeat(hashes));
            let start = hashes + 1;
            start + body[start..].find(&end)? + end.len()
        } else if body.starts_with('"') {
            quoted_length(body, '"')?
        } else {
            // `'a` is a lifetime unless a quote follows its first character.
            let is_lifetime = !body[1..].starts_with('\\') && body.chars().nth(2) != Some('\'');
            if is_lifetime {
                return None;
            }
            quoted_length(body, '\'')?
        };
        Some((Kind::Text, self.take(prefix.len() + length)))
    }

    fn word(&mut self) -> Option<(Kind, String)> {
        // A lifetime's quote belongs to its name, and so does the prefix of a raw name.
        let prefix = ["'", "r#"].into_iter().find(|prefix| self.rest.starts_with(prefix)).map_or(0, str::len);
        let body = &self.rest[prefix..];
        let length = body.find(|sign: char| !sign.is_alphanumeric() && sign != '_').unwrap_or(body.len());
        (length > 0).then(|| (Kind::Word, self.take(prefix + length)))
    }

    fn sign(&mut self) -> Option<(Kind, String)> {
        let length = if self.rest.starts_with("::") { 2 } else { self.rest.chars().next()?.len_utf8() };
        Some((Kind::Sign, self.take(length)))
    }

    fn take(&mut self, length: usize) -> String {
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken.to_owned()
    }
}

/// Returns the length of a block comment; block comments nest.
fn comment_length(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

fn quoted_length(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, sign) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if sign == '\\' {
            escaped = true;
        } else if sign == quote {
            return Some(at + 1);
        }
    }
    None
}
