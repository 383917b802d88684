//! The web page and the SDK, embedded in the program.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Builds pairs of URL path and content from paths below `web/`.
macro_rules! files {
    ($($path:literal),+ $(,)?) => { [$(($path, include_str!(concat!("../../../web", $path)))),+] };
}

/// Files that are served unchanged.
const FILES: [(&str, &str); 41] = files![
    "/page/access.js",
    "/page/changes.js",
    "/page/diagnosis.js",
    "/page/figures.js",
    "/page/gallery.js",
    "/page/icon.svg",
    "/page/index.html",
    "/page/page.css",
    "/page/page.js",
    "/page/panels.css",
    "/page/parameters.js",
    "/page/plots.js",
    "/page/share.js",
    "/page/source.js",
    "/page/stage.css",
    "/page/stage.js",
    "/page/texts.js",
    "/page/theme.js",
    "/page/throttle.js",
    "/page/tools.js",
    "/page/watch.css",
    "/page/watch.html",
    "/page/watch.js",
    "/sdk/access.js",
    "/sdk/connection.js",
    "/sdk/control.js",
    "/sdk/errors.js",
    "/sdk/goodbye.js",
    "/sdk/http.js",
    "/sdk/inputs.js",
    "/sdk/link.js",
    "/sdk/liveness.js",
    "/sdk/measure.js",
    "/sdk/ooblex.d.ts",
    "/sdk/ooblex.js",
    "/sdk/returning.js",
    "/sdk/rooms.js",
    "/sdk/session.js",
    "/sdk/sources.js",
    "/sdk/viewer.js",
    "/sdk/viewlink.js",
];

/// Additional URL paths of some files.
const ALIASES: [(&str, &str); 3] = [("/", "/page/index.html"), ("/watch", "/page/watch.html"), ("/favicon.ico", "/page/icon.svg")];

/// Builds a router with a route for each file.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let content = |wanted: &str| FILES.into_iter().find(|(path, _)| *path == wanted);
    let aliases = ALIASES.into_iter().filter_map(|(alias, path)| Some((alias, content(path)?)));
    let all = FILES.into_iter().map(|file| (file.0, file)).chain(aliases);
    all.fold(Router::new(), |router, (path, (name, content))| router.route(path, get(async move || file(content_type(name), content))))
}

/// Returns whether a file is served at a path.
pub fn is_path(path: &str) -> bool {
    FILES.iter().chain(&ALIASES).any(|(served, _)| *served == path)
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("ts") => "text/plain; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        _ => "image/svg+xml",
    }
}

fn file(content_type: &'static str, content: &'static str) -> Response {
    ([(header::CONTENT_TYPE, content_type)], content).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    #[test]
    fn every_file_of_the_page_and_the_sdk_is_served() {
        let web = concat!(env!("CARGO_MANIFEST_DIR"), "/../../web");
        let served = |name: &str| ["html", "js", "css", "svg", "ts"].iter().any(|ending| name.ends_with(&format!(".{ending}")));
        let there: BTreeSet<_> = ["page", "sdk"]
            .into_iter()
            .flat_map(|folder| fs::read_dir(format!("{web}/{folder}")).unwrap().map(move |entry| (folder, entry.unwrap())))
            .map(|(folder, entry)| format!("/{folder}/{}", entry.file_name().to_string_lossy()))
            .filter(|name| served(name))
            .collect();
        assert_eq!(FILES.map(|(path, _)| path.to_string()).into_iter().collect::<BTreeSet<_>>(), there);
        assert!(ALIASES.iter().all(|(_, path)| there.contains(*path)));
    }

    #[test]
    fn nothing_in_them_names_another_host() {
        for (path, content) in FILES {
            let hosts = content.split("http").skip(1).filter(|rest| rest.starts_with("://") || rest.starts_with("s://"));
            let others: Vec<_> =
                hosts.filter(|rest| !["://www.w3.org/2000/svg", "://localhost"].iter().any(|known| rest.starts_with(known))).collect();
            assert!(
                others.is_empty(),
                "{path}: {:?}",
                others.iter().map(|rest| rest.chars().take(40).collect::<String>()).collect::<Vec<_>>()
            );
        }
    }
}
