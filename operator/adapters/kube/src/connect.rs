//! How every Holdfast process connects to the API server: as kube does, and noticing within seconds that a connection is dead.

use std::time::Duration;

use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Client, Config, Result};
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};

/// A connection on which nothing was heard for this long is asked whether it still stands, and again each time this has passed.
const KEEPALIVE: Duration = Duration::from_secs(3);
/// So many questions without an answer end it.
const KEEPALIVE_TRIES: u32 = 3;
/// Data that the other end has not acknowledged for this long ends a connection (tcp(7), `TCP_USER_TIMEOUT`). Linux would go on
/// for 15 minutes, with pauses that double up to two minutes (`tcp_retries2`): a cut of half a minute then costs another one.
const UNACKNOWLEDGED: Duration = Duration::from_secs(9);

/// A client as [`Client::try_from`] makes it. It differs in this: a connection that a cut of the network or a power cut of the
/// API server has left half open, such as a watch that would wait for five minutes, ends after 12 s at most and is made anew.
pub fn connect(config: Config) -> Result<Client> {
    if config.proxy_url.is_some() {
        // kube knows which of them it can use, and says so.
        return Client::try_from(config);
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE));
    tcp.set_keepalive_retries(Some(KEEPALIVE_TRIES));
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let mut https = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp)?);
    https.set_connect_timeout(config.connect_timeout);
    https.set_read_timeout(config.read_timeout);
    https.set_write_timeout(config.write_timeout);
    let http: legacy::Client<_, Body> = legacy::Client::builder(TokioExecutor::new()).build(https);
    let retries = config
        .default_retry
        .then(|| RetryLayer::new(RetryPolicy::server_retry()));
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(retries)
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}
