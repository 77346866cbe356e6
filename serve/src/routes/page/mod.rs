//! The page with a camera: HTML, style, scripts and sample pictures, put together into one file that asks nobody but
//! this server for anything.
//!
//! The sources lie beside this file. Scripts become one module in the order of [`SCRIPTS`], so they see one another's
//! names and import nothing. The policy that browsers are given names script and style by their hashes.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use crate::app::App;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/", get(page))
}

const HTML: &str = include_str!("index.html");
const STYLE: &str = include_str!("style.css");
const SCRIPTS: [&str; 10] = [
    include_str!("script/base.js"),
    include_str!("script/server.js"),
    include_str!("script/prompt.js"),
    include_str!("script/marks.js"),
    include_str!("script/picture.js"),
    include_str!("script/answer.js"),
    include_str!("script/look.js"),
    include_str!("script/history.js"),
    include_str!("script/cameras.js"),
    // The last starts what the others have.
    include_str!("script/main.js"),
];
const SAMPLES: [(&str, &[u8]); 3] = [
    ("{{scene}}", include_bytes!("samples/scene.webp")),
    ("{{day}}", include_bytes!("samples/day.webp")),
    ("{{menu}}", include_bytes!("samples/menu.webp")),
];

/// What is sent.
struct Page {
    html: Bytes,
    tag: HeaderValue,
    policy: HeaderValue,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let script = SCRIPTS.join("\n");
    let mut html = HTML.replace("{{style}}", STYLE).replace("{{script}}", &script);
    for (place, bytes) in SAMPLES {
        html = html.replace(place, &BASE64_STANDARD.encode(bytes));
    }
    // Samples are data, a chosen picture and the camera are blobs; all else is this server's.
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src 'self' data: blob:; media-src 'self' blob:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(&script),
        hash(STYLE)
    );
    let tag = format!("\"{}\"", hash(&html));
    Page { html: html.into(), tag: ascii(tag), policy: ascii(policy) }
});

/// As policies name a source.
fn hash(text: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text)))
}

fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("policies and hashes are of visible ASCII")
}

const PERMISSIONS: HeaderName = HeaderName::from_static("permissions-policy");
const OPENER: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// The page, or word that it is still the same.
async fn page(headers: HeaderMap) -> Response {
    let page = &*PAGE;
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let is_known = known
        .flat_map(|value| value.split(','))
        .any(|tag| tag.trim().trim_start_matches("W/").as_bytes() == page.tag.as_bytes());
    let caching = [
        (header::ETAG, page.tag.clone()),
        // Kept, but asked for each time: another version of the server may answer.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    if is_known {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    let rest = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, page.policy.clone()),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (
            PERMISSIONS,
            HeaderValue::from_static("camera=(self), microphone=(), geolocation=(), display-capture=()"),
        ),
        (OPENER, HeaderValue::from_static("same-origin")),
    ];
    (caching, rest, page.html.clone()).into_response()
}
