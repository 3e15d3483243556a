//! Every route, what it needs and how it words a refusal: one table in one place.

use std::collections::BTreeSet;

use stele_auth::Scope;

use super::refusal::Refusal;

/// One route of [`ROUTES`].
#[derive(Debug)]
pub struct Route {
    /// A path, or with `/*` at its end everything below one.
    pub pattern: &'static str,
    /// What a request to it needs.
    pub needs: Needs,
}

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Not even a token.
    Nothing,
    /// A token with one of these scopes.
    AnyOf(&'static [Scope]),
}

const INGEST: Needs = Needs::AnyOf(&[Scope::Ingest]);
const QUERY: Needs = Needs::AnyOf(&[Scope::Query]);
const ADMIN: Needs = Needs::AnyOf(&[Scope::Admin]);

/// Whose form a refusal takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    InfluxV1,
    InfluxV2,
    Librato,
    Native,
}

/// Every route of Stele. A path that is not here is not served.
pub const ROUTES: &[Route] = &[
    route("/ping", Needs::Nothing),
    route("/health", Needs::Nothing),
    route("/write", INGEST),
    // What an Influx client asks before it writes; it is no way to samples.
    route("/query", Needs::AnyOf(&[Scope::Ingest, Scope::Query])),
    route("/api/v2/write", INGEST),
    route("/api/samples", INGEST),
    route("/v1/metrics", INGEST),
    route("/v1/measurements", INGEST),
    route("/librato/*", INGEST),
    route("/sql", QUERY),
    route("/receipts/*", QUERY),
    route("/status", QUERY),
    route("/metrics", QUERY),
    route("/admin/*", ADMIN),
];

const fn route(pattern: &'static str, needs: Needs) -> Route {
    Route { pattern, needs }
}

impl Route {
    fn is_for(&self, path: &str) -> bool {
        match self.pattern.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == self.pattern,
        }
    }

    /// Whether a token may stand in the parameters `u` and `p`. Nowhere else: addresses end up in
    /// histories and logs.
    pub(super) fn takes_query_credentials(&self) -> bool {
        dialect(self.pattern) == Dialect::InfluxV1
    }

    pub(super) fn allows(&self, scopes: &BTreeSet<Scope>) -> Result<(), Refusal> {
        match self.needs {
            Needs::Nothing => Ok(()),
            Needs::AnyOf(needed) if needed.iter().any(|scope| scopes.contains(scope)) => Ok(()),
            Needs::AnyOf(needed) => Err(Refusal::Scope { needed }),
        }
    }
}

/// The route of a path as it stands in the request: the router matches the same text.
pub(super) fn find(path: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|route| route.is_for(path))
}

/// How refusals of a path are worded, known or not.
pub(super) fn dialect(path: &str) -> Dialect {
    if matches!(path, "/write" | "/query") {
        Dialect::InfluxV1
    } else if path.starts_with("/api/v2/") {
        Dialect::InfluxV2
    } else if path.starts_with("/v1/") || path.starts_with("/librato/") {
        Dialect::Librato
    } else {
        Dialect::Native
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn every_route_needs_what_the_table_says() {
        let mut shown = String::new();
        for route in ROUTES {
            let path = route.pattern.replace('*', "x/y");
            let found = find(&path).unwrap();
            assert_eq!(found.pattern, route.pattern, "{path} is another route's");
            let allowed = [Scope::Ingest, Scope::Query, Scope::Admin];
            let allowed = allowed.map(|scope| match found.allows(&[scope].into()) {
                Ok(()) => scope.as_str(),
                Err(_) => "-",
            });
            let open = if found.needs == Needs::Nothing {
                "open"
            } else {
                ""
            };
            writeln!(
                shown,
                "{:20} {:4} {:?} {:?}",
                route.pattern,
                open,
                allowed,
                dialect(&path)
            )
            .unwrap();
        }
        insta::assert_snapshot!(shown);
    }

    #[test]
    fn what_only_resembles_a_route_is_none() {
        for path in [
            "/",
            "",
            "/write/",
            "//write",
            "/Write",
            "/ping/x",
            "/admin",
            "/librato",
            "/receipts",
            "/api/v2/query",
            "/%61dmin/settle",
            "/x/admin/y",
            "*",
        ] {
            assert!(find(path).is_none(), "{path}");
        }
    }
}
