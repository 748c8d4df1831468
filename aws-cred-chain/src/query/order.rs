//! `<`, `<=`, `>` and `>=` of strings: null by JMESPath's specification and in the `jmespath` crate,
//! the order of their characters in the AWS CLI, whose users compare dates so. Pure.

use jmespath::ast::{Ast, Comparator};
use jmespath::functions::{ArgumentType, CustomFunction, Signature};
use jmespath::{Rcvar, Runtime, Variable};

/// No expression can name these: a function's name has no blank.
const FUNCTIONS: [(&str, Comparator); 4] = [
    ("order <", Comparator::LessThan),
    ("order <=", Comparator::LessThanEqual),
    ("order >", Comparator::GreaterThan),
    ("order >=", Comparator::GreaterThanEqual),
];

/// Has the comparisons of order in `ast` done by functions of [`register`].
pub(super) fn mend(ast: &mut Ast) {
    match ast {
        Ast::Comparison { lhs, rhs, .. }
        | Ast::Projection { lhs, rhs, .. }
        | Ast::And { lhs, rhs, .. }
        | Ast::Or { lhs, rhs, .. }
        | Ast::Subexpr { lhs, rhs, .. } => {
            mend(lhs);
            mend(rhs);
        }
        Ast::Condition { predicate, then, .. } => {
            mend(predicate);
            mend(then);
        }
        Ast::Expref { ast: node, .. }
        | Ast::Flatten { node, .. }
        | Ast::Not { node, .. }
        | Ast::ObjectValues { node, .. } => mend(node),
        Ast::Function { args, .. } => args.iter_mut().for_each(mend),
        Ast::MultiList { elements, .. } => elements.iter_mut().for_each(mend),
        Ast::MultiHash { elements, .. } => {
            elements.iter_mut().for_each(|pair| mend(&mut pair.value));
        }
        Ast::Identity { .. }
        | Ast::Field { .. }
        | Ast::Index { .. }
        | Ast::Literal { .. }
        | Ast::Slice { .. } => {}
    }
    if let Ast::Comparison { offset, comparator, lhs, rhs } = ast
        && let Some((name, _)) = FUNCTIONS.iter().find(|(_, known)| known == comparator)
    {
        let offset = *offset;
        let take = |node: &mut Box<Ast>| std::mem::replace(&mut **node, Ast::Identity { offset });
        let args = vec![take(lhs), take(rhs)];
        *ast = Ast::Function { offset, name: (*name).to_owned(), args };
    }
}

/// Adds the functions that [`mend`] names.
pub(super) fn register(runtime: &mut Runtime) {
    for (name, comparator) in FUNCTIONS {
        let signature = Signature::new(vec![ArgumentType::Any, ArgumentType::Any], None);
        let function = move |arguments: &[Rcvar], _: &mut jmespath::Context<'_>| {
            let ordered = ordered(&arguments[0], &comparator, &arguments[1]);
            Ok(Rcvar::new(ordered.map_or(Variable::Null, Variable::Bool)))
        };
        runtime
            .register_function(name, Box::new(CustomFunction::new(signature, Box::new(function))));
    }
}

fn ordered(left: &Variable, comparator: &Comparator, right: &Variable) -> Option<bool> {
    let (Variable::String(left), Variable::String(right)) = (left, right) else {
        return left.compare(comparator, right);
    };
    Some(match comparator {
        Comparator::LessThan => left < right,
        Comparator::LessThanEqual => left <= right,
        Comparator::GreaterThan => left > right,
        Comparator::GreaterThanEqual => left >= right,
        Comparator::Equal => left == right,
        Comparator::NotEqual => left != right,
    })
}
