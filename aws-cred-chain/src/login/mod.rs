//! Logins of people: to IAM Identity Center with a device code or a browser (`aws sso login`), and
//! to the console (`aws login`).
//!
//! A login writes its token to the AWS CLI's cache, where chains, SDKs and the AWS CLI find it. A
//! [`LoginPrompt`] shows the page to the person, and a [`ListenForRedirect`] receives the browser's
//! redirect. [`crate::real::TerminalLogin`] and [`crate::real::Loopback`] implement them for this
//! machine.
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

/// The path of the redirect to this machine.
const REDIRECT_PATH: &str = "/oauth/callback";

/// Returns whether a redirect belongs to this login: its query has the state, or an error.
fn is_awaited(query: &str, state: &str) -> bool {
    member(query, "state").as_deref() == Some(state) || member(query, "error").is_some()
}

/// Returns the decoded value of a member of a query.
fn member(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()?;
    String::from_utf8(percent_decode(&value.replace('+', " "))).ok()
}

/// Shows the page to the person.
async fn show(prompt: &dyn LoginPrompt, page: &LoginPage) -> Result<(), Error> {
    for url in [&page.url, &page.url_with_code] {
        // The URL may be passed to a browser, so no other scheme is allowed.
        if !url.starts_with("https://") && !url.starts_with("http://") {
            return Err(Error::unexpected("login", "the service names a page that is none"));
        }
    }
    prompt.show(page).await.map_err(|error| Error::failed("showing the login page", error))
}

/// Shows the page and returns the authorization code of the browser's redirect.
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

/// Returns the authorization code in the query of a redirect.
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
