//! Shows a login's page on the terminal and in a browser of this machine.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use super::TerminalPrompt;
use crate::credentials::Secret;
use crate::world::login::{LoginPage, LoginPrompt};
use crate::world::{BoxFuture, Prompt as _, Question};

/// Writes the URL of a login's page to standard error and opens it in the person's browser.
///
/// The browser is started with `xdg-open` (`open` on macOS) and outlives this process. If it cannot
/// be started, that is not an error: the URL is on the terminal.
#[derive(Clone, Copy, Debug)]
pub struct TerminalLogin {
    browser: bool,
}

impl Default for TerminalLogin {
    fn default() -> Self {
        Self::new()
    }
}

impl TerminalLogin {
    /// Returns a prompt that opens a browser.
    #[must_use]
    pub fn new() -> Self {
        Self { browser: true }
    }

    /// Does not open a browser.
    #[must_use]
    pub fn without_browser(mut self) -> Self {
        self.browser = false;
        self
    }
}

impl LoginPrompt for TerminalLogin {
    fn show<'a>(&'a self, page: &'a LoginPage) -> BoxFuture<'a, io::Result<()>> {
        let shown = text(page);
        let written = io::stderr().write_all(shown.as_bytes());
        if self.browser {
            open(&page.url_with_code);
        }
        Box::pin(std::future::ready(written))
    }

    fn ask_code<'a>(&'a self, _: &'a LoginPage) -> BoxFuture<'a, io::Result<Secret>> {
        let text = "Enter the authorization code displayed in your browser: ".to_owned();
        let question = Question { mfa_serial: String::new(), profile: None, text };
        Box::pin(async move { TerminalPrompt.ask(question).await })
    }
}

fn text(page: &LoginPage) -> String {
    // Control characters from the service must not reach the terminal.
    let plain = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let url = plain(&page.url);
    match &page.user_code {
        None => format!("Log in on this page:\n\n  {url}\n\n"),
        Some(code) => format!(
            "Log in on this page:\n\n  {url}\n\nwith the code:\n\n  {}\n\nOr on this one, which has the \
             code:\n\n  {}\n\n",
            plain(code),
            plain(&page.url_with_code)
        ),
    }
}

/// Starts a browser. A thread reaps the program that starts it.
fn open(url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = Command::new(program);
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Ok(mut child) = command.spawn() {
        let _no_zombie = std::thread::Builder::new().spawn(move || child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_shown_with_its_code_and_without_control_characters() {
        let url = "https://device.example/".to_owned();
        let with_code = format!("{url}?user_code=AB");
        let page =
            LoginPage { url, user_code: Some("AB\u{1b}[2J".to_owned()), url_with_code: with_code };
        let shown = text(&page);
        assert!(shown.contains("https://device.example/?user_code=AB") && shown.contains("AB[2J"));
        assert!(!shown.contains('\u{1b}'), "{shown:?}");
    }
}
