//! How clients come in: over TLS, from behind proxies, not too often, and from which pages.

mod browsers;
mod often;
mod tls;
