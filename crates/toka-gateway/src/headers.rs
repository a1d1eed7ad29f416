//! Which headers go on, in both directions: all but those of one connection, and those that hold keys.

use http::header::{HeaderMap, HeaderName};

/// Headers of a connection, not of what is said over it (RFC 9110, 7.6.1), and those that whoever sends makes anew.
const OF_CONNECTION: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
];

/// Where clients put keys, in every API, and what names the host that they meant.
const OF_CLIENT: [&str; 14] = [
    "host",
    "authorization",
    "x-api-key",
    "x-goog-api-key",
    "api-key",
    "cookie",
    "accept-encoding",
    "expect",
    "forwarded",
    "via",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    // It leaves parts of an answer out, those among them by which it is counted.
    "x-goog-fieldmask",
];

/// Parameters of a query that go on. Others could ask for another method, or for an answer without its figures.
const PARAMETERS: [&str; 11] = [
    "alt",
    "beta",
    "limit",
    "after",
    "after_id",
    "before_id",
    "order",
    "pageSize",
    "pageToken",
    "api-version",
    "purpose",
];

/// What goes on of a request. Compression is left out: what is compressed cannot be counted.
pub(crate) fn of_request(headers: &HeaderMap) -> HeaderMap {
    filtered(headers, |name| !OF_CLIENT.contains(&name) && !name.starts_with("x-forwarded-"))
}

/// What goes on where nothing but the connection is another.
pub(crate) fn of_hop(headers: &HeaderMap) -> HeaderMap {
    filtered(headers, |_| true)
}

/// What goes on of an answer.
pub(crate) fn of_answer(headers: &HeaderMap) -> HeaderMap {
    filtered(headers, |name| name != "set-cookie")
}

fn filtered(headers: &HeaderMap, keeps: impl Fn(&str) -> bool) -> HeaderMap {
    // What `Connection` names belongs to the connection as well.
    let named: Vec<String> = headers
        .get_all("connection")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let goes_on = |name: &HeaderName| {
        let name = name.as_str();
        !OF_CONNECTION.contains(&name) && !named.iter().any(|known| known == name) && keeps(name)
    };
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter().filter(|(name, _)| goes_on(name)) {
        kept.append(name, value.clone());
    }
    kept
}

/// The keys that a request holds, wherever its client put them.
pub(crate) fn keys<'h>(headers: &'h HeaderMap, query: Option<&'h str>) -> Vec<&'h str> {
    let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = value("authorization")
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim());
    let in_query =
        query.into_iter().flat_map(|query| query.split('&')).filter_map(|part| part.strip_prefix("key="));
    let headers = [bearer, value("x-api-key"), value("x-goog-api-key"), value("api-key")];
    headers.into_iter().flatten().chain(in_query).collect()
}

/// What goes on of a query: parameters that are known, the key not among them.
pub(crate) fn known_parameters(query: &str) -> String {
    let is_known = |part: &&str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        PARAMETERS.contains(&name) && (name != "alt" || matches!(value, "sse" | "json"))
    };
    query.split('&').filter(is_known).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn what_nobody_knows_goes_on_and_keys_do_not() {
        let asked = headers(&[
            ("host", "127.0.0.1"),
            ("authorization", "Bearer phantom"),
            ("x-api-key", "phantom"),
            ("connection", "keep-alive, x-mine"),
            ("x-mine", "1"),
            ("transfer-encoding", "chunked"),
            ("accept-encoding", "gzip"),
            ("anthropic-beta", "a,b"),
            ("x-stainless-lang", "python"),
            ("x-unknown", "2"),
            ("x-forwarded-host", "a"),
            ("x-http-method-override", "DELETE"),
        ]);
        let kept = of_request(&asked);
        let names: Vec<&str> = kept.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["anthropic-beta", "x-stainless-lang", "x-unknown"]);
        let answer = headers(&[
            ("content-type", "text/event-stream"),
            ("content-length", "1"),
            ("set-cookie", "a"),
            ("request-id", "r"),
        ]);
        assert_eq!(of_answer(&answer).len(), 2);
    }

    #[test]
    fn keys_are_found_wherever_clients_put_them() {
        let all =
            headers(&[("authorization", "bearer  one"), ("x-api-key", "two"), ("x-goog-api-key", "three")]);
        assert_eq!(keys(&all, Some("alt=sse&key=four")), ["one", "two", "three", "four"]);
        assert_eq!(keys(&headers(&[("authorization", "Basic x")]), None), Vec::<&str>::new());
        assert_eq!(
            known_parameters("key=a&alt=sse&&b=1&$httpMethod=DELETE&fields=x&limit=3"),
            "alt=sse&limit=3"
        );
        assert_eq!(known_parameters("key=a&alt=proto"), "");
    }
}
