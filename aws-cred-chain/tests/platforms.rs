//! Searches the sources for names that do not exist on Linux, macOS, Windows or WebAssembly. The
//! standard libraries of other systems are not installed on the machines that run these tests, so
//! the crate is not built for them.
//!
//! For each target, all items that its `cfg` excludes are removed. The rest must not name an item
//! of another system or a removed item.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::punctuated::Punctuated;
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, Block, Fields, File, ImplItem, Item, ItemImpl, ItemMod, Meta, Stmt, Token};

struct Target {
    name: &'static str,
    os: &'static str,
    family: &'static str,
    /// Parts of paths that do not exist on the target.
    absent: &'static [&'static str],
}

const TARGETS: [Target; 4] = [
    Target { name: "Linux", os: "linux", family: "unix", absent: &["std :: os :: windows"] },
    Target {
        name: "macOS",
        os: "macos",
        family: "unix",
        absent: &["std :: os :: windows", "\"/proc"],
    },
    Target {
        name: "Windows",
        os: "windows",
        family: "windows",
        absent: &["std :: os :: unix", "std :: os :: fd", "std :: os :: linux", "rustix"],
    },
    Target { name: "WebAssembly", os: "unknown", family: "", absent: &["std :: os ::", "rustix"] },
];

impl Target {
    /// Returns whether a `cfg` predicate holds. Features are on, and tests are not built.
    fn holds(&self, predicate: &Meta) -> bool {
        let name = predicate.path().get_ident().map(ToString::to_string).unwrap_or_default();
        match predicate {
            Meta::Path(_) => ["unix", "windows"].contains(&name.as_str()) && name == self.family,
            Meta::NameValue(pair) => {
                let value = pair.value.to_token_stream().to_string();
                match name.as_str() {
                    "feature" => true,
                    "target_os" => value == format!("\"{}\"", self.os),
                    "target_family" => value == format!("\"{}\"", self.family),
                    other => panic!("cfg({other}) is not known to this test"),
                }
            }
            Meta::List(list) => {
                let parts = list
                    .parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
                    .unwrap_or_else(|error| panic!("cfg({}): {error}", list.tokens));
                let mut parts = parts.iter();
                match name.as_str() {
                    "all" => parts.all(|part| self.holds(part)),
                    "any" => parts.any(|part| self.holds(part)),
                    "not" => !parts.any(|part| self.holds(part)),
                    other => panic!("cfg({other}(..)) is not known to this test"),
                }
            }
        }
    }

    fn has(&self, attributes: &[Attribute]) -> bool {
        attributes
            .iter()
            .filter(|attribute| attribute.path().is_ident("cfg"))
            .all(|attribute| self.holds(&attribute.parse_args().unwrap()))
    }
}

/// Removes the items that a target does not have, and records their names.
struct Prune<'a> {
    target: &'a Target,
    gone: BTreeSet<String>,
    kept: BTreeSet<String>,
}

impl Prune<'_> {
    fn items(&mut self, items: &mut Vec<Item>) {
        items.retain(|item| {
            let (attributes, name) = named(item);
            let has = self.target.has(attributes);
            if let Some(name) = name {
                let names = if has { &mut self.kept } else { &mut self.gone };
                names.insert(name);
            }
            has
        });
    }
}

impl VisitMut for Prune<'_> {
    fn visit_file_mut(&mut self, file: &mut File) {
        self.items(&mut file.items);
        visit_mut::visit_file_mut(self, file);
    }

    fn visit_item_mod_mut(&mut self, module: &mut ItemMod) {
        if let Some((_, items)) = &mut module.content {
            self.items(items);
        }
        visit_mut::visit_item_mod_mut(self, module);
    }

    fn visit_item_impl_mut(&mut self, block: &mut ItemImpl) {
        block.items.retain(|item| match item {
            ImplItem::Fn(item) => {
                let has = self.target.has(&item.attrs);
                let names = if has { &mut self.kept } else { &mut self.gone };
                names.insert(item.sig.ident.to_string());
                has
            }
            ImplItem::Const(item) => self.target.has(&item.attrs),
            _ => true,
        });
        visit_mut::visit_item_impl_mut(self, block);
    }

    fn visit_fields_mut(&mut self, fields: &mut Fields) {
        if let Fields::Named(named) = fields {
            let kept = named.named.iter().filter(|field| self.target.has(&field.attrs)).cloned();
            named.named = kept.collect();
        }
    }

    fn visit_block_mut(&mut self, block: &mut Block) {
        block.stmts.retain(|statement| match statement {
            Stmt::Local(local) => self.target.has(&local.attrs),
            Stmt::Item(item) => self.target.has(named(item).0),
            Stmt::Macro(call) => self.target.has(&call.attrs),
            Stmt::Expr(expression, _) => self.target.has(attributes(expression)),
        });
        visit_mut::visit_block_mut(self, block);
    }
}

/// Returns an item's attributes, and the name under which others use it.
fn named(item: &Item) -> (&[Attribute], Option<String>) {
    let text = |ident: &syn::Ident| Some(ident.to_string());
    match item {
        Item::Const(item) => (&item.attrs, text(&item.ident)),
        Item::Enum(item) => (&item.attrs, text(&item.ident)),
        Item::Fn(item) => (&item.attrs, text(&item.sig.ident)),
        Item::Impl(item) => (&item.attrs, None),
        Item::Macro(item) => (&item.attrs, None),
        Item::Mod(item) => (&item.attrs, text(&item.ident)),
        Item::Static(item) => (&item.attrs, text(&item.ident)),
        Item::Struct(item) => (&item.attrs, text(&item.ident)),
        Item::Trait(item) => (&item.attrs, text(&item.ident)),
        Item::Type(item) => (&item.attrs, text(&item.ident)),
        Item::Use(item) => (&item.attrs, None),
        _ => (&[], None),
    }
}

fn attributes(expression: &syn::Expr) -> &[Attribute] {
    match expression {
        syn::Expr::Block(it) => &it.attrs,
        syn::Expr::Call(it) => &it.attrs,
        syn::Expr::If(it) => &it.attrs,
        syn::Expr::Macro(it) => &it.attrs,
        syn::Expr::MethodCall(it) => &it.attrs,
        syn::Expr::Return(it) => &it.attrs,
        _ => &[],
    }
}

/// Collects the names in a token stream, except those of attributes.
fn idents(stream: TokenStream, names: &mut BTreeSet<String>) {
    let mut attribute = false;
    for token in stream {
        match token {
            TokenTree::Ident(name) => drop(names.insert(name.to_string())),
            TokenTree::Group(group) if !attribute => idents(group.stream(), names),
            _ => {}
        }
        attribute = false;
    }
}

/// Returns the faults of a file for a target.
fn check(text: &str, target: &Target) -> Vec<String> {
    let mut file = syn::parse_file(text).unwrap();
    let mut prune = Prune { target, gone: BTreeSet::new(), kept: BTreeSet::new() };
    prune.visit_file_mut(&mut file);
    let mut problems = Vec::new();
    let stream = file.to_token_stream();
    let left = stream.to_string();
    for absent in target.absent {
        if left.contains(absent) {
            problems.push(format!("names {absent}"));
        }
    }
    let mut names = BTreeSet::new();
    idents(stream, &mut names);
    for name in prune.gone.difference(&prune.kept).filter(|name| names.contains(*name)) {
        problems.push(format!("names {name}, which is left out"));
    }
    problems
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn each_target_names_what_it_has() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    sources(&root.join("src"), &mut paths);
    assert!(paths.len() > 50, "{} files", paths.len());
    let mut problems = Vec::new();
    for path in &paths {
        let text = std::fs::read_to_string(path).unwrap();
        let place = path.strip_prefix(root).unwrap().display();
        for target in &TARGETS {
            let of_file = check(&text, target);
            problems.extend(of_file.iter().map(|it| format!("{}: {place}: {it}", target.name)));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn what_is_wrong_is_found() {
    let problems = |text: &str| {
        let found = TARGETS.iter().filter(|target| !check(text, target).is_empty());
        found.map(|target| target.name).collect::<Vec<_>>()
    };
    let no_unix = vec!["Windows", "WebAssembly"];
    assert_eq!(problems("use std::os::unix::fs::MetadataExt;"), no_unix);
    assert_eq!(problems("fn f() { rustix::process::getpid(); }"), no_unix);
    assert_eq!(problems("#[cfg(unix)] fn f() {} fn g() { f() }"), no_unix);
    assert_eq!(
        problems("#[cfg(unix)] fn f() {} #[cfg(windows)] fn f() {} fn g() { f() }"),
        ["WebAssembly"]
    );
    assert_eq!(problems("fn f() { #[cfg(target_os = \"linux\")] let x = 1; drop(x) }"), [""; 0]);
    let whole = "#[cfg(unix)] fn f() {} #[cfg(not(unix))] fn f() {} fn g() { f() }";
    assert_eq!(problems(whole), [""; 0]);
    let inside = "fn f() { #[cfg(unix)] { use std::os::fd::AsFd as _; rustix::x(); } }";
    assert_eq!(problems(inside), [""; 0]);
    assert_eq!(problems("#[cfg(windows)] fn f() { std::os::windows::x() }"), [""; 0]);
}
