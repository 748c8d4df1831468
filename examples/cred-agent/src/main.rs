//! Serves the credentials of one profile to every AWS SDK on this machine, by the protocol of the
//! container credentials endpoint. A person enters an MFA code once for all programs.
//!
//! ```text
//! cargo run -p cred-agent -- [--profile NAME] [--port NUMBER] [PROGRAM [ARGUMENT..]]
//! ```
//!
//! With a program, the agent runs it with the variables of the endpoint set, and ends when it ends.
//! Without a program, the agent prints the two variables and serves until it is killed. It listens
//! on the loopback address alone, and answers only requests that have the token.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

mod serve;

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, ExitCode};

use aws_cred_chain::real::TerminalPrompt;
use aws_cred_chain::{Cache, Chain, Context, Options, Source};

const URL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cred-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    profile: Option<String>,
    port: u16,
    program: Vec<String>,
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments { profile: None, port: 0, program: Vec::new() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--profile" => arguments.profile = Some(value()?),
            "--port" => arguments.port = value()?.parse().map_err(|_| "not a port".to_owned())?,
            _ => {
                arguments.program.push(word);
                arguments.program.extend(words);
                break;
            }
        }
    }
    Ok(arguments)
}

fn run() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let arguments = arguments()?;
    // The variables in this environment may be those of another agent. The container source is left
    // out, so that an agent never asks an agent.
    let mut options = Options::default().without(Source::Container);
    options.profile = arguments.profile;
    let context = Context::real().with_prompt(TerminalPrompt);
    let cache = Cache::new(context.clone(), Chain::new(context, options));
    let token = serve::token()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.port))?;
    let url = format!("http://{}/credentials", listener.local_addr()?);
    let Some((program, rest)) = arguments.program.split_first() else {
        println!("export {URL}={url}\nexport {TOKEN}={token}");
        serve::serve(&listener, &cache, &token);
        return Ok(ExitCode::SUCCESS);
    };
    let expected = token.clone();
    std::thread::spawn(move || serve::serve(&listener, &cache, &expected));
    let mut command = Command::new(program);
    // An SDK asks these sources before the container endpoint. They are removed, so that it asks
    // the agent.
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"] {
        command.env_remove(name);
    }
    command.env_remove("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let status = command.args(rest).env(URL, url).env(TOKEN, token).status()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}
