//! JMESPath on JSON, as in `--query`. The `jmespath` crate parses it, and this module evaluates it
//! as the Python implementation does. It is safe for untrusted input.
//!
//! The parser of the `jmespath` crate recurses with the expression, and a deep expression aborts
//! the process (20,000 nested parentheses). So the length, nesting and steps of an expression are
//! limited, and it is parsed and evaluated on a stack that is large enough for those limits. The
//! crate's own evaluation sorts the members of objects by name. Here they keep their order, and so
//! do the items of `*`, `keys` and `values`:
//! this feature turns on `serde_json`'s `preserve_order`.

mod bare;
mod compare;
mod evaluate;
pub mod filter;
mod functions;
mod node;
mod shorthand;

use std::borrow::Cow;
use std::sync::Arc;

use jmespath::ast::Ast;
use serde_json::Value;

use self::node::Node;

use crate::error::Error;
use crate::trace::Origin;

/// The longest expression in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 16 * 1024;
/// The deepest nesting of brackets in an expression.
pub const NESTING_MAX: usize = 64;
/// The most operators, such as `.`, `|` and `[`, in an expression.
pub const STEPS_MAX: usize = 512;
/// How many times larger than the data the result may become. Each of `[a, b]` and `{x: a, y: b}`
/// multiplies its input by its number of members.
pub const GROWTH_MAX: u64 = 4096;
/// The deepest nesting of the data. `serde_json`'s parser has the same limit.
pub const DATA_DEPTH_MAX: usize = 128;

/// A JMESPath expression.
#[derive(Clone)]
pub struct Query {
    expression: Arc<str>,
    node: Arc<Node>,
    /// The stack in bytes that its evaluation may need. Evaluation recurses at each step.
    stack_bytes: usize,
}

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query").field("expression", &self.expression).finish_non_exhaustive()
    }
}

impl Query {
    /// Parses an expression and checks it against the limits of this module.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if it is not JMESPath or exceeds a limit of this module.
    pub fn parse(expression: &str) -> Result<Self, Error> {
        let steps = check_limits(expression)
            .map_err(|problem| Error::invalid(problem, Origin::Option("query")))?;
        let stack_bytes = STACK_BYTES_LEAST + steps * STACK_BYTES_PER_STEP;
        let (growth, node) = with_stack(stack_bytes, || compile(expression))?;
        if growth > GROWTH_MAX {
            let problem = format!("query may make data more than {GROWTH_MAX} times larger");
            return Err(Error::invalid(problem, Origin::Option("query")));
        }
        Ok(Self { expression: expression.into(), node: Arc::new(node), stack_bytes })
    }

    /// Evaluates the expression on `data`.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if a function gets an argument of a wrong type, or `data` is nested
    /// deeper than [`DATA_DEPTH_MAX`].
    pub fn evaluate(&self, data: &Value) -> Result<Value, Error> {
        with_stack(self.stack_bytes, || self.evaluate_here(data))
    }

    fn evaluate_here(&self, data: &Value) -> Result<Value, Error> {
        let invalid = |problem: String| Error::invalid(problem, Origin::Option("query"));
        if !is_shallow(data, DATA_DEPTH_MAX) {
            return Err(invalid(format!("data is nested deeper than {DATA_DEPTH_MAX}")));
        }
        let found = evaluate::evaluate(&self.node, Cow::Borrowed(data)).map_err(invalid)?;
        Ok(found.into_owned())
    }
}

/// Runs `work` with at least `bytes` of stack: on this thread if it has as much left, else on a new
/// stack.
fn with_stack<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(bytes, bytes, work)
}

/// Enough stack for any expression without steps, on data of the allowed depth.
const STACK_BYTES_LEAST: usize = 512 * 1024;
/// One and a half times the stack that a step takes in a build without optimisation.
const STACK_BYTES_PER_STEP: usize = 48 * 1024;

/// Parses an expression. Also returns the factor by which it may make its result larger than the
/// data.
fn compile(expression: &str) -> Result<(u64, Node), Error> {
    let text = bare::quoted(expression);
    let ast = jmespath::parse(&text).map_err(|error| {
        let problem = crate::source::text::short(&error.to_string());
        Error::invalid(problem, Origin::Option("query"))
    })?;
    Ok((growth(&ast), Node::new(&ast, &text)))
}

/// Checks the length, nesting and steps of an expression, and returns the number of steps.
/// Characters in quotes do not count.
fn check_limits(expression: &str) -> Result<usize, String> {
    if expression.len() > EXPRESSION_BYTES_MAX {
        return Err(format!("query is longer than {EXPRESSION_BYTES_MAX} bytes"));
    }
    let (mut nesting, mut steps, mut digits) = (0_usize, 0_usize, 0_usize);
    let mut quote = None;
    let mut escaped = false;
    for byte in expression.bytes() {
        if let Some(end) = quote {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                _ if byte == end => quote = None,
                // JSON in backticks is nested too.
                b'[' | b'{' if end == b'`' => steps += 1,
                _ => {}
            }
            continue;
        }
        digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
        match byte {
            b'\'' | b'"' | b'`' => quote = Some(byte),
            b'(' | b'[' | b'{' => {
                nesting += 1;
                steps += 1;
            }
            b')' | b']' | b'}' => nesting = nesting.saturating_sub(1),
            b'.' | b'|' | b'&' | b'!' | b'<' | b'>' | b'=' | b'*' => steps += 1,
            _ => {}
        }
        if nesting > NESTING_MAX || steps > STEPS_MAX {
            return Err(too_deep());
        }
        if digits > 9 {
            return Err(
                "query has a number of more than nine digits outside of a literal".to_owned()
            );
        }
    }
    // The steps may have been counted last in a literal, where the loop does not check them.
    if steps > STEPS_MAX { Err(too_deep()) } else { Ok(steps) }
}

fn too_deep() -> String {
    format!("query nests deeper than {NESTING_MAX} or takes more than {STEPS_MAX} steps")
}

/// Returns an upper bound of the copies of its input that an expression puts into its result.
fn growth(ast: &Ast) -> u64 {
    let product = |parts: [&Ast; 2]| growth(parts[0]).saturating_mul(growth(parts[1]));
    match ast {
        Ast::MultiList { elements, .. } => {
            elements.iter().map(growth).fold(0, u64::saturating_add).max(1)
        }
        Ast::MultiHash { elements, .. } => {
            elements.iter().map(|pair| growth(&pair.value)).fold(0, u64::saturating_add).max(1)
        }
        Ast::Function { args, .. } => args.iter().map(growth).fold(1, u64::saturating_mul),
        Ast::Comparison { lhs, rhs, .. }
        | Ast::Projection { lhs, rhs, .. }
        | Ast::And { lhs, rhs, .. }
        | Ast::Or { lhs, rhs, .. }
        | Ast::Subexpr { lhs, rhs, .. } => product([lhs, rhs]),
        Ast::Condition { predicate, then, .. } => product([predicate, then]),
        Ast::Expref { ast, .. } => growth(ast),
        Ast::Flatten { node, .. } | Ast::Not { node, .. } | Ast::ObjectValues { node, .. } => {
            growth(node)
        }
        Ast::Identity { .. }
        | Ast::Field { .. }
        | Ast::Index { .. }
        | Ast::Literal { .. }
        | Ast::Slice { .. } => 1,
    }
}

fn is_shallow(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => depth > 0 && items.iter().all(|item| is_shallow(item, depth - 1)),
        Value::Object(map) => depth > 0 && map.values().all(|item| is_shallow(item, depth - 1)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(expression: &str, data: &Value, expected: &Value) {
        assert_eq!(
            &Query::parse(expression).unwrap().evaluate(data).unwrap(),
            expected,
            "{expression}"
        );
    }

    #[test]
    fn numbers_stay_whole() {
        let data = json!({"a": [1, -2, 4], "b": [1.5], "c": []});
        check("sum(a)", &data, &json!(3));
        check("abs(a[1])", &data, &json!(2));
        check("ceil(b[0])", &data, &json!(2));
        check("floor(b[0])", &data, &json!(1));
        check("avg(a)", &data, &json!(1.0));
        check("avg(c)", &data, &Value::Null);
        check("sum(b)", &data, &json!(1.5));
    }

    #[test]
    fn members_keep_their_order() {
        let data: Value = serde_json::from_str(r#"{"b": {"z": 1, "a": 2}, "a": 3}"#).unwrap();
        for (expression, expected) in [
            ("@", r#"{"b":{"z":1,"a":2},"a":3}"#),
            ("keys(@)", r#"["b","a"]"#),
            ("values(b)", "[1,2]"),
            ("b.*", "[1,2]"),
            ("{y: a, x: b}", r#"{"y":3,"x":{"z":1,"a":2}}"#),
            ("merge(@, {c: a, b: a})", r#"{"b":3,"a":3,"c":3}"#),
            ("`{\"d\": 1, \"c\": \"\\`\"}`", r#"{"d":1,"c":"`"}"#),
            ("to_string(b)", r#""{\"z\":1,\"a\":2}""#),
        ] {
            let found = Query::parse(expression).unwrap().evaluate(&data).unwrap();
            assert_eq!(found.to_string(), expected, "{expression}");
        }
    }

    /// Multi-selects in a row double the data each, until memory is full. Found by the fuzzer.
    #[test]
    fn expressions_that_multiply_the_data_are_refused() {
        for bomb in [
            "[@,@]".to_owned() + &"|[@,@]".repeat(20),
            "[@,@][]".to_owned() + &".[@,@][]".repeat(20),
            "[@,@]".to_owned() + &".{a: @, b: @}".repeat(20),
            format!("map(&{}, @)", "[@,@]".to_owned() + &"|[@,@]".repeat(20)),
            format!("[{}]", ["@"; 80].join(",")).repeat(4),
        ] {
            assert!(Query::parse(&bomb).is_err(), "{bomb}");
        }
        let ordinary = "Reservations[].Instances[].[InstanceId, Tags[?Key=='Name']|[0].Value, \
                        {state: State.Name, type: InstanceType}]";
        assert!(Query::parse(ordinary).is_ok());
    }

    /// The `jmespath` crate aborts the process on each of these. Allowed expressions run on a
    /// thread with a small stack.
    #[test]
    fn deep_expressions_are_refused_and_allowed_ones_are_harmless() {
        let deep = [
            format!("{}a{}", "(".repeat(20_000), ")".repeat(20_000)),
            "a".to_owned() + &".a".repeat(50_000),
            "a".to_owned() + &"[0]".repeat(50_000),
            "a".to_owned() + &"|a".repeat(50_000),
            "!".repeat(50_000) + "a",
            "&".repeat(50_000) + "a",
            format!("`{}`", "[".repeat(10_000)),
            "a[99999999999999999999]".to_owned(),
        ];
        for expression in deep {
            assert!(Query::parse(&expression).is_err());
        }
        let worst = [
            "a".to_owned() + &".a".repeat(STEPS_MAX),
            "a".to_owned() + &"|a".repeat(STEPS_MAX),
            "a".to_owned() + &"[]".repeat(STEPS_MAX),
            "!".repeat(STEPS_MAX) + "a",
            format!("{}a{}", "(".repeat(NESTING_MAX), ")".repeat(NESTING_MAX)),
            "a".to_owned() + &"||a".repeat(STEPS_MAX / 2),
            "a".to_owned() + &"<a".repeat(STEPS_MAX),
            "a".to_owned() + &"[?a<a]".repeat(STEPS_MAX / 2),
        ];
        let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
            for expression in worst {
                let query = Query::parse(&expression).unwrap();
                query.evaluate(&json!({"a": [[[1]]]})).unwrap();
            }
        });
        thread.unwrap().join().unwrap();
        let mut data = json!(1);
        for _ in 0..200 {
            data = json!([data]);
        }
        assert!(Query::parse("@").unwrap().evaluate(&data).is_err());
    }
}
