//! The parts of a login that reach a person: the page that is shown, and the redirect of the browser.

use std::fmt;
use std::io;

use super::BoxFuture;
use crate::credentials::Secret;

/// The page on which a person logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoginPage {
    /// The page's address, `http` or `https`.
    pub url: String,
    /// The code that the person must find on the page, or enter; `None` where there is none.
    pub user_code: Option<String>,
    /// The page's address with the code in it. It is [`LoginPage::url`] where there is no code.
    pub url_with_code: String,
}

/// Shows a person where to log in.
pub trait LoginPrompt: fmt::Debug + Send + Sync {
    /// Shows the page, or opens it in a browser. Completes when it is shown, not when the person is done.
    ///
    /// # Errors
    ///
    /// Where it cannot be shown; that ends the login.
    fn show<'a>(&'a self, page: &'a LoginPage) -> BoxFuture<'a, io::Result<()>>;

    /// Returns the text that the page shows after the login, for `ConsoleLogin::by_code`. Asked for after
    /// [`LoginPrompt::show`]. The default says that nobody can be asked.
    ///
    /// # Errors
    ///
    /// Where nobody can be asked, or the person refuses.
    fn ask_code<'a>(&'a self, page: &'a LoginPage) -> BoxFuture<'a, io::Result<Secret>> {
        let _unused = page;
        Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
    }
}

/// Begins to wait for a browser on this machine.
pub trait ListenForRedirect: fmt::Debug + Send + Sync {
    /// Listens on a port of the loopback address 127.0.0.1.
    ///
    /// # Errors
    ///
    /// As the system gives them.
    fn listen(&self) -> io::Result<Box<dyn Redirect>>;
}

/// Returns whether a query is that of the login's redirect.
pub type Awaited = Box<dyn Fn(&str) -> bool + Send>;

/// A port to which a browser is sent back after a login. Dropped, it is closed.
pub trait Redirect: Send {
    /// Returns the port.
    fn port(&self) -> u16;

    /// Returns the query, without `?`, of the first request for `path` whose query is `awaited`. Answers
    /// others with an error, and the one with a page to read.
    ///
    /// # Errors
    ///
    /// As the system gives them.
    fn query(
        self: Box<Self>,
        path: &'static str,
        awaited: Awaited,
    ) -> BoxFuture<'static, io::Result<Secret>>;
}
