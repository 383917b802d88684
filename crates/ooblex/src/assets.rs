//! The page and the SDK, built into the program.

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::http::Gateway;

/// Path, content type and content of all that is served as it is.
const FILES: [(&str, &str, &str); 8] = [
    ("/", "text/html; charset=utf-8", include_str!("../../../web/page/index.html")),
    ("/page/page.js", JAVASCRIPT, include_str!("../../../web/page/page.js")),
    ("/page/parameters.js", JAVASCRIPT, include_str!("../../../web/page/parameters.js")),
    ("/page/figures.js", JAVASCRIPT, include_str!("../../../web/page/figures.js")),
    ("/page/page.css", "text/css; charset=utf-8", include_str!("../../../web/page/page.css")),
    ("/page/icon.svg", "image/svg+xml", include_str!("../../../web/page/icon.svg")),
    ("/favicon.ico", "image/svg+xml", include_str!("../../../web/page/icon.svg")),
    ("/sdk/ooblex.js", JAVASCRIPT, include_str!("../../../web/sdk/ooblex.js")),
];

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// A route for each file.
pub(crate) fn router() -> Router<Arc<Gateway>> {
    FILES
        .into_iter()
        .fold(Router::new(), |router, (path, content_type, content)| router.route(path, get(async move || file(content_type, content))))
}

fn file(content_type: &'static str, content: &'static str) -> Response {
    ([(header::CONTENT_TYPE, content_type)], content).into_response()
}
