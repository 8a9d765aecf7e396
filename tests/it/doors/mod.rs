//! How clients come in: over TLS, from behind proxies, not too often, by which hosts, and from which pages.

mod browsers;
mod hosts;
mod often;
mod tls;
