//! The gate before every route: whose request this is, and whether it may.
//!
//! It decides from the head of a request alone; no byte of a body is read before it. The tenant
//! comes from the token and from nowhere else, and is handed on as a [`TenantId`] among the
//! request's extensions, the [`Principal`](stele_auth::Principal) beside it. Credentials are taken
//! out of the request, so that nothing behind the gate can log them.

mod credentials;
mod loopback;
mod refusal;
mod routes;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use stele_auth::Tokens;
use stele_model::TenantId;

use refusal::Refusal;
pub use routes::{Needs, ROUTES, Route};

/// Lets in only who may. Cheap to clone.
#[derive(Clone)]
pub struct Gate(Arc<Mode>);

enum Mode {
    Tokens(Arc<Tokens>),
    Loopback(TenantId),
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Mode::Tokens(tokens) => write!(f, "Gate({tokens:?})"),
            Mode::Loopback(tenant) => write!(f, "Gate(loopback, {tenant})"),
        }
    }
}

impl Gate {
    /// Every route but the open ones needs a token with its scope.
    #[must_use]
    pub fn tokens(tokens: Arc<Tokens>) -> Self {
        Self(Arc::new(Mode::Tokens(tokens)))
    }

    /// No token is needed, and every request is `tenant`'s; it must be addressed to the loopback
    /// interface by name or address, so that a web page can neither rebind a name of its own to
    /// it nor post to it. Only for a listener that is bound to loopback.
    #[must_use]
    pub fn loopback(tenant: TenantId) -> Self {
        Self(Arc::new(Mode::Loopback(tenant)))
    }

    /// Puts the gate before everything `router` serves, its fallback included. Routes that are
    /// not in [`ROUTES`] are refused: 401 without a valid token, else 404.
    pub fn guard(&self, router: Router) -> Router {
        router.layer(from_fn_with_state(self.clone(), pass))
    }

    async fn admit(&self, route: Option<&Route>, request: &mut Request) -> Result<(), Refusal> {
        match &*self.0 {
            Mode::Loopback(tenant) => {
                loopback::check(request)?;
                request.extensions_mut().insert(tenant.clone());
            }
            Mode::Tokens(tokens) => {
                if route.is_some_and(|route| route.needs == Needs::Nothing) {
                    return Ok(());
                }
                let by_query = route.is_some_and(|route| route.takes_query_credentials());
                let presented = credentials::take(request, by_query)?;
                let principal = tokens.authenticate(presented.reveal()).await?;
                if let Some(route) = route {
                    route.allows(&principal.scopes)?;
                }
                request.extensions_mut().insert(principal.tenant.clone());
                request.extensions_mut().insert(principal);
            }
        }
        match route {
            Some(_) => Ok(()),
            None => Err(Refusal::NoRoute),
        }
    }
}

async fn pass(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let route = routes::find(request.uri().path());
    match gate.admit(route, &mut request).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            let (kind, reason) = (refusal.kind(), &refusal);
            tracing::debug!(%kind, %reason, "a request was not let in");
            refusal.reply(routes::dialect(request.uri().path()))
        }
    }
}
