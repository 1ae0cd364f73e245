//! Every question that can be asked, the role it needs, and whether it is noted: one table, and the gate before each route.
//!
//! A route exists only by its line in [`ROUTES`]: the router is made from the table, each line behind its own gate. A test
//! asks every route as everybody.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Json, Router};

use super::{Caller, Observe, Resumed, TapRequest, Unapplied};
use crate::enrol::{Audit, Event, Outcome};
use crate::pki::Role;

type Observed = Arc<dyn Observe>;

/// A question.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    /// The least role that may ask. None: everybody who reaches a port and is no stranger.
    pub needs: Option<Role>,
    /// What the audit log calls it when it was allowed; refusals are always noted.
    pub noted: Option<&'static str>,
    handler: fn() -> MethodRouter<Observed>,
}

const fn route(
    method: &'static str,
    path: &'static str,
    needs: Option<Role>,
    noted: Option<&'static str>,
    handler: fn() -> MethodRouter<Observed>,
) -> Route {
    Route { method, path, needs, noted, handler }
}

const VIEWER: Option<Role> = Some(Role::Viewer);
const OPERATOR: Option<Role> = Some(Role::Operator);
const ADMIN: Option<Role> = Some(Role::Admin);

/// All of them.
pub const ROUTES: [Route; 13] = [
    route("GET", "/healthz", None, None, || get(|| async { "ok\n" })),
    route("GET", "/readyz", None, None, || get(ready)),
    route("GET", "/metrics", None, None, || get(prometheus)),
    route("GET", "/v1/tree", VIEWER, None, || get(tree)),
    route("GET", "/v1/status", VIEWER, None, || get(status)),
    route("GET", "/v1/lag", VIEWER, None, || get(lag)),
    route("GET", "/v1/dimensions", VIEWER, None, || get(dimensions)),
    route("GET", "/v1/dimensions/{dimension}", VIEWER, None, || get(dimension)),
    route(
        "POST",
        "/v1/dimensions/{dimension}/refresh",
        OPERATOR,
        Some("admin-dimension-refresh"),
        || post(refresh),
    ),
    route("GET", "/v1/tap/{pipeline}", OPERATOR, Some("admin-tap"), || get(tap)),
    route("POST", "/v1/resume/{pipeline}", OPERATOR, Some("admin-resume"), || post(resume)),
    route("GET", "/v1/definition", ADMIN, None, || get(definition)),
    route("POST", "/v1/reload", ADMIN, Some("admin-reload"), || post(reload)),
];

/// Which routes a door leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// Those that need no role.
    PlainHttp,
    EveryDoor,
}

/// The routes behind a door. Each request must carry its [`Caller`]; one that does not is refused.
pub(super) fn router(observe: Observed, audit: &Audit, behind: Behind) -> Router {
    let routes = ROUTES.iter().filter(|route| behind == Behind::EveryDoor || route.needs.is_none());
    let router = routes.fold(Router::new(), |router, route| {
        let gate = Gate { route, observe: Arc::clone(&observe), audit: audit.clone() };
        router.route(route.path, (route.handler)().route_layer(from_fn_with_state(gate, pass)))
    });
    router.with_state(observe)
}

/// What stands before a route.
#[derive(Clone)]
struct Gate {
    route: &'static Route,
    observe: Observed,
    audit: Audit,
}

/// Lets a request pass or refuses it, and notes what is to be noted before the answer leaves.
async fn pass(
    State(gate): State<Gate>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let asked = format!("{} {}", request.method(), request.uri().path());
    // Only browsers send it, on behalf of a page that has no business here.
    let of_a_page =
        request.method() == Method::POST && request.headers().contains_key(header::ORIGIN);
    if let Err(why) = gate.may(&caller, of_a_page).await {
        tracing::warn!(by = %caller, asked, why, "refused at the admin port");
        let event = Event::new(gate.route.noted.unwrap_or("admin"), Outcome::Refused);
        let event = event.with("by", &caller).with("asked", asked);
        gate.audit.record(event.with("why", &why)).await;
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let response = next.run(request).await;
    if let Some(what) = gate.route.noted {
        let outcome =
            if response.status().is_success() { Outcome::Allowed } else { Outcome::Refused };
        let event = Event::new(what, outcome).with("by", &caller).with("asked", asked);
        gate.audit.record(event.with("answer", response.status().as_u16())).await;
    }
    response
}

impl Gate {
    async fn may(&self, caller: &Caller, of_a_page: bool) -> Result<(), String> {
        if of_a_page {
            return Err("not for web pages".into());
        }
        let role = caller.role()?;
        if let Caller::Person { identity, .. } = caller
            && self.observe.is_revoked(identity.id).await?
        {
            return Err("this certificate is revoked".into());
        }
        match self.route.needs {
            Some(needed) if role.is_none_or(|role| role < needed) => {
                let has = role.map_or_else(|| "nobody".into(), |role| role.to_string());
                Err(format!("it takes the role {needed}, and this is {has}"))
            }
            _ => Ok(()),
        }
    }
}

async fn ready(State(observe): State<Observed>, Extension(caller): Extension<Caller>) -> Response {
    let has_name = !matches!(caller, Caller::Anybody);
    match observe.status().await {
        Ok(status) if status.why.is_empty() => "ready\n".into_response(),
        Ok(status) if has_name => {
            (StatusCode::SERVICE_UNAVAILABLE, status.why.join("\n") + "\n").into_response()
        }
        Err(why) if has_name => unavailable(why),
        // Reasons name tables, hosts and files.
        Ok(_) | Err(_) => unavailable("not ready: `garam status` says why\n".into()),
    }
}

async fn prometheus(State(observe): State<Observed>) -> Response {
    match observe.metrics().await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(why) => unavailable(why),
    }
}

async fn tree(State(observe): State<Observed>) -> Response {
    observe.tree().await.map(Json).map_or_else(unavailable, IntoResponse::into_response)
}

async fn status(State(observe): State<Observed>) -> Response {
    observe.status().await.map(Json).map_or_else(unavailable, IntoResponse::into_response)
}

async fn lag(State(observe): State<Observed>) -> Response {
    observe.lag().await.map(Json).map_or_else(unavailable, IntoResponse::into_response)
}

async fn dimensions(State(observe): State<Observed>) -> Response {
    Json(observe.dimensions()).into_response()
}

async fn dimension(State(observe): State<Observed>, Path(name): Path<String>) -> Response {
    let found = observe.dimensions().into_iter().find(|dimension| dimension.name == name);
    found.map_or_else(|| no_dimension(&name), |found| Json(found).into_response())
}

async fn refresh(State(observe): State<Observed>, Path(name): Path<String>) -> Response {
    match observe.refresh(&name).await {
        Ok(Some(answer)) => Json(answer).into_response(),
        Ok(None) => no_dimension(&name),
        Err(why) => unavailable(why),
    }
}

async fn definition(State(observe): State<Observed>) -> Response {
    observe.definition().await.map(Json).map_or_else(unavailable, IntoResponse::into_response)
}

async fn reload(State(observe): State<Observed>) -> Response {
    match observe.reload().await {
        Ok(changes) => Json(changes).into_response(),
        Err(Unapplied::Config(why)) => (StatusCode::UNPROCESSABLE_ENTITY, why).into_response(),
        Err(Unapplied::Refused(why)) => (StatusCode::CONFLICT, why).into_response(),
        Err(Unapplied::Unavailable(why)) => unavailable(why),
    }
}

async fn resume(State(observe): State<Observed>, Path(pipeline): Path<String>) -> Response {
    match observe.resume(&pipeline).await {
        Ok(Some(Resumed::Started)) => StatusCode::NO_CONTENT.into_response(),
        Ok(Some(Resumed::NotParked)) => {
            let text =
                format!("pipeline {pipeline} is not parked: it runs, or tries again by itself");
            (StatusCode::CONFLICT, text).into_response()
        }
        Ok(None) => not_configured(&pipeline),
        Err(why) => unavailable(why),
    }
}

async fn tap(
    State(observe): State<Observed>,
    Path(pipeline): Path<String>,
    Query(request): Query<TapRequest>,
) -> Response {
    match observe.tap(&pipeline, request).await {
        Ok(Some(lines)) => {
            let lines = futures_util::stream::unfold(lines, |mut lines| async move {
                let line = lines.recv().await?;
                Some((Ok::<_, std::convert::Infallible>(line + "\n"), lines))
            });
            Body::from_stream(lines).into_response()
        }
        Ok(None) => not_configured(&pipeline),
        Err(why) => unavailable(why),
    }
}

fn not_configured(pipeline: &str) -> Response {
    (StatusCode::NOT_FOUND, format!("pipeline {pipeline} is not configured")).into_response()
}

fn no_dimension(name: &str) -> Response {
    (StatusCode::NOT_FOUND, format!("dimension {name} is not configured")).into_response()
}

fn unavailable(why: String) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}
