//! What requests are made with: connections, and our credentials. Read again at the beginning of each sync.
//!
//! SECURITY: who we are is for the origin of `--source` alone. Requests that were redirected to another origin are made by a client
//! of their own, which has no client certificate, and carry neither credentials nor the headers of `--header-file`. Nor do they where
//! such an origin sends us back: what is fetched then was its choice. One exception is where a registry's
//! tokens come from: user and password alone go to any port of its host, and to another host that a flag names.
//!
//! No connection is kept without a limit. Its address was looked up when it was made, and a name that leads elsewhere by now would never
//! be noticed. So the clients, with all their connections and with the answers of DNS that they remember, are replaced from time
//! to time.

use std::time::{Duration, Instant};

use http::Method;
use http::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::{Client, RequestBuilder, Url};

use super::client::{ClientError, Tls, Transfer, client_for};
use super::credentials::Credential;
use super::tls::TlsPems;

/// Clients, and what they show.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    clients: Clients,
    credential: Option<Credential>,
    headers: HeaderMap,
}

#[derive(Debug, Clone)]
struct Clients {
    /// For the origin of `--source`.
    origin: Client,
    /// For whatever `--redirect-to` names.
    elsewhere: Client,
    made: Instant,
    pems: TlsPems,
}

impl Session {
    pub(super) fn new(tls: Tls, transfer: &Transfer, pems: TlsPems) -> Result<Self, ClientError> {
        Ok(Self { clients: Clients::new(tls, transfer, pems)?, credential: None, headers: HeaderMap::new() })
    }

    /// A session with what the files hold now. Connections go on, unless certificates have changed, or they would become too old while
    /// an answer is held for so long.
    pub(super) fn renewed(
        &self,
        tls: Tls,
        transfer: &Transfer,
        held: Duration,
        pems: TlsPems,
        credential: Option<Credential>,
        headers: HeaderMap,
    ) -> Result<Self, ClientError> {
        let clients = if pems != self.clients.pems {
            tracing::info!("certificates have changed, so the next connections use the new ones");
            Clients::new(tls, transfer, pems)?
        } else if self.clients.made.elapsed().saturating_add(held) >= transfer.max_connection_age {
            Clients::new(tls, transfer, pems)?
        } else {
            self.clients.clone()
        };
        Ok(Self { clients, credential, headers })
    }

    /// What TLS trusts, without who we are.
    pub(super) fn tls_pems(&self) -> TlsPems {
        self.clients.pems.clone().anonymous()
    }

    /// A request to the origin of `--source`.
    pub(crate) fn to_origin(&self, method: Method, url: &Url) -> RequestBuilder {
        // A header file may say who we are in a way of its own, and then there is no other credential.
        let request = self.to_origin_unnamed(method, url).headers(self.headers.clone());
        match &self.credential {
            None => request,
            Some(credential) => credential.authorize(request),
        }
    }

    /// A request to the origin of `--source` without credentials and headers of ours.
    pub(crate) fn to_origin_unnamed(&self, method: Method, url: &Url) -> RequestBuilder {
        self.clients.origin.request(method, url.clone())
    }

    /// Whether there is something that may say who we are.
    pub(crate) fn has_credential(&self) -> bool {
        self.credential.is_some() || !self.headers.is_empty()
    }

    /// Whether that is user and password.
    pub(crate) fn has_password(&self) -> bool {
        matches!(self.credential, Some(Credential::Basic(..)))
    }

    /// Whether that is a token, or a header of `--header-file`, which are sent unasked.
    pub(crate) fn has_token(&self) -> bool {
        matches!(self.credential, Some(Credential::Bearer(_))) || !self.headers.is_empty()
    }

    /// A request to a place that may be shown user and password: a host that a flag names, or another port of the origin's. A token,
    /// the headers of `--header-file` and a client certificate stay with the origin.
    pub(crate) fn to_named(&self, method: Method, url: &Url) -> RequestBuilder {
        let request = self.to_elsewhere(method, url);
        match &self.credential {
            Some(password @ Credential::Basic(..)) => password.authorize(request),
            _ => request,
        }
    }

    /// A request to any other place.
    pub(crate) fn to_elsewhere(&self, method: Method, url: &Url) -> RequestBuilder {
        self.clients.elsewhere.request(method, url.clone())
    }
}

impl Clients {
    fn new(tls: Tls, transfer: &Transfer, pems: TlsPems) -> Result<Self, ClientError> {
        let mut headers = HeaderMap::new();
        // Sizes and digests are of the files themselves, not of a compressed form of them.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let build = |pems: &TlsPems| -> Result<Client, ClientError> {
            let client = client_for(tls, transfer.connect_timeout, pems)?
                .default_headers(headers.clone())
                .pool_idle_timeout(transfer.max_connection_age)
                .pool_max_idle_per_host(transfer.concurrency);
            Ok(client.build()?)
        };
        let origin = build(&pems)?;
        // A client is dear: it has the roots. Where there is no certificate of ours, one does for both.
        let elsewhere = if pems.has_identity() { build(&pems.clone().anonymous())? } else { origin.clone() };
        Ok(Self { origin, elsewhere, made: Instant::now(), pems })
    }
}
