//! Client connections: TLS, proxies, rate limits, hosts and origins.

mod browsers;
mod hosts;
mod often;
mod tls;
