//! The tier set before every request.

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use stele_http::error_response;

use crate::tenants::Tenants;

/// Lets `router` answer nothing on a tier set that may be out of date.
pub fn with_lease(router: Router, tenants: Tenants) -> Router {
    router.layer(from_fn_with_state(tenants, lease))
}

async fn lease(State(tenants): State<Tenants>, request: Request, next: Next) -> Response {
    match tenants.refresh().await {
        Ok(_) => next.run(request).await,
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "no tier set to act on"
            );
            error_response(error.kind(), &error.to_string())
        }
    }
}
