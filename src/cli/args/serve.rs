//! Arguments of `pm serve`.

use clap::Args;

use crate::config::Flags;

#[derive(Debug, Args)]
pub(in crate::cli) struct Serve {
    /// Address and port to listen on; port 0 selects a free port
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Encrypt connections with the certificate in FILE
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// The certificate's private key
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// Images processed at a time
    #[arg(long, value_name = "N", conflicts_with = "no_worker")]
    workers: Option<String>,
    /// Do not process images; `pm worker` does
    #[arg(long)]
    no_worker: bool,
}

impl Serve {
    /// Copies these arguments to the settings.
    pub(in crate::cli) fn set(&self, flags: &mut Flags) {
        flags.listen = self.listen.clone();
        flags.tls_cert = self.tls_cert.clone();
        flags.tls_key = self.tls_key.clone();
        flags.workers = if self.no_worker { Some("0".into()) } else { self.workers.clone() };
    }
}
