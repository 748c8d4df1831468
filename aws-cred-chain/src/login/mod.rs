//! Logins of people: IAM Identity Center by a device's code or a browser (`aws sso login`), and the console's
//! (`aws login`).
//!
//! A login leaves its token where the AWS CLI leaves it, so that chains, SDKs and the AWS CLI find it. What a
//! person sees is a [`LoginPrompt`]'s; how a browser's answer comes back is a [`ListenForRedirect`]'s:
//! [`crate::real::TerminalLogin`] and [`crate::real::Loopback`] are those of this machine.
//!
//! ```
//! use aws_cred_chain::login::SsoLogin;
//! use aws_cred_chain::real::{Loopback, TerminalLogin};
//! use aws_cred_chain::{Context, Options};
//!
//! # async fn example() -> Result<(), aws_cred_chain::Error> {
//! let options = Options::default().with_profile("work");
//! let login = SsoLogin::of_profile(Context::real(), options).await?;
//! login.by_browser(&TerminalLogin::new(), &Loopback).await?;
//! // Where no browser of this machine can be used:
//! login.by_device(&TerminalLogin::new().without_browser()).await?;
//! # Ok(())
//! # }
//! ```

mod console;
mod pkce;
mod sso;

pub use console::{ConsoleLogin, LoginSession};
pub use sso::SsoLogin;

pub use crate::world::login::{Awaited, ListenForRedirect, LoginPage, LoginPrompt, Redirect};

use crate::credentials::Secret;
use crate::error::Error;
use crate::settings::budget::within;
use crate::settings::run::Run;
use crate::sign::percent_decode;

/// The path that a browser is sent back to.
const REDIRECT_PATH: &str = "/oauth/callback";

/// Returns whether a redirect's query is the awaited one: it has the state, or an error.
fn is_awaited(query: &str, state: &str) -> bool {
    member(query, "state").as_deref() == Some(state) || member(query, "error").is_some()
}

/// Returns a member of a query.
fn member(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()?;
    String::from_utf8(percent_decode(&value.replace('+', " "))).ok()
}

/// Shows the page.
async fn show(prompt: &dyn LoginPrompt, page: &LoginPage) -> Result<(), Error> {
    for url in [&page.url, &page.url_with_code] {
        // It may be given to a browser: no other kind of address.
        if !url.starts_with("https://") && !url.starts_with("http://") {
            return Err(Error::unexpected("login", "the service names a page that is none"));
        }
    }
    prompt.show(page).await.map_err(|error| Error::failed("showing the login page", error))
}

/// Shows the page and returns the code with which the browser comes back.
async fn code_of_browser(
    run: &Run<'_>,
    prompt: &dyn LoginPrompt,
    redirect: Box<dyn Redirect>,
    page: &LoginPage,
    state: &Secret,
) -> Result<Secret, Error> {
    show(prompt, page).await?;
    let budget = run.options.prompt_limit();
    let awaited = state.clone();
    let query = within(
        &*run.context.clock,
        budget,
        redirect.query(REDIRECT_PATH, Box::new(move |query| is_awaited(query, awaited.expose()))),
    );
    let query = query
        .await
        .ok_or_else(|| Error::TimedOut { operation: "login in the browser".to_owned(), budget })?
        .map_err(|error| Error::failed("waiting for the browser", error))?;
    code(query.expose(), state.expose())
}

/// Returns the code of the query of a redirect.
fn code(query: &str, state: &str) -> Result<Secret, Error> {
    let what = "login in the browser";
    if let Some(error) = member(query, "error") {
        let text: String = error.chars().filter(|c| !c.is_control()).take(100).collect();
        return Err(Error::unexpected(what, format!("it was refused: {text}")));
    }
    if member(query, "state").as_deref() != Some(state) {
        return Err(Error::unexpected(what, "the answer is that of another login"));
    }
    let code = member(query, "code").filter(|code| !code.is_empty());
    code.map(Secret::from).ok_or_else(|| Error::unexpected(what, "the answer has no code"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_that_of_this_login_or_a_refusal() {
        assert!(is_awaited("code=c&state=s", "s"));
        assert!(is_awaited("error=access_denied", "s"));
        assert!(!is_awaited("code=c&state=t", "s"));
        assert!(!is_awaited("", "s"));
        assert_eq!(code("code=a%2Bb&state=s", "s").unwrap().expose(), "a+b");
        for bad in ["code=c&state=t", "state=s", "code=&state=s", "error=x&code=c&state=s"] {
            assert!(code(bad, "s").is_err(), "{bad}");
        }
    }
}
