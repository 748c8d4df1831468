//! Prints the identity that AWS sees in this program's credentials, and where they come from.
//!
//! ```text
//! cargo run -p whoami                       like `aws sts get-caller-identity`
//! cargo run -p whoami -- --profile admin    with a profile; asks for an MFA code if it needs one
//! cargo run -p whoami -- --explain          every step of the chain, on standard error
//! cargo run -p whoami -- --plan             what would be tried, without network
//! cargo run -p whoami -- --list             like `aws configure list`
//! cargo run -p whoami -- --query Arn        a part of the answer, by JMESPath
//! ```

use std::io::{self, Write};
use std::process::ExitCode;

use aws_cred_chain::query::Query;
use aws_cred_chain::real::TerminalPrompt;
use aws_cred_chain::{Chain, Context, Error, Options, block_on, caller_identity, region};
use serde_json::json;

#[derive(Default)]
struct Arguments {
    options: Options,
    explain: bool,
    plan: bool,
    list: bool,
    query: Option<Query>,
    help: bool,
}

const USAGE: &str = "\
usage: whoami [--profile NAME] [--region NAME] [--endpoint-url URL] [--query JMESPATH]
              [--explain] [--plan | --list]

Says who AWS takes this program for. --explain tells every step on standard error, --plan what would be
tried (without network) and what is wrong with the files, --list the keys and the region in use.
";

fn main() -> ExitCode {
    let mut out = io::stdout().lock();
    let result = match arguments() {
        Ok(arguments) => block_on(run(&arguments, &mut out)),
        Err(problem) => Err(problem),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            // If standard error is closed, the message is lost.
            let _untold = writeln!(io::stderr(), "whoami: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments::default();
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let mut value = || given.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--profile" => arguments.options.profile = Some(value()?),
            "--region" => arguments.options.region = Some(value()?),
            "--endpoint-url" => arguments.options.endpoint_url = Some(value()?),
            "--explain" => arguments.explain = true,
            "--plan" => arguments.plan = true,
            "--list" => arguments.list = true,
            "--query" => {
                let query = Query::parse(&value()?).map_err(|error| error.report())?;
                arguments.query = Some(query);
            }
            "--help" | "-h" => arguments.help = true,
            other => return Err(format!("unknown argument {other}; see whoami --help")),
        }
    }
    Ok(arguments)
}

async fn run(arguments: &Arguments, out: &mut impl Write) -> Result<(), String> {
    if arguments.help {
        return out.write_all(USAGE.as_bytes()).map_err(|error| error.to_string());
    }
    let context = Context::real().with_prompt(TerminalPrompt);
    let options = arguments.options.clone();
    let chain = Chain::new(context.clone(), options.clone());
    let say = |error: Error| error.report();
    if arguments.plan {
        let plan = chain.plan().await.map_err(say)?;
        return write!(out, "{plan}").map_err(|error| error.to_string());
    }
    let resolved = chain.resolve().await;
    if arguments.explain {
        let trace = match &resolved {
            Ok(resolved) => &resolved.trace,
            Err(unresolved) => &unresolved.trace,
        };
        write!(io::stderr(), "{trace}").map_err(|error| error.to_string())?;
    }
    let credentials = resolved.map_err(|unresolved| unresolved.error.report())?.credentials;
    if arguments.list {
        let id = &credentials.access_key_id;
        let end = id.get(id.len().saturating_sub(4)..).unwrap_or_default();
        let source = credentials.source;
        let found = region(&context, &options, false).await.map_err(say)?;
        let (name, origin) = match found {
            Some((name, origin)) => (name, origin.to_string()),
            None => ("<not set>".to_owned(), "None".to_owned()),
        };
        let lines = format!(
            "access_key     {:>24} {source}\nregion         {name:>24} {origin}\n",
            format!("****************{end}")
        );
        return out.write_all(lines.as_bytes()).map_err(|error| error.to_string());
    }
    let identity = caller_identity(&context, &options, &credentials).await.map_err(say)?;
    let answer = json!({
        "UserId": identity.user_id,
        "Account": identity.account,
        "Arn": identity.arn,
    });
    let answer = match &arguments.query {
        Some(query) => query.evaluate(&answer).map_err(say)?,
        None => answer,
    };
    writeln!(out, "{answer:#}").map_err(|error| error.to_string())
}
