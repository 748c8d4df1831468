//! Circles of files: files of a crate that import each other, directly or through others.
//!
//! An import is a path through `crate`, `self` or `super` outside of tests. It counts as an import
//! of the file that defines the item: a re-export is followed to that file, and does not itself
//! count as an import. `xtask/circles.txt` lists the known circles, which ARCHITECTURE.md explains.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;

use crate::steps::CRATES;

/// Prints each circle of files that it finds, and each line of `xtask/circles.txt` that is no
/// circle any more. Returns whether the list agrees with what was found.
pub(crate) fn check(root: &Path) -> bool {
    let mut found = BTreeSet::new();
    for krate in CRATES {
        match Graph::read(root, krate) {
            Ok(graph) => found.extend(graph.circles()),
            Err(error) => {
                println!("{error}");
                return false;
            }
        }
    }
    let text = fs::read_to_string(root.join(LIST)).unwrap_or_default();
    let listed: BTreeSet<String> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    for circle in &found {
        let word = if listed.contains(circle) { "argued for" } else { "NEW" };
        println!("{word}: {circle}");
    }
    for circle in listed.difference(&found) {
        println!("no circle any more, remove it from {LIST}: {circle}");
    }
    found == listed
}

/// The files of one crate and their imports.
#[derive(Debug, Default)]
struct Graph {
    /// Modules by path, such as `["worker", "local"]`.
    modules: BTreeMap<Vec<String>, Module>,
}

#[derive(Debug)]
struct Module {
    /// The path, relative to the workspace.
    file: String,
    /// The names that the module re-exports, each with the path of its item.
    exports: BTreeMap<String, Vec<String>>,
    /// The paths that the module imports.
    imports: BTreeSet<Vec<String>>,
}

impl Graph {
    fn read(root: &Path, krate: &str) -> Result<Self, String> {
        let mut graph = Self::default();
        let source = root.join(krate).join("src");
        let library = source.join("lib.rs");
        let first = if library.exists() { library } else { source.join("main.rs") };
        graph.add(root, &first, &source, Vec::new())?;
        Ok(graph)
    }

    /// Adds the module in `file`, and its child modules, whose files lie in `folder`.
    fn add(
        &mut self,
        root: &Path,
        file: &Path,
        folder: &Path,
        path: Vec<String>,
    ) -> Result<(), String> {
        let text =
            fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let parsed =
            syn::parse_file(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        let mut reader = Reader { at: path.clone(), ..Reader::default() };
        reader.visit_file(&parsed);
        let shown = file.strip_prefix(root).unwrap_or(file).display().to_string();
        let module = Module { file: shown, exports: reader.exports, imports: reader.imports };
        self.modules.insert(path.clone(), module);
        for (child, named) in reader.children {
            let beside = folder.join(format!("{child}.rs"));
            let inside: PathBuf = folder.join(&child).join("mod.rs");
            let file = match named {
                Some(named) => file.with_file_name(named),
                None if beside.exists() => beside,
                None => inside,
            };
            let path = [path.clone(), vec![child.clone()]].concat();
            // A missing file is generated, and of another tree.
            if file.exists() {
                self.add(root, &file, &folder.join(&child), path)?;
            }
        }
        Ok(())
    }

    /// Returns the module that defines the item at `path`, following re-exports.
    fn module_of(&self, path: &[String], depth: u32) -> Option<&Vec<String>> {
        let (length, found) = (0..=path.len()).rev().find_map(|length| {
            self.modules.get_key_value(&path[..length]).map(|it| (length, it))
        })?;
        let export = path.get(length).and_then(|name| found.1.exports.get(name));
        match export {
            Some(to) if depth < REEXPORTS_MAX => self.module_of(to, depth + 1),
            _ => Some(found.0),
        }
    }

    /// Returns each circle as the sorted paths of its files, separated by spaces.
    fn circles(&self) -> BTreeSet<String> {
        let reach: BTreeMap<&Vec<String>, BTreeSet<&Vec<String>>> =
            self.modules.keys().map(|module| (module, self.reached_from(module))).collect();
        let mut circles = BTreeSet::new();
        for (module, reached) in &reach {
            let circle: BTreeSet<&str> = reached
                .iter()
                .filter(|other| **other != *module && reach[**other].contains(module))
                .chain([module])
                .map(|module| self.modules[*module].file.as_str())
                .collect();
            if circle.len() > 1 {
                circles.insert(circle.into_iter().collect::<Vec<_>>().join(" "));
            }
        }
        circles
    }

    fn reached_from(&self, module: &Vec<String>) -> BTreeSet<&Vec<String>> {
        let mut reached = BTreeSet::new();
        let mut open = vec![module];
        while let Some(at) = open.pop() {
            for import in &self.modules[at].imports {
                let Some(to) = self.module_of(import, 0) else { continue };
                if to != at && reached.insert(to) {
                    open.push(to);
                }
            }
        }
        reached
    }
}

/// Collects the imports, re-exports and child modules of one file.
#[derive(Debug, Default)]
struct Reader {
    at: Vec<String>,
    exports: BTreeMap<String, Vec<String>>,
    imports: BTreeSet<Vec<String>>,
    /// Names of the modules below it, each with the file that a `#[path]` names.
    children: Vec<(String, Option<String>)>,
}

impl Reader {
    /// Resolves a path to one from the crate's root. Returns `None` if it leads out of the crate.
    fn resolve(&self, path: &[String]) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let mut base = match first.as_str() {
            "crate" => Vec::new(),
            "self" => self.at.clone(),
            "super" => self.at[..self.at.len().saturating_sub(1)].to_vec(),
            child if self.children.iter().any(|(it, _)| it == child) => {
                [self.at.clone(), vec![child.to_owned()]].concat()
            }
            _ => return None,
        };
        let mut rest = rest;
        while let Some((first, after)) = rest.split_first().filter(|(first, _)| *first == "super") {
            debug_assert_eq!(first, "super");
            base.pop();
            rest = after;
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    fn take(&mut self, tree: &syn::UseTree, prefix: &mut Vec<String>, export: bool) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.take(&path.tree, prefix, export);
                prefix.pop();
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.take(tree, prefix, export));
            }
            syn::UseTree::Glob(_) => self.taken(prefix.clone(), None),
            syn::UseTree::Name(name) => {
                let mut path = prefix.clone();
                // `use a::{self}` names `a`.
                if name.ident != "self" || path.is_empty() {
                    path.push(name.ident.to_string());
                }
                self.taken(path, export.then(|| name.ident.to_string()));
            }
            syn::UseTree::Rename(name) => {
                let path = [prefix.clone(), vec![name.ident.to_string()]].concat();
                self.taken(path, export.then(|| name.rename.to_string()));
            }
        }
    }

    fn taken(&mut self, path: Vec<String>, export: Option<String>) {
        let Some(path) = self.resolve(&path) else { return };
        match export {
            Some(name) => drop(self.exports.insert(name, path)),
            None => drop(self.imports.insert(path)),
        }
    }
}

/// Returns the file that `#[path = "..."]` names.
fn path_of(attributes: &[syn::Attribute]) -> Option<String> {
    let path = attributes.iter().find(|it| it.path().is_ident("path"))?;
    let syn::Meta::NameValue(pair) = &path.meta else { return None };
    let syn::Expr::Lit(literal) = &pair.value else { return None };
    let syn::Lit::Str(text) = &literal.lit else { return None };
    Some(text.value())
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_file(&mut self, file: &'ast syn::File) {
        for item in &file.items {
            if let syn::Item::Mod(module) = item
                && module.content.is_none()
            {
                self.children.push((module.ident.to_string(), path_of(&module.attrs)));
            }
        }
        syn::visit::visit_file(self, file);
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let test = module.attrs.iter().any(|it| {
            it.path().is_ident("cfg") && it.parse_args::<syn::Ident>().is_ok_and(|it| it == "test")
        });
        if !test {
            syn::visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let export = !matches!(item.vis, syn::Visibility::Inherited);
        self.take(&item.tree, &mut Vec::new(), export);
    }

    /// A visibility such as `pub(in crate::linux)` names a path, but imports nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words: Vec<String> = path.segments.iter().map(|it| it.ident.to_string()).collect();
        if words.len() > 1 && ["crate", "self", "super"].contains(&words[0].as_str()) {
            self.taken(words, None);
        }
        syn::visit::visit_path(self, path);
    }
}

const LIST: &str = "xtask/circles.txt";
/// The longest chain of re-exports that is followed.
const REEXPORTS_MAX: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(name: &str, files: &[(&str, &str)]) -> Vec<String> {
        let root = std::env::temp_dir().join(format!("circles-{}-{name}", std::process::id()));
        for (name, text) in files {
            let path = root.join("k/src").join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        let found = Graph::read(&root, "k").expect("read").circles();
        fs::remove_dir_all(root).expect("removed");
        found.into_iter().collect()
    }

    #[test]
    fn a_circle_through_a_re_export_is_found() {
        let found = circles(
            "a",
            &[
                ("lib.rs", "mod a; mod b;"),
                ("a/mod.rs", "mod inner; pub(crate) use self::inner::X; pub(crate) fn f() {}"),
                ("a/inner.rs", "use crate::b::Y; pub(crate) struct X(Y);"),
                ("b.rs", "pub(crate) struct Y; fn g(_: crate::a::X) {}"),
            ],
        );
        assert_eq!(found, ["k/src/a/inner.rs k/src/b.rs"]);
    }

    #[test]
    fn tests_and_re_exports_make_no_circle() {
        let found = circles(
            "b",
            &[
                ("lib.rs", "mod a; mod b; mod c;"),
                ("a.rs", "use crate::b::Y; pub(crate) struct X(Y);"),
                ("b.rs", "pub(crate) struct Y; #[cfg(test)] mod tests { use crate::a::X; }"),
                ("c.rs", "pub(crate) use crate::a::X;"),
            ],
        );
        assert_eq!(found, Vec::<String>::new());
    }
}
