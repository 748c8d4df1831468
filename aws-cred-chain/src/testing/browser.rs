//! A scripted person with a browser, who logs in on every page that is shown.

use std::io;
use std::sync::{Arc, Mutex};

use super::Services;
use crate::base64::encode;
use crate::credentials::Secret;
use crate::world::login::{Awaited, ListenForRedirect, LoginPage, LoginPrompt, Redirect};
use crate::world::{BoxFuture, lock};

/// A login prompt for tests that logs in at the fake services. Clones share it.
///
/// On a page without a user code, the login happens at once, and the browser is then redirected
/// with an authorization code.
#[derive(Clone, Debug)]
pub struct ScriptedBrowser {
    services: Services,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    pages: Vec<LoginPage>,
    /// The query of the browser's redirect.
    query: Option<Secret>,
    refuses: bool,
}

impl ScriptedBrowser {
    pub(super) fn new(services: Services) -> Self {
        Self { services, seen: Arc::default() }
    }

    /// Makes the person refuse all logins from now on.
    pub fn refuse(&self) {
        lock(&self.seen).refuses = true;
    }

    /// Returns the pages that were shown.
    #[must_use]
    pub fn pages(&self) -> Vec<LoginPage> {
        lock(&self.seen).pages.clone()
    }
}

impl LoginPrompt for ScriptedBrowser {
    fn show<'a>(&'a self, page: &'a LoginPage) -> BoxFuture<'a, io::Result<()>> {
        let mut seen = lock(&self.seen);
        seen.pages.push(page.clone());
        if page.user_code.is_none() {
            seen.query = match seen.refuses {
                true => Some("error=access_denied".into()),
                false => self.services.authorize(&page.url).map(Secret::from),
            };
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn ask_code<'a>(&'a self, _: &'a LoginPage) -> BoxFuture<'a, io::Result<Secret>> {
        let query =
            lock(&self.seen).query.clone().ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
        let code = query.map(|query| Secret::from(encode(query.expose().as_bytes())));
        Box::pin(std::future::ready(code))
    }
}

impl ListenForRedirect for ScriptedBrowser {
    fn listen(&self) -> io::Result<Box<dyn Redirect>> {
        Ok(Box::new(Port(self.seen.clone())))
    }
}

struct Port(Arc<Mutex<Seen>>);

impl Redirect for Port {
    fn port(&self) -> u16 {
        49_152
    }

    fn query(
        self: Box<Self>,
        _: &'static str,
        awaited: Awaited,
    ) -> BoxFuture<'static, io::Result<Secret>> {
        Box::pin(async move {
            let query = lock(&self.0).query.clone().filter(|query| awaited(query.expose()));
            match query {
                Some(query) => Ok(query),
                None => std::future::pending().await,
            }
        })
    }
}
