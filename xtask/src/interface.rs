//! The public interface of each crate, kept as a file in the tree, so that a commit shows each
//! change.
//!
//! All `pub` items are listed. Because the lint `unreachable_pub` is on, each of them is public.

use std::fs;
use std::path::Path;

use quote::ToTokens;

use crate::steps::CRATES;

/// Compares each crate's interface with `xtask/interface/CRATE.txt`. With `write`, updates the
/// files instead. Returns whether the files agree with the code.
pub(crate) fn check(root: &Path, write: bool) -> bool {
    let mut agree = true;
    for krate in CRATES {
        let found = match interface(root, krate) {
            Ok(lines) => lines.join("\n") + "\n",
            Err(error) => {
                println!("{error}");
                return false;
            }
        };
        let path = root.join(format!("xtask/interface/{krate}.txt"));
        let kept = fs::read_to_string(&path).unwrap_or_default();
        if kept == found {
            continue;
        }
        if write {
            if let Err(error) = fs::write(&path, &found) {
                println!("{}: {error}", path.display());
                agree = false;
            }
            continue;
        }
        agree = false;
        show_difference(krate, &kept, &found);
    }
    agree
}

fn show_difference(krate: &str, kept: &str, found: &str) {
    println!("{krate}: the public interface changed; `cargo xtask interface` writes it anew");
    let (kept, found): (Vec<&str>, Vec<&str>) = (kept.lines().collect(), found.lines().collect());
    for line in kept.iter().filter(|line| !found.contains(line)) {
        println!("- {line}");
    }
    for line in found.iter().filter(|line| !kept.contains(line)) {
        println!("+ {line}");
    }
}

/// Returns one line for each public item of a crate, sorted.
fn interface(root: &Path, krate: &str) -> Result<Vec<String>, String> {
    let source = root.join(krate).join("src");
    let mut files = Vec::new();
    collect(&source, &mut files)?;
    let mut lines = Vec::new();
    for file in files {
        let text =
            fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let parsed =
            syn::parse_file(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        parsed.items.into_iter().for_each(|item| add(item, &mut lines));
    }
    lines.sort();
    lines.dedup();
    Ok(lines)
}

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) -> Result<(), String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for entry in entries {
        let path = entry.map_err(|error| format!("{}: {error}", folder.display()))?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|it| it == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Appends the lines of an item and of its public members.
fn add(item: syn::Item, lines: &mut Vec<String>) {
    match item {
        syn::Item::Fn(item) if public(&item.vis) => lines.push(text(&item.sig)),
        syn::Item::Struct(mut item) if public(&item.vis) => {
            let fields = std::mem::replace(&mut item.fields, syn::Fields::Unit);
            item.attrs.retain(kept);
            lines.push(text(&item));
            for field in fields.into_iter().filter(|field| public(&field.vis)) {
                let name = field.ident.map_or_else(|| "0".to_owned(), |it| it.to_string());
                lines.push(format!("struct {} . {name} : {}", item.ident, text(&field.ty)));
            }
        }
        syn::Item::Enum(mut item) if public(&item.vis) => {
            item.attrs.retain(kept);
            for variant in &mut item.variants {
                variant.attrs.clear();
                variant.fields.iter_mut().for_each(|field| field.attrs.clear());
            }
            lines.push(text(&item));
        }
        syn::Item::Trait(mut item) if public(&item.vis) => {
            item.attrs.clear();
            for part in &mut item.items {
                if let syn::TraitItem::Fn(function) = part {
                    function.attrs.clear();
                    if function.default.is_some() {
                        function.default = Some(syn::parse_quote!({}));
                    }
                }
            }
            lines.push(text(&item));
        }
        syn::Item::Impl(item) if item.trait_.is_none() => {
            let of = format!("impl {} {}", text(&item.generics), text(&item.self_ty));
            for part in item.items {
                match part {
                    syn::ImplItem::Fn(part) if public(&part.vis) => {
                        lines.push(format!("{of} . {}", text(&part.sig)));
                    }
                    syn::ImplItem::Const(part) if public(&part.vis) => {
                        lines.push(format!("{of} . const {} : {}", part.ident, text(&part.ty)));
                    }
                    _ => {}
                }
            }
        }
        syn::Item::Impl(item) => {
            if let Some((_, name, _)) = &item.trait_ {
                lines.push(format!("impl {} for {}", text(name), text(&item.self_ty)));
            }
        }
        syn::Item::Const(item) if public(&item.vis) => {
            lines.push(format!("const {} : {}", item.ident, text(&item.ty)));
        }
        syn::Item::Type(item) if public(&item.vis) => lines.push(text(&item)),
        syn::Item::Use(item) if public(&item.vis) => lines.push(text(&item.tree)),
        syn::Item::Mod(item) if public(&item.vis) => lines.push(format!("mod {}", item.ident)),
        _ => {}
    }
}

fn public(visibility: &syn::Visibility) -> bool {
    matches!(visibility, syn::Visibility::Public(_))
}

/// Returns whether an attribute is part of the interface: derived traits, and `non_exhaustive`.
fn kept(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("derive") || attribute.path().is_ident("non_exhaustive")
}

fn text(tokens: &impl ToTokens) -> String {
    tokens.to_token_stream().to_string()
}
