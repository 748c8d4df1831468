//! The traits by which a login reaches a person: the page to show, and the browser's redirect.

use std::fmt;
use std::io;

use super::BoxFuture;
use crate::credentials::Secret;

/// The page on which a person logs in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoginPage {
    /// The page's URL, `http` or `https`.
    pub url: String,
    /// The code that the person must compare with the page or enter there; `None` if the login has
    /// none.
    pub user_code: Option<String>,
    /// The page's URL with the code in it. The same as [`LoginPage::url`] if there is no code.
    pub url_with_code: String,
}

/// Shows login pages to a person.
pub trait LoginPrompt: fmt::Debug + Send + Sync {
    /// Shows the page, or opens it in a browser. Completes when the page is shown, not when the
    /// login is done.
    ///
    /// # Errors
    ///
    /// An error of the system if the page cannot be shown. It ends the login.
    fn show<'a>(&'a self, page: &'a LoginPage) -> BoxFuture<'a, io::Result<()>>;

    /// Asks for the text that the page shows after the login, for `ConsoleLogin::by_code`. Called
    /// after [`LoginPrompt::show`]. The default returns [`io::ErrorKind::Unsupported`].
    ///
    /// # Errors
    ///
    /// An error if the person cannot be asked or refuses.
    fn ask_code<'a>(&'a self, page: &'a LoginPage) -> BoxFuture<'a, io::Result<Secret>> {
        let _unused = page;
        Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
    }
}

/// Opens a port for the redirect of a browser on this machine.
pub trait ListenForRedirect: fmt::Debug + Send + Sync {
    /// Listens on a port of the loopback address 127.0.0.1.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn listen(&self) -> io::Result<Box<dyn Redirect>>;
}

/// Decides whether a query belongs to the awaited redirect of a login.
pub type Awaited = Box<dyn Fn(&str) -> bool + Send>;

/// A port to which a browser is redirected after a login. Dropping it closes the port.
pub trait Redirect: Send {
    /// Returns the port.
    fn port(&self) -> u16;

    /// Returns the query, without `?`, of the first request for `path` whose query `awaited`
    /// accepts. Answers that request with a page to read, and others with an error.
    ///
    /// # Errors
    ///
    /// Those of the system.
    fn query(
        self: Box<Self>,
        path: &'static str,
        awaited: Awaited,
    ) -> BoxFuture<'static, io::Result<Secret>>;
}
