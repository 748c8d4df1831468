//! TLS of the servers: a certificate and its key from files.

use std::path::PathBuf;

use lambda_host::http::{Server, Tls};

use crate::client::Error;

/// The files of a certificate and its key.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct TlsOptions {
    /// Serve TLS alone, with HTTP/2 and HTTP/1.1: the file of the certificate and those of its
    /// issuers, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The file of the certificate's private key, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
}

impl TlsOptions {
    /// Reads the files; nothing if none are named.
    pub(crate) fn read(&self) -> Result<Option<Tls>, Error> {
        let (Some(certificate), Some(key)) = (&self.tls_certificate, &self.tls_key) else {
            return Ok(None);
        };
        let read = |file: &PathBuf| {
            std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))
        };
        Ok(Some(Tls::from_pem(&read(certificate)?, &read(key)?)?))
    }
}

/// Returns the server with TLS, if there is a certificate.
pub(crate) fn over(server: Server, tls: Option<&Tls>) -> Server {
    match tls {
        Some(tls) => server.with_tls(tls.clone()),
        None => server,
    }
}

/// Returns the scheme of a server's address.
pub(crate) fn scheme(tls: Option<&Tls>) -> &'static str {
    if tls.is_some() { "https" } else { "http" }
}
