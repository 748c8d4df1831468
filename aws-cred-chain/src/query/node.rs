//! The form of an expression that is evaluated. It is made from the syntax tree of the `jmespath`
//! crate, which loses the order of members in literals; here that order is restored. Pure.

use jmespath::Variable;
use jmespath::ast::{Ast, Comparator};
use serde_json::Value;

/// A part of an expression.
#[derive(Debug)]
pub(super) enum Node {
    /// `@`: the value on which the expression is evaluated.
    Current,
    Field(String),
    Index(i32),
    Slice {
        start: Option<i32>,
        stop: Option<i32>,
        step: i32,
    },
    Literal(Value),
    /// `[a, b]`: a list of the values of expressions.
    List(Vec<Self>),
    /// `{x: a, y: b}`: an object of the values of expressions.
    Object(Vec<(String, Self)>),
    Not(Box<Self>),
    And(Box<[Self; 2]>),
    Or(Box<[Self; 2]>),
    Compare(Comparator, Box<[Self; 2]>),
    /// Evaluates the second node on the value of the first: `a.b`, `a | b`.
    Then(Box<[Self; 2]>),
    /// Evaluates the second node on each item of the first's value: `a[*].b`.
    Each(Box<[Self; 2]>),
    /// The value of the second node if the first is true, else null.
    If(Box<[Self; 2]>),
    /// `[]`
    Flatten(Box<Self>),
    /// The values of an object: `a.*`.
    Values(Box<Self>),
    /// The values of the current object: `*` at the beginning of an expression.
    Star,
    Call(String, Vec<Self>),
    /// `&a`: an expression that a function evaluates.
    Reference(Box<Self>),
}

impl Node {
    /// Converts a syntax tree of the expression `text`.
    pub(super) fn new(ast: &Ast, text: &str) -> Self {
        let node = |ast: &Ast| Box::new(Self::new(ast, text));
        let pair = |a: &Ast, b: &Ast| Box::new([Self::new(a, text), Self::new(b, text)]);
        match ast {
            Ast::Identity { .. } => Self::Current,
            Ast::Field { name, .. } => Self::Field(name.clone()),
            Ast::Index { idx, .. } => Self::Index(*idx),
            Ast::Slice { start, stop, step, .. } => {
                Self::Slice { start: *start, stop: *stop, step: *step }
            }
            Ast::Literal { offset, value } => Self::Literal(literal(value, text, *offset)),
            Ast::MultiList { elements, .. } => {
                Self::List(elements.iter().map(|ast| Self::new(ast, text)).collect())
            }
            Ast::MultiHash { elements, .. } => {
                let members = elements.iter();
                Self::Object(
                    members.map(|it| (it.key.clone(), Self::new(&it.value, text))).collect(),
                )
            }
            Ast::Not { node: of, .. } => Self::Not(node(of)),
            Ast::And { lhs, rhs, .. } => Self::And(pair(lhs, rhs)),
            Ast::Or { lhs, rhs, .. } => Self::Or(pair(lhs, rhs)),
            Ast::Comparison { comparator, lhs, rhs, .. } => {
                Self::Compare(comparator.clone(), pair(lhs, rhs))
            }
            Ast::Subexpr { lhs, rhs, .. } => match Self::new(lhs, text) {
                left if left.is_index() => {
                    Self::Then(Box::new([left, not_each(Self::new(rhs, text))]))
                }
                left => Self::Then(Box::new([left, Self::new(rhs, text)])),
            },
            Ast::Projection { lhs, rhs, .. } => match Self::new(lhs, text) {
                values @ Self::Values(_) => values_of_each(values, Self::new(rhs, text)),
                items => Self::Each(Box::new([items, Self::new(rhs, text)])),
            },
            Ast::Condition { predicate, then, .. } => Self::If(pair(predicate, then)),
            Ast::Flatten { node: of, .. } => Self::Flatten(node(of)),
            Ast::ObjectValues { node: of, .. } => match **of {
                // `*` alone and `@.*` have the same syntax tree, but are different nodes here.
                Ast::Identity { offset } if text.as_bytes().get(offset) != Some(&b'@') => {
                    Self::Star
                }
                _ => Self::Values(node(of)),
            },
            Ast::Function { name, args, .. } => {
                Self::Call(name.clone(), args.iter().map(|ast| Self::new(ast, text)).collect())
            }
            Ast::Expref { ast, .. } => Self::Reference(node(ast)),
        }
    }
}

impl Node {
    /// Returns whether the last step is an index such as `[0]`, or a slice after an index.
    fn is_index(&self) -> bool {
        match self {
            Self::Index(_) => true,
            Self::Then(pair) => match &pair[1] {
                Self::Index(_) | Self::Slice { .. } => true,
                other => pair[0].is_index() && other.is_index(),
            },
            _ => false,
        }
    }
}

/// Applies what follows a slice to the slice itself, not to each of its items. The Python
/// implementation does so if the slice follows an index, as in `a[0][1:].b`.
fn not_each(node: Node) -> Node {
    match node {
        Node::Each(pair) if matches!(pair[0], Node::Slice { .. }) => {
            let [slice, rest] = *pair;
            Node::Then(Box::new([slice, not_each(rest)]))
        }
        other => other,
    }
}

/// Joins `a.*` and what follows it. The Python implementation applies to each value only the steps
/// up to the next `.`, filter or `.*`: it reads `a.*.b.c` as `(a.*.b).c`, which is null. The
/// `jmespath` crate applies all steps to each value, as is right after `a[*]` and `*`.
fn values_of_each(values: Node, mut rest: Node) -> Node {
    match innermost(&mut rest) {
        Some(first) => {
            let of_each = std::mem::replace(first, Node::Current);
            *first = Node::Each(Box::new([values, of_each]));
            rest
        }
        None => Node::Each(Box::new([values, rest])),
    }
}

/// Returns the operand of the leftmost `.`, filter or `.*` of a chain of steps.
fn innermost(node: &mut Node) -> Option<&mut Node> {
    let (left, ends) = step(node)?;
    match step(left).is_some() && has_end(left) {
        true => innermost(left),
        false => ends.then_some(left),
    }
}

fn has_end(node: &mut Node) -> bool {
    step(node).is_some_and(|(left, ends)| ends || has_end(left))
}

/// Returns the operand of the last step of a chain, and whether that step ends what is applied to
/// each value.
fn step(node: &mut Node) -> Option<(&mut Node, bool)> {
    match node {
        Node::Then(pair) => {
            let [left, right] = &mut **pair;
            // `[0]` and `[1:]` bind tighter than `.`.
            let bracket = match right {
                Node::Index(_) => true,
                Node::Each(pair) => matches!(pair[0], Node::Slice { .. }),
                _ => false,
            };
            Some((left, !bracket))
        }
        Node::Each(pair) => {
            let [left, right] = &mut **pair;
            match left {
                Node::Values(left) => Some((left, true)),
                Node::Current | Node::Star | Node::Slice { .. } | Node::Flatten(_) => None,
                left => Some((left, matches!(right, Node::If(_)))),
            }
        }
        _ => None,
    }
}

/// Returns a literal's value. A literal that holds objects is parsed again from its place in
/// `text`.
fn literal(value: &Variable, text: &str, offset: usize) -> Value {
    let again = match value {
        Variable::Object(_) | Variable::Array(_) => text.get(offset..).and_then(read),
        _ => None,
    };
    again.or_else(|| serde_json::to_value(value).ok()).unwrap_or_default()
}

/// Parses the JSON between the backticks at the start of `text`.
fn read(text: &str) -> Option<Value> {
    let text = text.strip_prefix('`')?;
    let mut json = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '`' => return serde_json::from_str(&json).ok(),
            '\\' => match chars.next()? {
                '`' => json.push('`'),
                other => json.extend(['\\', other]),
            },
            other => json.push(other),
        }
    }
}
