//! Rust source as tokens, so that comments and texts are not mistaken for code.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};

use crate::tree::File;

/// What the rules look at.
#[derive(Default)]
pub struct Code {
    /// Every path of two segments or more, and everything that is imported.
    pub paths: Vec<Path>,
    /// Every name and keyword.
    pub words: Vec<Word>,
    /// Every attribute, without its brackets and spaces.
    pub attributes: Vec<Word>,
    /// Every token in order, the ends of groups included; attributes are left out.
    pub tokens: Vec<Token>,
}

/// A token. A string literal is its content, without quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    pub line: usize,
    pub in_test: bool,
    pub is_string: bool,
}

impl Token {
    /// Whether it is this name, keyword or sign, and no string literal.
    pub fn is(&self, text: &str) -> bool {
        !self.is_string && self.text == text
    }
}

/// A path; one that begins in this crate begins with `crate`.
#[derive(Debug, PartialEq, Eq)]
pub struct Path {
    pub segments: Vec<String>,
    pub line: usize,
    pub in_test: bool,
}

/// A word.
#[derive(Debug, PartialEq, Eq)]
pub struct Word {
    pub text: String,
    pub line: usize,
    pub in_test: bool,
    /// It is the name of a macro that is called here.
    pub is_macro: bool,
}

/// Reads a file.
pub fn read(file: &File) -> Code {
    let stream: TokenStream = file.text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.path));
    // The tests of a module in a file of their own.
    let in_test = file.path.ends_with("/tests.rs");
    let mut reader = Reader { code: Code::default(), module: module_of(&file.path), in_test };
    reader.flatten(stream.clone(), in_test);
    reader.read(stream);
    reader.code
}

/// The module that a file is, from the root of its crate.
pub fn module_of(path: &str) -> Vec<String> {
    let inside = path.strip_prefix("dev/env/").unwrap_or(path);
    let inside = inside.strip_prefix("src/").unwrap_or(inside).trim_end_matches(".rs");
    let mut segments: Vec<String> = inside.split('/').map(str::to_owned).collect();
    if segments.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        segments.pop();
    }
    segments
}

struct Reader {
    code: Code,
    module: Vec<String>,
    in_test: bool,
}

impl Reader {
    /// Adds all tokens, in order.
    fn flatten(&mut self, stream: TokenStream, in_test: bool) {
        let (mut test_ahead, mut after_hash) = (false, false);
        for token in stream {
            match token {
                TokenTree::Group(group) => {
                    if after_hash && group.delimiter() == Delimiter::Bracket {
                        test_ahead |= group.stream().to_string().replace(' ', "") == "cfg(test)";
                        self.code.tokens.pop();
                        after_hash = false;
                        continue;
                    }
                    let (open, close) = match group.delimiter() {
                        Delimiter::Parenthesis => ("(", ")"),
                        Delimiter::Brace => ("{", "}"),
                        Delimiter::Bracket => ("[", "]"),
                        Delimiter::None => ("", ""),
                    };
                    let is_body = group.delimiter() == Delimiter::Brace;
                    let inside = in_test || test_ahead && is_body;
                    self.token(open, group.span_open(), inside);
                    self.flatten(group.stream(), inside);
                    self.token(close, group.span_close(), inside);
                    test_ahead &= !is_body;
                }
                TokenTree::Punct(punct) => {
                    self.token(&punct.to_string(), punct.span(), in_test || test_ahead);
                    test_ahead &= punct.as_char() != ';';
                    // `#!` begins an inner attribute.
                    after_hash = punct.as_char() == '#' || after_hash && punct.as_char() == '!';
                    continue;
                }
                TokenTree::Ident(word) => self.token(&word.to_string(), word.span(), in_test || test_ahead),
                TokenTree::Literal(literal) => {
                    let text = literal.to_string();
                    let content = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
                    self.token(content.unwrap_or(&text), literal.span(), in_test || test_ahead);
                    if let Some(last) = self.code.tokens.last_mut() {
                        last.is_string = content.is_some();
                    }
                }
            }
            after_hash = false;
        }
    }

    fn token(&mut self, text: &str, span: Span, in_test: bool) {
        let line = span.start().line;
        self.code.tokens.push(Token { text: text.to_owned(), line, in_test, is_string: false });
    }

    fn read(&mut self, stream: TokenStream) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let (mut at, mut test_ahead) = (0, false);
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    let inner = usize::from(is_punct(tokens.get(at + 1), '!'));
                    if let Some(TokenTree::Group(group)) = tokens.get(at + 1 + inner) {
                        let text = group.stream().to_string().replace(' ', "");
                        test_ahead |= text == "cfg(test)";
                        let line = punct.span().start().line;
                        let in_test = self.in_test || test_ahead;
                        self.code.attributes.push(Word { text, line, in_test, is_macro: false });
                    }
                    at += 1;
                }
                TokenTree::Ident(word) if *word == "mod" && is_ident(tokens.get(at + 1)) => {
                    self.word(&tokens, at);
                    self.word(&tokens, at + 1);
                    at += 2;
                    if let Some(TokenTree::Group(body)) = tokens.get(at) {
                        self.module.push(tokens[at - 1].to_string());
                        self.inside(body.stream(), test_ahead);
                        self.module.pop();
                        at += 1;
                    }
                    test_ahead = false;
                }
                TokenTree::Ident(word) if *word == "use" => {
                    self.word(&tokens, at);
                    let end = (at..tokens.len()).find(|index| is_punct(tokens.get(*index), ';'));
                    let end = end.unwrap_or(tokens.len());
                    self.tree(&tokens[at + 1..end], &[]);
                    at = end;
                }
                TokenTree::Ident(_) => {
                    self.word(&tokens, at);
                    let inside_a_path = at > 0
                        && is_punct(tokens.get(at - 1), ':')
                        && at > 1
                        && is_punct(tokens.get(at - 2), ':');
                    if !inside_a_path && is_separator(&tokens, at + 1) {
                        self.tree_of_one(&tokens[at..]);
                    }
                    at += 1;
                }
                TokenTree::Group(group) => {
                    let is_body = group.delimiter() == Delimiter::Brace;
                    self.inside(group.stream(), test_ahead && is_body);
                    test_ahead &= !is_body;
                    at += 1;
                }
                TokenTree::Punct(punct) => {
                    test_ahead &= punct.as_char() != ';';
                    at += 1;
                }
                TokenTree::Literal(_) => at += 1,
            }
        }
    }

    fn inside(&mut self, stream: TokenStream, is_test: bool) {
        let before = self.in_test;
        self.in_test |= is_test;
        self.read(stream);
        self.in_test = before;
    }

    fn word(&mut self, tokens: &[TokenTree], at: usize) {
        let is_macro =
            is_punct(tokens.get(at + 1), '!') && matches!(tokens.get(at + 2), Some(TokenTree::Group(_)));
        let (text, line) = (tokens[at].to_string(), tokens[at].span().start().line);
        self.code.words.push(Word { text, line, in_test: self.in_test, is_macro });
    }

    /// A path in the code: it ends with the first token that is no part of it.
    fn tree_of_one(&mut self, tokens: &[TokenTree]) {
        let mut end = 1;
        while is_separator(tokens, end) && is_ident(tokens.get(end + 2)) {
            end += 3;
        }
        self.tree(&tokens[..end], &[]);
    }

    /// The trees of a `use`, with commas between them.
    fn tree(&mut self, tokens: &[TokenTree], prefix: &[String]) {
        for part in tokens.split(|token| is_punct(Some(token), ',')) {
            let mut segments = prefix.to_vec();
            let mut line = 0;
            for (index, token) in part.iter().enumerate() {
                match token {
                    TokenTree::Ident(word) if *word == "as" => break,
                    TokenTree::Ident(word) => {
                        line = word.span().start().line;
                        if *word != "self" || segments.is_empty() {
                            segments.push(word.to_string());
                        }
                    }
                    TokenTree::Group(group) => {
                        let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                        self.tree(&inner, &segments);
                        segments.clear();
                    }
                    TokenTree::Punct(punct) if punct.as_char() == '*' && index > 0 => {
                        segments.push("*".to_owned());
                    }
                    TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                }
            }
            if !segments.is_empty() {
                let segments = self.absolute(&segments);
                self.code.paths.push(Path { segments, line, in_test: self.in_test });
            }
        }
    }

    fn absolute(&self, segments: &[String]) -> Vec<String> {
        let up = segments.iter().take_while(|segment| *segment == "super").count();
        let rest = match segments.first().map(String::as_str) {
            Some("super") => &segments[up..],
            Some("self") => &segments[1..],
            _ => return segments.to_vec(),
        };
        let from = &self.module[..self.module.len().saturating_sub(up)];
        std::iter::once("crate".to_owned()).chain(from.iter().chain(rest).cloned()).collect()
    }
}

fn is_ident(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Ident(_)))
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')
}

#[test]
fn paths_are_read_in_every_notation() {
    let file = File::sample(
        "src/postgres/server.rs",
        "//! use crate::comment;\n\
         use crate::{api, domain::{access::AccessLevel as Level, self}};\n\
         use super::error::*;\n\
         fn f() { let _ = \"crate::text::x\"; kube::Client::x(); a.b::<u8>() }\n\
         #[cfg(test)]\n\
         mod tests { use super::super::roles; mod inner { use super::super::up; } }\n",
    );
    let got: Vec<_> =
        read(&file).paths.into_iter().map(|p| (p.segments.join("::"), p.line, p.in_test)).collect();
    let wanted = [
        ("crate::api", 2, false),
        ("crate::domain::access::AccessLevel", 2, false),
        ("crate::domain", 2, false),
        ("crate::postgres::error::*", 3, false),
        ("kube::Client::x", 4, false),
        ("b", 4, false),
        ("crate::postgres::roles", 6, true),
        ("crate::postgres::server::up", 6, true),
    ];
    assert_eq!(got, wanted.map(|(path, line, test)| (path.to_owned(), line, test)));
}

#[test]
fn words_attributes_and_macros_are_distinguished() {
    let code =
        read(&File::sample("src/x.rs", "#[ignore = \"why\"]\nasync fn f() { if a != (b) { todo!() } }\n"));
    assert_eq!(code.attributes[0].text, "ignore=\"why\"");
    let macros: Vec<_> = code.words.iter().filter(|word| word.is_macro).map(|word| &*word.text).collect();
    assert_eq!(macros, ["todo"]);
    assert!(code.words.iter().any(|word| word.text == "async" && word.line == 2));
}
